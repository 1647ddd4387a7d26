"""What a result was computed with: versions, processor and threads; never who or where."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufm.checks import physical_bytes

if TYPE_CHECKING:
    from ufm.run import Run

_PACKAGE = Path(__file__).resolve().parent
_LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "sympy", "xarray", "matplotlib", "tqdm", "threadpoolctl")
_EXTRAS = ("h5netcdf", "h5py", "distributed")
_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

SCHEMA = 1
# Entries of `environment` about this process or its folders alone, which results do not depend on.
OF_PROCESS = (
    "usable cores",
    "thread variables",
    "numba variables",
    "numba cache",
    "memory",
    "encodings",
    "extras",
)


class Environment(dict[str, Any]):
    """A dictionary that prints as two columns."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{key:{width}s}  {_text(value)}" for key, value in self.items())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_text(item) for item in value) or "none found"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return "unknown" if value is None else str(value)


@lru_cache(maxsize=1)
def version() -> str:
    """Version of this package; ``"0+unknown"`` in a source tree that is not installed."""
    return _version("ufm") or "0+unknown"


def _version(package: str) -> str | None:
    from importlib import metadata  # brings the parsers of mails along

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def _software() -> dict[str, str | None]:
    found: dict[str, str | None] = {"ufm": version(), "commit": commit(), "source": source()}
    found["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    return found | {library: _version(library) for library in _LIBRARIES}


def source() -> str:
    """Digest of the package's Python files: tells apart source trees of one version or commit."""
    from ufm.kernels.cache import source_digest

    return source_digest()[:16]


def commit(root: Path | None = None) -> str | None:
    """Git commit of a source checkout, read from its files; None where there is none.

    Parameters
    ----------
    root : Path, optional
        Folder that holds ``.git``; by default the one around this package.
    """
    root = _PACKAGE.parent if root is None else root
    try:
        git = _git_folder(root / ".git")
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        found = _reference(git, head[5:]) if head.startswith("ref: ") else head
    except (OSError, ValueError):
        return None
    return found if found and _HASH.fullmatch(found) else None


def _git_folder(git: Path) -> Path:
    """The folder itself, or the one that a worktree's ``.git`` file points to."""
    if git.is_dir():
        return git
    return git.parent / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")


def _reference(git: Path, name: str) -> str | None:
    folders = [git]
    if (git / "commondir").is_file():
        folders.append(git / (git / "commondir").read_text(encoding="utf-8").strip())
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="ascii").strip()
        if (folder / "packed-refs").is_file():
            for line in (folder / "packed-refs").read_text(encoding="utf-8").splitlines():
                value, _, reference = line.partition(" ")
                if reference == name:
                    return value
    return None


@lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    return {
        "platform": " ".join(filter(None, (platform.system(), platform.machine(), *_libc()))),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _libc() -> tuple[str, str]:
    try:
        return platform.libc_ver() if platform.system() == "Linux" else ("", "")
    except (OSError, ValueError):
        return "", ""


def _processor() -> str:
    """Model name of the processor, without starting another process."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    except OSError:
        pass
    return os.environ.get("PROCESSOR_IDENTIFIER") or platform.machine() or "unknown"


def usable_cores() -> int | None:
    """Cores that this process may run on; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@lru_cache(maxsize=1)
def _pools() -> Any:
    """Controller of the BLAS libraries, those of numpy and scipy; finding them takes longer than asking them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _blas() -> list[dict[str, Any]]:
    """BLAS libraries loaded in this process and their threads, without the paths of their files."""
    try:
        pools = _pools().info()
    except (ImportError, OSError, RuntimeError):
        return []
    kept = {
        "internal_api": "name",
        "version": "version",
        "architecture": "architecture",
        "num_threads": "threads",
    }
    found = []
    for pool in pools:
        entry = {new: pool[old] for old, new in kept.items() if pool.get(old) is not None}
        if pool.get("user_api") == "blas" and entry not in found:
            found.append(entry)
    return found


def _cache_folder() -> str | None:
    """Where compiled functions are kept, with the home folder written as ~."""
    try:
        from ufm.kernels.cache import folder

        found = folder()
    except Exception:  # a report about the environment must not fail because of one of its lines
        return None
    if found is None:
        return None
    path = Path(found)
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def environment() -> Environment:
    """Versions, processor, BLAS and threads of this process; `print` shows one line each.

    No library is imported for it: versions come from the installed metadata.

    Returns
    -------
    Environment
        A dict; unknown entries are None.

    Examples
    --------
    >>> "numpy" in environment()
    True
    """
    import numpy as _loads_blas  # noqa: F401

    found = Environment(_software())
    found |= _machine() | {"usable cores": usable_cores(), "blas": _blas()}
    threads = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    found["thread variables"] = threads or "none set"
    found["numba variables"] = _numba_variables() or "none set"
    found["numba cache"] = _cache_folder()
    found["memory"] = f"{physical_bytes() / 2**30:.1f} GiB"
    found["encodings"] = {"text": getattr(sys.stdout, "encoding", None), "files": sys.getfilesystemencoding()}
    found["extras"] = {name: _version(name) or "missing" for name in _EXTRAS}
    return found


def _numba_variables() -> dict[str, str]:
    """Settings that change how kernels are compiled; a value that may be a path is not shown."""
    return {
        name: "set" if os.sep in value else value
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and name not in _THREAD_VARIABLES
    }


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Provenance(Mapping[str, Any]):
    """What a run was computed with and what is needed to repeat it, as plain values.

    Names of machines and people, and paths, are not part of it. Time and threads are those of the run; what
    cannot change within a process is looked up when first read.

    Parameters
    ----------
    run : Run
        The run just simulated.

    Notes
    -----
    The keys are ``schema``, ``software`` and ``environment`` (versions, machine), ``run`` (its table, array-valued
    fields by digest), ``rerun`` (None, or why the table alone cannot repeat the run), ``time`` (UTC).
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._time = datetime.now(UTC).isoformat(timespec="seconds")
        self._blas = _blas()

    @cached_property
    def _record(self) -> dict[str, Any]:
        from ufm.config import describe

        table, reason = describe(self._run, {})
        return {
            "schema": SCHEMA,
            "software": dict(_software()),
            "environment": {
                **_machine(),
                "usable cores": usable_cores(),
                "blas": self._blas,
                "byte order": sys.byteorder,
            },
            "run": table,
            "rerun": reason,
            "time": self._time,
        }

    def __getitem__(self, key: str) -> Any:
        return self._record[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)

    def __repr__(self) -> str:
        return repr(self._record)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._record,)
