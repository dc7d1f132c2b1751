"""Put the prebuilt OHIF viewers into a folder outside the repository: the files of the npm package, as published.

`python tests/viewer/install_ohif.py` does it by hand, prints the folders, and fails where it cannot. The folder is
CXR_NODE_VIEWER_CACHE, else `~/.cache/cxr-node`. Needs npm the first time, later nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSIONS = {
    "3.13.2": "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==",
    "3.11.1": "0lJRyHguGuIR06PxeJ3rqnPWf1OAqsaXGuqT2kl5HkNjIOxBDnRTTMvyHnkn3ZyjcHlsIhY8gf0h7AhVORqsSQ==",
}
"""What is tested, and the sha512 of the package (base64, as npm writes `dist.integrity`): newest first."""

UNUSED = ("ort", "dicom-microscopy-viewer")
"""Networks and slides: three quarters of the package, never asked for by a radiograph or a report."""


class InstallError(Exception):
    """The viewer is not here and cannot be fetched; says why."""


def cache() -> Path:
    """Where the viewers lie."""
    return Path(os.environ.get("CXR_NODE_VIEWER_CACHE") or Path.home() / ".cache" / "cxr-node")


def installed(version: str) -> Path:
    """Folder of one version's files, fetched where it is missing.

    Raises
    ------
    InstallError : npm is missing or fails, or the package is not the one that was tested.
    """
    folder = cache() / f"ohif-{version}"
    if (folder / "index.html").is_file():
        return folder
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        unpacked = _unpack(_fetch(version, Path(scratch)), Path(scratch))
        try:
            unpacked.rename(folder)  # complete or not there
        except OSError:
            if not (folder / "index.html").is_file():  # not another run that was faster
                raise
    return folder


def _fetch(version: str, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise InstallError("npm is not installed: apt-get install npm")
    command = [npm, "pack", "--silent", "--pack-destination", str(scratch), f"@ohif/app@{version}"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=240, check=False)
    packages = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or len(packages) != 1:
        raise InstallError(f"npm does not fetch OHIF {version}: {done.stderr.strip()[-300:]}")
    if base64.b64encode(hashlib.sha512(packages[0].read_bytes()).digest()).decode() != VERSIONS[version]:
        raise InstallError(f"OHIF {version} is not the package that was tested: another sha512")
    return packages[0]


def _unpack(package: Path, scratch: Path) -> Path:
    with tarfile.open(package) as archive:
        archive.extractall(scratch, filter="data")
    folder = scratch / "package" / "dist"
    for name in UNUSED:
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


if __name__ == "__main__":
    try:
        for each in VERSIONS:
            print(installed(each))
    except (InstallError, subprocess.TimeoutExpired) as error:
        sys.exit(str(error))
