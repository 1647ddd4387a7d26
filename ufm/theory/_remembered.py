"""Results for the last few sets of arguments: runs of a sweep that differ in seed or start ask for the same laws."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numpy as np

MOST = 16  # sets of arguments of one function, some 100 KB each at 10^4 steps

_Result = TypeVar("_Result")


class _Array:
    """An array as part of a key: equal to those of the same bytes."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.key = array.dtype.str, array.shape, array.tobytes()
        self.hash = hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Array) and self.key == other.key

    def __hash__(self) -> int:
        return self.hash


def remembered(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """The same pure function of arrays, numbers and functions; nobody may write into what it returns.

    Examples
    --------
    >>> double = remembered(lambda x: 2 * x)
    >>> double(np.arange(3)) is double(np.arange(3)), double(np.arange(3)) is double(np.arange(3.0))
    (True, False)
    """

    @lru_cache(maxsize=MOST, typed=True)
    def by_key(*arguments: Any) -> Any:
        return function(*[a.array if isinstance(a, _Array) else a for a in arguments])

    @wraps(function)
    def of(*arguments: Any) -> _Result:
        found: _Result = by_key(*[_Array(a) if isinstance(a, np.ndarray) else a for a in arguments])
        return found

    return of
