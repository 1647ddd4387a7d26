"""Checks of single field values; each answers a bad one with the sentence of `errors.invalid`."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ufm.errors import invalid


def whole(where: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int of at least `least`, or raise InvalidProblemError."""
    allowed = f"a whole number >= {least}"
    if isinstance(value, bool | np.bool_):
        raise invalid(where, value, allowed)
    try:
        number = operator.index(value)
    except TypeError:
        raise invalid(where, value, allowed) from None
    if number < least or number > 2**62:
        raise invalid(where, value, allowed)
    return number


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
    if isinstance(value, bool | np.bool_ | str | bytes | complex):
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
