"""Double-double numbers: pairs of float64 that carry 106 bits, elementwise over numpy arrays.

Used where a float64 closed form would lose digits (powers of a matrix close to the identity, zero
crossings) and multiple-precision libraries would be too slow. Sums and products are Dekker's and
Knuth's error-free transformations; the relative error of one operation is below 2**-102.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SPLITTER = 134217729.0  # 2**27 + 1: cuts a float64 into two halves of 26 bits


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and its exact rounding error: ``a + b = s + e``."""
    s = a + b
    c = s - a
    return s, (a - (s - c)) + (b - c)


def two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Product and its exact rounding error for factors below 2**996: ``a b = p + e``."""
    p = a * b
    c = SPLITTER * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = SPLITTER * b
    b_high = c - (c - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@dataclass(frozen=True, eq=False)
class DoubleDouble:
    """An unevaluated sum ``high + low`` of two float64 arrays of one shape.

    Parameters
    ----------
    high, low : ndarray, shape (...)
        Leading part, and what it misses (at most half a unit in its last place).
    """

    high: np.ndarray
    low: np.ndarray

    __array_ufunc__ = None  # numpy scalars and arrays leave mixed operations to this class

    @staticmethod
    def of(value: Any) -> DoubleDouble:
        """Exact image of a float64 array or a number."""
        if isinstance(value, DoubleDouble):
            return value
        high = np.asarray(value, dtype=np.float64)
        return DoubleDouble(high, np.zeros_like(high))

    def __add__(self, other: Any) -> DoubleDouble:
        other = DoubleDouble.of(other)
        s, e = two_sum(self.high, other.high)
        t, f = two_sum(self.low, other.low)
        s, e = _renormalise(s, e + t)
        return DoubleDouble(*_renormalise(s, e + f))

    def __mul__(self, other: Any) -> DoubleDouble:
        other = DoubleDouble.of(other)
        p, e = two_product(self.high, other.high)
        return DoubleDouble(*_renormalise(p, e + (self.high * other.low + self.low * other.high)))

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.high, -self.low)

    def __sub__(self, other: Any) -> DoubleDouble:
        return self + (-DoubleDouble.of(other))

    def __rsub__(self, other: Any) -> DoubleDouble:
        difference: DoubleDouble = (-self) + other
        return difference

    __radd__ = __add__
    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> DoubleDouble:
        return DoubleDouble(self.high[index], self.low[index])

    def scaled(self, exponent: np.ndarray) -> DoubleDouble:
        """Multiply by ``2**exponent``, exactly."""
        return DoubleDouble(np.ldexp(self.high, exponent), np.ldexp(self.low, exponent))


def _renormalise(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Restore ``|low| <= ulp(high)/2`` when ``|high| >= |low|``."""
    s = high + low
    return s, low - (s - high)
