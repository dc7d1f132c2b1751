"""The command that makes a lost ledger good from the spool; registered by `cli`."""

from __future__ import annotations

from cxr_node import config as configuration
from cxr_node.command import DEFAULT_CONFIG, ConfigFile, command, out
from cxr_node.errors import ConfigError, ResourceError


@command()
def rebuild(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Check the ledger, set it aside where it is damaged, and receive again what only the spool knows."""
    from cxr_node.dicom import header
    from cxr_node.node import rebuild as room
    from cxr_node.node.ledger import Ledger
    from cxr_node.node.spool import Spool

    path = configuration.load(config).spool.path
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no spool yet; has the node run with this configuration?")
    ledger = Ledger.open(path, mend=True)
    try:
        found = room.rebuild(ledger, Spool(path), header.inspect)
    finally:
        ledger.close()
    out.print(f"{found.objects} objects in the spool, {found.received} of them received again")
    if found.unreadable:
        raise ResourceError(f"{found.unreadable} objects are damaged beyond their header: send those images again")
