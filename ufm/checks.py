"""Checks of single field values; each answers a bad one with the sentence of `errors.invalid`."""

from __future__ import annotations

import math
import operator
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ufm.errors import StorageError, invalid


def whole(where: str, value: Any, least: int = 1, most: int = 2**62) -> int:
    """Return `value` as an int in [least, most], or raise InvalidProblemError."""
    allowed = f"a whole number >= {least}"
    if isinstance(value, bool | np.bool_):
        raise invalid(where, value, allowed)
    try:
        number = operator.index(value)
    except TypeError:
        raise invalid(where, value, allowed) from None
    if number < least:
        raise invalid(where, value, allowed)
    if number > most:
        raise invalid(where, value, f"{allowed} and <= {most}")
    return number


def one_or_several(where: str, value: Any, count: int, name: str) -> int | tuple[int, ...]:
    """Return a whole number >= 1, or `count` of them as a tuple, or raise InvalidProblemError."""
    listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    if not listed or getattr(value, "ndim", 1) == 0:
        return whole(where, value)
    numbers = tuple(whole(where, number) for number in value)
    if len(numbers) != count:
        raise invalid(where, numbers, f"one {name}, or {count} {name}s")
    return numbers


def real(
    where: str,
    value: Any,
    least: float = -math.inf,
    below: float = math.inf,
    allowed: str | None = None,
) -> float:
    """Return `value` as a finite float in [least, below), or raise InvalidProblemError."""
    if allowed is None:
        allowed = "a finite number"
        if least > -math.inf:
            allowed += f" >= {least:g}"
        if below < math.inf:
            allowed += f" and < {below:g}"
    if isinstance(value, bool | np.bool_ | str | bytes | complex | np.complexfloating):
        raise invalid(where, value, allowed)
    if isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "iuf"):
        raise invalid(where, value, allowed)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(where, value, allowed) from None
    if not math.isfinite(number) or number < least or number >= below:
        raise invalid(where, value, allowed)
    return number


def choice(where: str, value: Any, options: tuple[str, ...]) -> str:
    """Return `value` if it is one of `options`, or raise InvalidProblemError."""
    if not isinstance(value, str) or value not in options:
        raise invalid(where, value, " or ".join(repr(option) for option in options))
    return value


def flag(where: str, value: Any) -> bool:
    """Return `value` as a bool, or raise InvalidProblemError."""
    if not isinstance(value, bool | np.bool_):
        raise invalid(where, value, "True or False")
    return bool(value)


def path_of(where: str, value: Any) -> Path:
    """Return `value` as a Path that the system can be asked for, or raise one sentence."""
    allowed = "the name of a file, as a text or a Path"
    try:
        path = Path(value)
    except TypeError:
        raise invalid(where, value, allowed) from None
    try:
        if b"\0" not in os.fsencode(path):
            return path
    except UnicodeEncodeError:
        pass
    raise StorageError(f"{str(path)!r} cannot be read or written; allowed: {allowed} without NUL characters.")


def regular_file(path: Path, allowed: str) -> None:
    """Raise StorageError unless `path` is a file; a pipe or device could keep a reader waiting for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist; allowed: {allowed}.") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); allowed: {allowed}.") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise StorageError(f"{path} is {kind}; allowed: {allowed}.")


def finite_array(where: str, value: Any, ndim: int | None = None) -> np.ndarray:
    """Return `value` as a finite C-ordered float64 array, or raise InvalidProblemError."""
    allowed = f"a finite real array{'' if ndim is None else f' with {ndim} axes'}"
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise invalid(where, value, allowed)
        array = np.array(array, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise invalid(where, value, allowed) from None
    if ndim is not None and array.ndim != ndim:
        raise invalid(where, f"an array of shape {array.shape}", allowed)
    if not np.isfinite(array).all():
        raise invalid(where, "an array with entries that are not finite", allowed)
    return array
