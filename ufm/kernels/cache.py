"""Where compiled kernels are kept: one folder per state of the package sources.

Numba does not notice when a helper in another file changes, so the folder carries a stamp of all sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path

KEPT_STAMPS = 3  # folders of other source states that are left in place
FRESH_SECONDS = 3600.0  # a folder used this recently may belong to a running process


PACKAGE = Path(__file__).resolve().parents[1]


def sources() -> list[Path]:
    """Every source file of the package in a fixed order."""
    return sorted(PACKAGE.rglob("*.py"))


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Hash of the names and contents of all package sources."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def stamp() -> str:
    """Hash of all package sources and of the versions that compile them."""
    from importlib.metadata import version

    versions = f"{sys.version_info[:3]} {version('numba')} {version('llvmlite')}"
    return hashlib.sha256(f"{versions} {source_digest()}".encode()).hexdigest()[:24]


def _base_folders() -> list[Path]:
    chosen = os.environ.get("UFM_CACHE_DIR")
    if chosen:
        return [Path(chosen)]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = getattr(os, "getuid", lambda: "user")()
    return [Path(home) / "ufm", Path(tempfile.gettempdir()) / f"ufm-cache-{user}"]


@lru_cache(maxsize=1)
def folder() -> Path | None:
    """Folder of this source state, created if need be; None if no folder can be written."""
    for base in _base_folders():
        place = base / stamp()
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            if hasattr(os, "getuid") and {place.stat().st_uid, base.stat().st_uid} != {os.getuid()}:
                continue  # compiled code of somebody else is not run
            with tempfile.TemporaryFile(dir=place):
                pass
            os.utime(place)
        except OSError:
            continue
        _prune(base, place)
        return place
    return None


def _prune(base: Path, current: Path) -> None:
    """Delete the oldest folders of other source states."""
    try:
        others = [p for p in base.iterdir() if p.is_dir() and len(p.name) == 24 and p != current]
        others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        for place in others[KEPT_STAMPS:]:
            if time.time() - place.stat().st_mtime > FRESH_SECONDS:
                shutil.rmtree(place, ignore_errors=True)
    except OSError:
        pass
