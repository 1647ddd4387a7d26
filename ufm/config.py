"""The description objects as plain tables (TOML, JSON) and back.

A table names its class in ``type`` and holds the fields; nested objects are nested tables. Only the classes
listed here can be named: nothing is evaluated, imported by name or unpickled. A run in a TOML file::

    steps = 1000
    seed = 0

    [problem]
    type = "UFM"
    classes = 10
    width = 64
    per_class = 5

    [optimizer]
    type = "Signum"
    beta = 0.9

    [optimizer.lr]
    type = "StepDecay"
    lr = 0.01

    [decay]
    type = "Coupled"
    W = 5e-4

``steps``, ``[problem]`` and ``[optimizer]`` are required; ``seed``, ``batch``, ``dtype``, ``[decay]``,
``[init]`` and ``[record]`` default as in `simulate`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from ufm.arrays import Content
from ufm.checks import choice, path_of, regular_file, whole
from ufm.decay import Coupled, Decoupled, Mixed
from ufm.errors import IncompatibleError, InvalidProblemError, StorageError, UfmError, invalid
from ufm.initial import Gaussian, Given, LinearDefault, SimplexETF, Spectral, Start, Zeros
from ufm.losses import MSE, CrossEntropy
from ufm.normalisation import BatchNorm
from ufm.optimizers import GD, Adam, Momentum, NormalisedGD, SignGD, Signum
from ufm.problems import DUFM, UFM, RegressionUFM
from ufm.record import At, Every, LogSpaced
from ufm.run import Run
from ufm.schedules import Cosine, Rates, StepDecay

_INITIALISERS: tuple[type, ...] = (Zeros, Gaussian, LinearDefault, SimplexETF, Spectral, Given)

# Which classes may stand in which field; a class that is not listed cannot be written or read.
_SLOTS: dict[str, tuple[type, ...]] = {
    "problem": (UFM, DUFM, RegressionUFM),
    "optimizer": (GD, Momentum, SignGD, Signum, Adam, NormalisedGD),
    "decay": (Coupled, Decoupled, Mixed),
    "init": (*_INITIALISERS, Start),
    "record": (Every, LogSpaced, At),
    "loss": (CrossEntropy, MSE),
    "normalisation": (BatchNorm,),
    "lr": (StepDecay, Cosine, Rates),
    "coupled": (Coupled,),
    "decoupled": (Decoupled,),
    "features": _INITIALISERS,
    "classifier": _INITIALISERS,
    "default": _INITIALISERS,
}
_TYPES: dict[str, type] = {kind.__name__: kind for kinds in _SLOTS.values() for kind in kinds}
_PARTS = ("problem", "optimizer", "decay", "init", "record")
# Fields that are numbers in the simple case, so that a value other than a table is left to the class.
_NUMBER_OR_TABLE = ("lr", "coupled", "decoupled", "loss", "normalisation")
_ARRAYS = ("values", "targets")
# A key of many parts, which the parser reads in a time that grows with their square.
_DEEP_KEY = re.compile(r"(?:\.[^.=\n]{0,80}){40}")


def classes_of(field: str) -> tuple[type, ...]:
    """Return the classes that may stand in a field such as ``problem`` or ``lr``."""
    return _SLOTS[field]


def to_table(
    obj: Any, arrays: MutableMapping[str, np.ndarray] | None = None, where: str = ""
) -> dict[str, Any]:
    """Write a description object as a table of plain values.

    Parameters
    ----------
    obj : problem, loss, optimizer, schedule, decay, initialiser, record or Run
        What is written. Fields that are None are left out.
    arrays : dict, optional
        Filled with the array-valued fields by digest; the table then holds ``{"array": digest}``.
        Without it they are written as nested lists.
    where : str, optional
        Name of the object in error messages.

    Returns
    -------
    dict
        Of str, int, float, bool, lists and dicts.

    Raises
    ------
    IncompatibleError
        For an object that holds a function, or a class of the user's own.

    Examples
    --------
    >>> to_table(Momentum(0.1, 0.9))
    {'type': 'Momentum', 'lr': 0.1, 'beta': 0.9, 'nesterov': False}
    >>> to_table(Coupled(W=5e-4))
    {'type': 'Coupled', 'W': 0.0005}
    """
    if isinstance(obj, Run):
        return _run_table(obj, arrays)
    kind = type(obj)
    where = where or kind.__name__
    if _TYPES.get(kind.__name__) is not kind:
        allowed = _SLOTS.get(where.rpartition(".")[2], tuple(_TYPES.values()))
        raise IncompatibleError(
            f"{where} is {_shown(obj)}, which a file cannot hold; allowed: {_names(allowed)} "
            f"(build other runs in Python)."
        )
    return {"type": kind.__name__} | {
        key: _plain(key, value, arrays, f"{where}.{key}") for key, value in _members(obj) if value is not None
    }


def _members(obj: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of an object's table."""
    if isinstance(obj, Coupled | Decoupled):
        yield from (("rate", obj.rate), *obj.blocks)
    elif isinstance(obj, Given):
        yield from (("values", obj.values), *obj.blocks)
    elif isinstance(obj, Start):
        yield from (("default", obj.default), *obj.blocks)
    else:
        yield from ((field.name, getattr(obj, field.name)) for field in fields(obj))


def _plain(key: str, value: Any, arrays: MutableMapping[str, np.ndarray] | None, where: str) -> Any:
    if key == "type":
        raise IncompatibleError(f"{where} names a block 'type', which a file cannot hold.")
    if key == "frozen":
        return {block: _plain("features", start, arrays, f"{where}.{block}") for block, start in value}
    if isinstance(value, Content):
        return _array_entry(value, arrays)
    if key in ("features", "classifier") and not hasattr(value, "draw"):
        value = Given(value)
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, tuple | list):
        return [_plain("", item, arrays, where) for item in value]
    return to_table(value, arrays, where)


def _array_entry(content: Content, arrays: MutableMapping[str, np.ndarray] | None) -> Any:
    if arrays is not None:
        arrays[content.digest] = content.array
        return {"array": content.digest}
    if content.array.size == 0:
        # Nested lists lose the shape of an array without entries.
        return {"shape": list(content.shape)}
    return content.array.tolist()


def from_table(
    table: Any,
    where: str = "problem",
    arrays: Mapping[str, np.ndarray] | None = None,
    allowed: tuple[type, ...] | None = None,
) -> Any:
    """Build the object that a table describes.

    Parameters
    ----------
    table : mapping
        With the name of the class in ``type`` and its fields.
    where : str
        Name of the table in error messages. If its last part is a field such as ``problem`` or ``lr``, only
        classes that can stand there are allowed.
    arrays : mapping of str to ndarray, optional
        Array-valued fields by digest, as written by `to_table`.
    allowed : tuple of type, optional
        Classes that the table may name instead.

    Returns
    -------
    object
        Equal to the one that was written.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a type, key or value that is not allowed, or a key that is missing.

    Examples
    --------
    >>> from_table({"type": "UFM", "classes": 10, "width": 64, "loss": "mse"}).loss
    MSE(reduction='mean')
    >>> from_table({"type": "Decoupled", "rate": 5e-4}, "decay")
    Decoupled(0.0005)
    """
    if allowed is None:
        allowed = _SLOTS.get(where.rpartition(".")[2], tuple(_TYPES.values()))
    if not isinstance(table, Mapping):
        raise invalid(where, table, f"a table with type {_names(allowed)}")
    if "type" not in table:
        raise InvalidProblemError(f"{where}.type is missing; allowed: {_names(allowed)}.")
    name = table["type"]
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None or kind not in allowed:
        raise invalid(f"{where}.type", name, _names(allowed))
    given = {key: value for key, value in table.items() if key != "type"}
    try:
        if kind in (Coupled, Decoupled):
            return kind(**{key: _no_table(f"{where}.{key}", value) for key, value in given.items()})
        if kind is Given:
            return Given(**{key: _array(value, f"{where}.{key}", arrays) for key, value in given.items()})
        if kind is Start:
            return Start(
                **{key: _initialiser(value, f"{where}.{key}", arrays) for key, value in given.items()}
            )
        return _dataclass(kind, given, where, arrays)
    except UfmError:
        raise
    except MemoryError:
        raise InvalidProblemError(
            f"{where} needs more memory than there is; allowed: a smaller {name}."
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InvalidProblemError(
            f"{where} is not a valid {name} ({reason}); allowed: what help(ufm.{name}) says."
        ) from error


def _dataclass(
    kind: type, given: Mapping[str, Any], where: str, arrays: Mapping[str, np.ndarray] | None
) -> Any:
    names = [field.name for field in fields(kind)]
    for key, value in given.items():
        if key not in names:
            listed = ", ".join(names) or "none"
            raise invalid(f"{where}.{key}", value, f"the fields of {kind.__name__}, {listed}")
    for field in fields(kind):
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            required = f"{kind.__name__}.{field.name}, which has no default"
            raise InvalidProblemError(f"{where}.{field.name} is missing; allowed: {required}.")
    return kind(**{key: _field(key, value, f"{where}.{key}", arrays) for key, value in given.items()})


def _field(key: str, value: Any, where: str, arrays: Mapping[str, np.ndarray] | None) -> Any:
    """The value of one field from its plain form."""
    if key in _ARRAYS:
        return _array(value, where, arrays)
    if key in ("features", "classifier"):
        return _initialiser(value, where, arrays)
    if key == "frozen":
        if not isinstance(value, Mapping):
            raise invalid(where, value, "a table of initialisers by block name")
        return {block: _initialiser(start, f"{where}.{block}", arrays) for block, start in value.items()}
    if key in _NUMBER_OR_TABLE and isinstance(value, Mapping):
        return from_table(value, where, arrays, _SLOTS[key])
    return _no_table(where, value)


def _no_table(where: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        raise invalid(where, dict(value), "a plain value, not a table")
    return value


def _initialiser(value: Any, where: str, arrays: Mapping[str, np.ndarray] | None) -> Any:
    if isinstance(value, Mapping):
        return from_table(value, where, arrays, _INITIALISERS)
    return Given(Content(where, value))


def _array(value: Any, where: str, arrays: Mapping[str, np.ndarray] | None) -> Content:
    if not isinstance(value, Mapping):
        return Content(where, value)
    if set(value) == {"shape"} and isinstance(value["shape"], list):
        shape = [whole(f"{where}.shape", size, 0) for size in value["shape"]]
        if math.prod(shape) == 0:
            return Content(where, np.zeros(shape))
    digest = value.get("array")
    if set(value) != {"array"} or not isinstance(digest, str) or digest not in (arrays or {}):
        raise invalid(where, dict(value), "a nested list of numbers, or the digest of a stored array")
    content = Content(where, (arrays or {})[digest])
    if content.digest != digest:
        raise invalid(f"{where}.array", digest, f"the digest of the stored array, {content.digest}")
    return content


def _names(kinds: tuple[type, ...]) -> str:
    return " or ".join(repr(kind.__name__) for kind in kinds)


def _shown(obj: Any) -> str:
    """The repr of an object without memory addresses, which change from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(obj))


def _run_table(run: Run, arrays: MutableMapping[str, np.ndarray] | None) -> dict[str, Any]:
    table = _plain_part(run)
    for key in _PARTS:
        value = _part(run, key)
        if value is not None:
            table[key] = to_table(value, arrays, key)
    return table


def _plain_part(run: Run) -> dict[str, Any]:
    values = {"steps": run.steps, "seed": run.seed, "batch": run.batch, "dtype": run.dtype}
    return {key: value for key, value in values.items() if value is not None}


def _part(run: Run, key: str) -> Any:
    value = getattr(run, key)
    # A start given as a plain mapping of arrays means `Given` by block name.
    return Given(**value) if key == "init" and isinstance(value, Mapping) else value


def describe(
    run: Run, arrays: MutableMapping[str, np.ndarray] | None = None
) -> tuple[dict[str, Any], str | None]:
    """Table of a run that never fails, and why it cannot be repeated from the table, if so.

    A part that holds a function is replaced by its class name and repr with the mark ``rerun = false``.

    Returns
    -------
    table : dict
        As from `to_table`.
    reason : str or None
        One sentence, or None if the table describes the whole run.
    """
    table, reason = _plain_part(run), None
    for key in _PARTS:
        value = _part(run, key)
        if value is None:
            continue
        try:
            table[key] = to_table(value, arrays, key)
        except IncompatibleError as error:
            reason = str(error)
            table[key] = {"type": type(value).__name__, "repr": _shown(value), "rerun": False}
    return table, reason


def run_from_table(
    table: Any, arrays: Mapping[str, np.ndarray] | None = None, given: Mapping[str, Any] | None = None
) -> Run:
    """Build the run that a table describes.

    Parameters
    ----------
    table : mapping
        With the keys ``steps``, ``problem``, ``optimizer`` and optionally the others.
    arrays : mapping of str to ndarray, optional
        Array-valued fields by digest.
    given : mapping, optional
        Parts (``problem``, ``optimizer``, ...) that the table could not hold because of a function in them.

    Returns
    -------
    Run

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For keys or values that are not allowed, a part that is needed but not given, or given but not needed.
    """
    if not isinstance(table, Mapping):
        raise invalid("run", table, "a table with steps, problem and optimizer")
    names = ("steps", "seed", "batch", "dtype", *_PARTS)
    for key, value in table.items():
        if key not in names:
            raise invalid(key, value, f"the keys {', '.join(names)}")
    for key in ("steps", "problem", "optimizer"):
        if table.get(key) is None:
            raise InvalidProblemError(
                f"{key} is missing; allowed: a file with steps, [problem] and [optimizer]."
            )
    parts = {
        key: _run_part(key, table.get(key), arrays, (given or {}).get(key))
        for key in _PARTS
        if key != "record"
    }
    record = _run_part("record", table.get("record"), arrays, (given or {}).get("record"))
    return Run(
        **parts,
        steps=whole("steps", table["steps"], 0),
        seed=whole("seed", table.get("seed", 0), 0),
        record=Every(1) if record is None else record,
        batch=whole("batch", table["batch"]) if "batch" in table else None,
        dtype=choice("dtype", table.get("dtype", "float64"), ("float64", "float32")),
    )


def _run_part(key: str, table: Any, arrays: Mapping[str, np.ndarray] | None, given: Any) -> Any:
    if isinstance(table, Mapping) and table.get("rerun") is False:
        stored = table.get("repr")
        if given is None:
            raise IncompatibleError(
                f"{key} is {stored}, which a file cannot hold; allowed: the same object again as {key}=..."
            )
        if _shown(given) != stored:
            raise IncompatibleError(
                f"{key} is {_shown(given)}; allowed: what the file was made with, {stored}."
            )
        return given
    found = None if table is None else from_table(table, key, arrays, _SLOTS[key])
    if given is not None and given != found:
        raise IncompatibleError(
            f"{key} is {_shown(given)}; allowed: nothing, because the file holds {found!r}."
        )
    return found


def run_to_toml(run: Run) -> str:
    """Write a run as the text of a TOML file.

    Parameters
    ----------
    run : Run
        What is written.

    Returns
    -------
    str
        `run_from_toml` reads it back as an equal run.

    Raises
    ------
    IncompatibleError
        For a run that holds a function, or a class of the user's own.

    Examples
    --------
    >>> run = Run(UFM(classes=2, width=2), SignGD(0.1), steps=5)
    >>> run_to_toml(run).splitlines()[:3]
    ['steps = 5', 'seed = 0', 'dtype = "float64"']
    """
    return "\n".join(_toml_lines(to_table(run), "")).lstrip("\n") + "\n"


def _toml_lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Lines of one table: its plain values first, then its sub-tables under their own headers."""
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if prefix:
        yield f"\n[{prefix}]"
    for key, value in table.items():
        if key not in inner:
            yield f"{_toml_key(key)} = {_toml_value(value)}"
    for key, value in inner.items():
        yield from _toml_lines(value, f"{prefix}.{_toml_key(key)}" if prefix else _toml_key(key))


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(escaped)}"'
    if isinstance(value, list):
        nested = any(isinstance(item, list) for item in value)
        items = [_toml_value(item) for item in value]
        return "[\n" + "".join(f"{item},\n" for item in items) + "]" if nested else f"[{', '.join(items)}]"
    return repr(value)


def read_toml(path: str | Path, allowed: str) -> dict[str, Any]:
    """Read a TOML file, or say in one sentence why it is none.

    Parameters
    ----------
    path : str or Path
        The file.
    allowed : str
        What it should be, as the end of a sentence.
    """
    path = path_of("read_toml.path", path)
    regular_file(path, allowed)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidProblemError(
            f"{path} is not UTF-8 text (byte {error.start}); allowed: {allowed}."
        ) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); allowed: {allowed}.") from None
    if _DEEP_KEY.search(text):
        raise InvalidProblemError(f"{path} is nested too deeply; allowed: {allowed}.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidProblemError(f"{path} is not TOML ({error}); allowed: {allowed}.") from None
    except RecursionError:
        raise InvalidProblemError(f"{path} is nested too deeply; allowed: {allowed}.") from None


def run_from_toml(path: str | Path) -> Run:
    """Read a run from a TOML file.

    Parameters
    ----------
    path : str or Path
        The file; see the head of this module for its layout.

    Returns
    -------
    Run
        Not simulated yet.

    Raises
    ------
    StorageError
        If there is no such file, or it cannot be read.
    InvalidProblemError, IncompatibleError
        If it is not TOML, or a key or value in it is not allowed; the message names the field.
    """
    table = read_toml(path, "a TOML file that describes a run")
    try:
        return run_from_table(table)
    except (InvalidProblemError, IncompatibleError) as error:
        raise type(error)(f"{path}: {error}") from None
