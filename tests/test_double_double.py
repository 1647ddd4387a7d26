"""Double-double arithmetic against exact rationals."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ufm.theory._double_double import DoubleDouble, two_product, two_sum

numbers = st.floats(-1e30, 1e30).filter(lambda value: value == 0 or abs(value) > 1e-30)


def exact(value: DoubleDouble) -> Fraction:
    return Fraction(float(value.high)) + Fraction(float(value.low))


@given(numbers, numbers)
def test_errors_are_exact(a: float, b: float) -> None:
    for (value, error), true in (
        (two_sum(np.float64(a), np.float64(b)), Fraction(a) + Fraction(b)),
        (two_product(np.float64(a), np.float64(b)), Fraction(a) * Fraction(b)),
    ):
        assert Fraction(float(value)) + Fraction(float(error)) == true


@given(numbers, numbers, numbers, numbers)
def test_operations_keep_102_bits(a: float, b: float, c: float, d: float) -> None:
    x, y = DoubleDouble.of(a) + b * 2.0**-60, DoubleDouble.of(c) + d * 2.0**-60
    limit = Fraction(1, 2**102)
    for found, true in (
        (x + y, exact(x) + exact(y)),
        (x - y, exact(x) - exact(y)),
        (x * y, exact(x) * exact(y)),
        (1 - x, 1 - exact(x)),
    ):
        # products below 1e-290 lose their low half
        assert abs(exact(found) - true) <= limit * abs(true) + Fraction(1, 10**290)


def test_numpy_scalars_leave_mixed_operations_to_the_class() -> None:
    third = np.float64(1.0) * DoubleDouble(np.array(1 / 3), np.array(1.850371707708594e-17))
    assert isinstance(third, DoubleDouble)
    assert abs(3 * exact(third) - 1) < Fraction(1, 2**100)
    assert exact((1 - DoubleDouble.of(2.0**-100)).scaled(np.array(100))) == 2**100 - 1
