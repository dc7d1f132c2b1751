"""The spool of a configuration; a kind of store whose library is missing is imported by nobody else."""

from __future__ import annotations

from cxr_node.config.schema import SpoolSection
from cxr_node.config.storage import FileStore, PosixStore, S3Store
from cxr_node.errors import ConfigError
from cxr_node.node.spool.disk import MIB
from cxr_node.node.spool.share_store import ShareStore
from cxr_node.node.spool.spool import Area, Spool, make_folders
from cxr_node.node.spool.store import Store


def open_spool(settings: SpoolSection) -> Spool:
    """Open the spool, on its store.

    Raises
    ------
    ConfigError : a folder or file of it cannot be used, or a library is missing.
    ResourceError : the disk or the share is full, gone or broken.
    """
    make_folders(settings.path)
    return Spool(settings.path, settings.min_free_mib, _store(settings))


def _store(settings: SpoolSection) -> Store | None:
    match settings.store:
        case FileStore():
            return None
        case PosixStore(path=path):
            return ShareStore(path, tuple(Area))
        case S3Store():
            return _bucket(settings.store, settings)


def _bucket(store: S3Store, settings: SpoolSection) -> Store:
    try:
        from cxr_node.node.spool import s3_store
        from cxr_node.node.spool.cache import Cache
    except ModuleNotFoundError as error:
        raise ConfigError("spool.store: kind s3 needs boto3: pip install 'cxr-node[cluster]'") from error
    return s3_store.S3Store(store, Cache(settings.path / "cache", store.cache_mib * MIB))
