"""Trajectories on disk: one ``.npz`` file, written whole or not at all, checked in full when read.

The file is an uncompressed zip of ``.npy`` members that `numpy.load` opens without pickle. Its member
``header`` is a JSON text: format, schema, a checksum over everything, and a body with the run's table, its
status, its stats and its provenance. The other members are arrays: those of the trajectory, those of the
integrator's end, and the array-valued fields of the description (``content.<digest>``).

`write_archive` and `read_archive` are the same for any kind of body and arrays; the shards of a sweep use them, too.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ufm.checks import path_of, regular_file, whole
from ufm.config import describe, run_from_table
from ufm.errors import IncompatibleError, InvalidProblemError, StorageError
from ufm.run import Run
from ufm.trajectory import End, Status, Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "ufm trajectory"
SCHEMA = 1
STALE_SECONDS = 3600.0  # a temporary file that was written to this recently may belong to a running process


@dataclass(frozen=True)
class Archive:
    """A kind of file: its name and schema in the header, what writes it, and what to do about a damaged one."""

    format: str
    schema: int
    writer: str
    remedy: str


TRAJECTORY = Archive(FORMAT, SCHEMA, "Trajectory.save", "simulate the run again, or load another copy")
_RECORDS = ("steps", "states", "fit", "penalty")
_END = ("theta", "m", "v", "unit")
_ARRAYS = {*_RECORDS, *(f"end.{name}" for name in _END)}
_STATUSES = ("completed", "diverged", "stopped", "interrupted")
# An .npy file of version 1.0 as numpy writes it: magic and version, length of the text, and the text, no other.
_MAGIC, _PREFIX = b"\x93NUMPY\x01\x00", struct.Struct("<8sH")
_DESCRIPTION = re.compile(
    r"\{'descr': '(?P<descr>[<>|][iufU]\d{1,9})', 'fortran_order': (True|False), "
    r"'shape': \((?P<shape>\d{0,18}(, ?\d{1,18}){0,31},?)\), \} *\n"
)
# What numpy, zipfile and json raise for bytes that are not what they should be.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
)


def save(trajectory: Trajectory, path: str | Path) -> Path:
    """Write a trajectory to a file, whole or not at all.

    The bytes go to a temporary file in the same folder, which replaces `path` once they are on disk. Whatever
    goes wrong, an older file at `path` stays as it was and nothing half-written is left.

    Parameters
    ----------
    trajectory : Trajectory
        What is written, its integrator's end included, so that a loaded run resumes bit for bit.
    path : str or Path
        The file; by convention it ends in ``.npz``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StorageError
        If the file cannot be written, or the trajectory holds something that a file cannot.
    """
    path = path_of("save.path", path)
    write_archive(path, TRAJECTORY, *_packed(trajectory))
    return path


def write_archive(
    path: Path, kind: Archive, body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write arrays of real numbers and a body of plain values to a file, whole or not at all.

    Raises
    ------
    StorageError
        If the file cannot be written, or an array holds anything but real numbers.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise StorageError(f"{path}: {name} has dtype {array.dtype}; allowed: real numbers.")
    header = {"format": kind.format, "schema": kind.schema, "checksum": _checksum(body, arrays), "body": body}
    with _replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"header": np.array(json.dumps(header)), **arrays}.items():
            # A fixed date makes equal contents equal files.
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write bytes to a file, whole or not at all, as `save` does.

    Parameters
    ----------
    path : str or Path
        The file; an older one is replaced, a missing folder is made.
    data : bytes
        All of its content.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    path = path_of("write_atomically.path", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {path.parent} is no folder ({error.strerror}); allowed: a place with access."
        ) from error
    with _replacing(path) as file:
        file.write(data)
    return path


def write_picture(path: Path, figure: Figure) -> Path:
    """Write a figure in the format of the file's suffix, as `write_atomically` does."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:])
    return write_atomically(path, picture.getvalue())


def _packed(trajectory: Trajectory) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Body and arrays of the file."""
    content: dict[str, np.ndarray] = {}
    table, _ = describe(trajectory.run, content)
    status, end = trajectory.status, trajectory.end
    body = {
        "run": table,
        "status": {"name": status.name, "step": int(status.step), "reason": status.reason},
        "stats": _jsonable(trajectory.stats, "stats"),
        "provenance": _jsonable(trajectory.provenance, "provenance"),
        "end": {"step": int(end.step)},
    }
    arrays = {name: np.asarray(getattr(trajectory, name)) for name in _RECORDS}
    arrays |= {f"end.{name}": np.asarray(getattr(end, name)) for name in _END}
    arrays |= {f"content.{digest}": array for digest, array in sorted(content.items())}
    return body, arrays


def _jsonable(value: Any, where: str) -> Any:
    """Plain values of a mapping: numpy numbers become Python's, arrays and tuples become lists."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf":
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item, where) for item in value]
    raise StorageError(f"Trajectory.{where} is {value!r}; allowed: numbers, texts, lists and dicts of them.")


def _checksum(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    key = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        key.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        key.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return key.hexdigest()


def target_of(path: Path) -> Path:
    """Return the file that writing to `path` would make or replace, or raise StorageError."""
    # A link keeps pointing to the file it points to.
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise StorageError(
                f"{path} is a folder; allowed: the name of a file, such as {path / 'run.npz'}."
            )
        if os.path.lexists(target) and not target.is_file():
            raise StorageError(f"{path} is a pipe, a device or a loop of links; allowed: the name of a file.")
        if not target.parent.is_dir():
            raise StorageError(
                f"{path} cannot be written: there is no folder {target.parent}; allowed: one that exists."
            )
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); allowed: another name.") from None
    return target


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `path` when the block ends without an error."""
    target = target_of(path)
    stem = f".{target.name[:200]}."
    _sweep_parts(target.parent, stem)
    part = target.with_name(f"{stem}{secrets.token_hex(6)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        detail = error.strerror or error
        raise StorageError(
            f"{path} cannot be written ({detail}); allowed: a place with room and access."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sweep_parts(folder: Path, stem: str) -> None:
    """Remove what killed writers of this file left, once nobody has written to it for an hour."""
    with suppress(OSError):
        for part in folder.glob(f"{glob.escape(stem)}{'[0-9a-f]' * 12}.part"):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(
    path: str | Path, *, problem: Any = None, optimizer: Any = None, init: Any = None, record: Any = None
) -> Trajectory:
    """Read a trajectory that `save` wrote, and check all of it.

    Parameters
    ----------
    path : str or Path
        The file.
    problem, optimizer, init, record : optional
        Needed for the parts of the run that hold a function or a class of your own, which a file cannot: give
        the same objects again. The file holds their description, and other objects are refused.

    Returns
    -------
    Trajectory
        Equal to the saved one bit for bit; `Trajectory.resume` continues it.

    Raises
    ------
    StorageError
        If the file is missing, damaged, not ours or of a newer schema.
    IncompatibleError
        If a part is needed but not given, given but not needed, or not the one the file was made with.

    Examples
    --------
    >>> import tempfile, ufm
    >>> run = ufm.simulate(ufm.UFM(classes=3, width=4), ufm.GD(0.1), steps=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = ufm.load(run.save(f"{folder}/run.npz"))
    >>> bool((again.states == run.states).all())
    True
    """
    path = path_of("load.path", path)
    body, arrays = read_archive(path, TRAJECTORY)
    if {name for name in arrays if not name.startswith("content.")} != _ARRAYS:
        raise StorageError(f"{path} does not hold the arrays of a trajectory; next: {TRAJECTORY.remedy}.")
    given = {"problem": problem, "optimizer": optimizer, "init": init, "record": record}
    try:
        run = _run(body, arrays, given)
    except IncompatibleError as error:
        raise IncompatibleError(f"{path}: {error}") from None
    except InvalidProblemError as error:
        raise StorageError(
            f"{path} describes a run that is not allowed: {error} Next: {TRAJECTORY.remedy}."
        ) from None
    try:
        return _trajectory(run, body, arrays)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"{path} does not fit together: {_sentence(error)}; next: {TRAJECTORY.remedy}."
        ) from error


def _run(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> Run:
    content = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("content.")}
    return run_from_table(body.get("run"), content, given)


def _trajectory(run: Run, body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Trajectory:
    _check_shapes(run, arrays)
    step = whole("status.step", body["status"]["step"], int(arrays["steps"][-1]), run.steps or 0)
    if whole("end.step", body["end"]["step"], 0) != step:
        raise ValueError(f"end.step is {body['end']['step']} instead of {step}, the step of the status")
    status = Status(str(body["status"]["name"]), step, str(body["status"]["reason"]))
    if status.name not in _STATUSES:
        raise ValueError(f"the status is {status.name!r} instead of {', '.join(_STATUSES)}")
    _check_notes(body)
    return Trajectory(
        run=run,
        **{name: arrays[name] for name in _RECORDS},
        status=status,
        stats=dict(body["stats"]),
        provenance=dict(body["provenance"]),
        end=End(step, **{name: arrays[f"end.{name}"] for name in _END}),
    )


def _check_notes(body: Mapping[str, Any]) -> None:
    """What `resume` adds to and `ufm rerun` compares: numbers in the stats, versions in the provenance."""
    provenance = body["provenance"]
    software = provenance.get("software", {}) if isinstance(provenance, dict) else provenance
    for name, value in (("stats", body["stats"]), ("provenance.software", software)):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r} instead of a table")
    for name, value in body["stats"].items():
        if not isinstance(value, int | float):
            raise ValueError(f"stats.{name} is {value!r} instead of a number")
    if not all(isinstance(version, str | None) for version in software.values()):
        raise ValueError(f"provenance.software is {software!r} instead of versions by name")


def _check_shapes(run: Run, arrays: Mapping[str, np.ndarray]) -> None:
    problem = run.problem
    records = arrays["steps"].size
    total = sum(int(np.prod(shape)) for shape in problem.shapes.values())
    trained = (problem.size,)
    allowed = {
        "steps": ((records,),),
        "states": ((records, problem.size),),
        "fit": ((records,),),
        "penalty": ((records,),),
        "end.theta": ((total,),),
        "end.m": (trained,),
        "end.v": (trained,),
        "end.unit": (trained, (0,)),
    }
    for name, shapes in allowed.items():
        if arrays[name].shape not in shapes:
            raise ValueError(f"{name} has shape {arrays[name].shape} instead of {shapes[0]}")
    steps = arrays["steps"]
    if records == 0 or steps.dtype != np.int64 or steps[0] < 0 or (np.diff(steps) <= 0).any():
        raise ValueError("the steps are not whole numbers in increasing order")
    doubles = dict.fromkeys(("fit", "penalty", "end.unit"), "float64")
    held = dict.fromkeys(("states", "end.theta", "end.m", "end.v"), run.dtype)
    for name, dtype in (doubles | held).items():
        if arrays[name].dtype != np.dtype(dtype):
            raise ValueError(f"{name} has dtype {arrays[name].dtype} instead of {dtype}")


def read_archive(path: Path, kind: Archive) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    """Body and arrays of a file that `write_archive` wrote, verified.

    Raises
    ------
    StorageError
        If the file is missing, damaged, not of this kind or of a newer schema.
    """
    with _opened(path, kind) as archive:
        header = _header(path, archive, kind)
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise ValueError("a member is there twice")
        arrays = {name: _member(archive, name) for name in names if name != "header"}
        return _verified(path, header, arrays, kind), arrays


def read_member(path: Path, kind: Archive, name: str) -> np.ndarray:
    """One array of a file that was verified before; only the zip's own checksum of it is looked at.

    Raises
    ------
    StorageError
        If the file or the array in it is missing or damaged.
    """
    with _opened(path, kind) as archive:
        return _member(archive, name)


@contextmanager
def _opened(path: Path, kind: Archive) -> Iterator[zipfile.ZipFile]:
    """Open a file; whatever reading it raises is answered with one sentence."""
    allowed = f"a file written by {kind.writer}"
    regular_file(path, allowed)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}); allowed: {allowed}."
        ) from None
    except _DAMAGE as error:
        text = f"{path} is damaged or not a file of this package ({_sentence(error)}); next: {kind.remedy}."
        raise StorageError(text) from error


def _header(path: Path, archive: zipfile.ZipFile, kind: Archive = TRAJECTORY) -> dict[str, Any]:
    """The header, if this program can read the rest."""
    foreign = f"{path} was not written by {kind.writer}; allowed: a file that was."
    if "header.npy" not in archive.namelist():
        raise StorageError(foreign)
    header = json.loads(str(_member(archive, "header")))
    if not isinstance(header, dict) or header.get("format") != kind.format:
        raise StorageError(foreign)
    schema = header.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"its schema is {schema!r}")
    if schema > kind.schema:
        raise StorageError(
            f"{path} has schema {schema}; allowed: up to {kind.schema} in this version; next: install a newer ufm."
        )
    return header


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array, once its declared size is known to be that of its bytes: nothing is made from a shape alone."""
    member = archive.getinfo(f"{name}.npy")
    assert archive.fp is not None  # it is open
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > os.fstat(archive.fp.fileno()).st_size:
        raise ValueError(f"{name} is compressed or longer than the file")
    with archive.open(member) as stream:
        head = stream.read(_PREFIX.size)
        magic, length = _PREFIX.unpack(head)
        text = stream.read(length).decode("latin1")
    found = _DESCRIPTION.fullmatch(text)
    if magic != _MAGIC or found is None:
        raise ValueError(f"{name} is not an array of plain numbers or text")
    shape = [int(size) for size in found["shape"].replace(",", " ").split()]
    if len(head) + length + np.dtype(found["descr"]).itemsize * math.prod(shape) != member.file_size:
        raise ValueError(f"{name} has another size than its shape {tuple(shape)}")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _verified(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], kind: Archive
) -> Mapping[str, Any]:
    """The header's body, if it is there and the checksum over it and the arrays is right."""
    body = header.get("body")
    if not isinstance(body, dict):
        raise StorageError(f"{path} does not hold the arrays with their description; next: {kind.remedy}.")
    if any(array.dtype.kind not in "iuf" for array in arrays.values()):
        raise StorageError(f"{path} holds arrays that are not real numbers; next: {kind.remedy}.")
    if header.get("checksum") != _checksum(body, arrays):
        raise StorageError(
            f"{path} was changed after it was written (its checksum differs); next: {kind.remedy}."
        )
    return body


def _sentence(error: BaseException) -> str:
    """The first line of an error without its full stop, or its class."""
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
