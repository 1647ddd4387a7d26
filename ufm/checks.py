"""Checks of single field values; each answers a bad one with the sentence of `errors.invalid`."""

from __future__ import annotations

import math
import operator
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ufm.errors import InvalidProblemError, StorageError, invalid

try:
    import resource
except ImportError:  # not on Unix
    resource = None  # type: ignore[assignment]


def whole(where: str, value: Any, least: int = 1, most: int = 2**62) -> int:
    """Return `value` as an int in [least, most], or raise InvalidProblemError."""
    allowed = f"a whole number >= {least}"
    if isinstance(value, bool | np.bool_):
        raise invalid(where, value, allowed)
    try:
        number = operator.index(value)
    except MemoryError:
        raise
    except Exception:  # an object may answer with any error of its own
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
    if isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "iuf" or _is_masked(value)):
        raise invalid(where, value, allowed)
    try:
        number = float(value)
    except MemoryError:
        raise
    except Exception:  # an object may answer with any error of its own
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


def array_of(where: str, value: Any, kinds: str, allowed: str) -> np.ndarray:
    """Return `value` as an array of one of these kinds of dtype, or raise InvalidProblemError.

    A masked array is refused: what lies under its mask would be read as numbers.
    """
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception:  # ragged lists, or an object that answers with an error of its own
        raise invalid(where, value, allowed) from None
    if _is_masked(value):
        raise invalid(where, "an array with a mask", allowed)
    if array.dtype.kind not in kinds:
        raise invalid(where, value, allowed)
    return array


def _is_masked(value: Any) -> bool:
    return isinstance(value, np.ma.MaskedArray)


def finite_array(where: str, value: Any, ndim: int | None = None) -> np.ndarray:
    """Return `value` as a finite C-ordered float64 array, or raise InvalidProblemError."""
    allowed = f"a finite real array{'' if ndim is None else f' with {ndim} axes'}"
    array = array_of(where, value, "iuf", allowed)
    with np.errstate(over="ignore"):  # of a wider format, checked below
        array = np.array(array, dtype=np.float64, order="C")
    if ndim is not None and array.ndim != ndim:
        raise invalid(where, f"an array of shape {array.shape}", allowed)
    if not np.isfinite(array).all():
        raise invalid(where, "an array with entries that are not finite", allowed)
    return array


def physical_bytes() -> int:
    """Memory that this process may use: that of the machine, of its container, or its own limit."""
    found = [2**62]
    with suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int(Path(place).read_text(encoding="ascii")))
    if resource is not None:
        found.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    return min(value for value in found if value > 0)


def fits(where: str, what: str, numbers: int, allowed: str) -> None:
    """Raise InvalidProblemError for more float64 numbers than there is memory for, before it is asked for.

    A system that lends more memory than it has would end the process instead.

    Parameters
    ----------
    where, what : str
        Object and field that ask for them, and what they are.
    numbers : int
        How many.
    allowed : str
        What to do about it, as the end of the sentence.
    """
    if numbers < 2**20:  # never asked about
        return
    most = physical_bytes()
    if 8 * numbers > most:
        sizes = f"{8 * numbers / 2**30:.3g}", f"{most / 2**30:.3g}"
        raise InvalidProblemError(
            f"{where}: GiB of {what} is {sizes[0]}; allowed: at most {sizes[1]} here, with {allowed}."
        )
