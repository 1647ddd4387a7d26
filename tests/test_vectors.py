"""Vectors in kernels: the same numbers as numpy, masks that keep to their entries, floats and vectors alike."""

import operator

import numba
import numpy as np
import pytest

from ufm.kernels import vectors
from ufm.kernels.vectors import (
    SHIFTED,
    WIDTH,
    anywhere,
    below,
    equal,
    first,
    load,
    multiply_add,
    power_of_two,
    store,
    where,
    zeros,
)

STRANGE = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 5e-324])


@numba.njit
def copy(x, out, offset, count):
    store(out, offset, first(count), load(x, offset, first(count)))


@numba.njit
def loaded(x, out, offset, count):
    store(out, 0, first(WIDTH), load(x, offset, first(count)))


@numba.njit(error_model="numpy")
def arithmetic(x, y, out):
    m = first(WIDTH)
    a, b = load(x, 0, m), load(y, 0, m)
    store(out, 0, m, a + b)
    store(out, 8, m, a - b)
    store(out, 16, m, a * b)
    store(out, 24, m, a / b)
    store(out, 32, m, 2.0 - a)
    store(out, 40, m, a / 3.0)
    store(out, 48, m, where(below(a, b), a, b))
    store(out, 56, m, where(below(a, 1.0), -1.0, b))
    store(out, 64, m, multiply_add(a, b, zeros()))
    store(out, 72, m, zeros())
    store(out, 80, m, where(equal(a, b), 1.0, 0.0))


@numba.njit
def formula(x):
    """One text for floats and vectors."""
    low = where(below(x, -3.0), -3.0, x)
    shifted = multiply_add(low, 2.0, SHIFTED)
    return power_of_two(shifted) * multiply_add(low, low, 0.5) - low / 7.0


@numba.njit
def along(x, out):
    for i in range(0, x.size, WIDTH):
        m = first(x.size - i)
        store(out, i, m, formula(load(x, i, m)))


@numba.njit
def one_by_one(x, out):
    for i in range(x.size):
        out[i] = formula(x[i])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("count", [-1, 0, 1, 5, WIDTH - 1, WIDTH, WIDTH + 3])
@pytest.mark.parametrize("shape", [(20,), (2, 10)])
def test_masks_keep_to_their_entries(rng, dtype, count, shape):
    x = rng.standard_normal(shape).astype(dtype)
    kept = slice(3, 3 + min(max(count, 0), WIDTH))
    out, expected = np.full(shape, 7.0, dtype), np.full(20, 7.0, dtype)
    copy(x, out, 3, count)
    expected[kept] = x.ravel()[kept]
    assert np.array_equal(out.ravel(), expected)
    found = np.full(WIDTH, 7.0)
    loaded(x, found, 3, count)
    assert np.array_equal(found[: max(count, 0)], x.ravel()[kept])
    assert not found[max(count, 0) :].any()


@numba.njit
def stored_where_equal(x, out, offset, number):
    a = load(x, 0, first(WIDTH))
    store(out, offset, equal(a, number), 2.0 * a)
    return anywhere(equal(a, number))


def test_a_mask_with_holes_keeps_to_its_entries():
    x = np.array([0.0, 1.0, 1.0, 3.0, 1.0, np.nan, 0.0, 1.0])
    for number in (1.0, 0.0, 5.0):
        out, expected = np.full(12, 7.0), np.full(12, 7.0)
        expected[2:10][x == number] = 2.0 * number
        assert stored_where_equal(x, out, 2, number) == (number != 5.0)
        assert np.array_equal(out, expected)


def test_arithmetic_is_numpys(rng):
    with np.errstate(all="ignore"):
        for x in (rng.standard_normal(WIDTH), STRANGE):
            for y in (x, rng.standard_normal(WIDTH), STRANGE[::-1].copy()):
                out = np.full(88, 7.0)
                arithmetic(x, y, out)
                expected = [
                    x + y, x - y, x * y, x / y, 2.0 - x, x / 3.0,
                    np.where(x < y, x, y), np.where(x < 1.0, -1.0, y), x * y + 0.0, np.zeros(WIDTH),
                    1.0 * (x == y),
                ]  # fmt: skip
                assert np.array_equal(out, np.concatenate(expected), equal_nan=True)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 40])
def test_a_formula_has_the_same_bits_for_floats_and_vectors(rng, size):
    x = 5.0 * rng.standard_normal(size)
    vector, single = np.zeros(size), np.zeros(size)
    along(x, vector)
    one_by_one(x, single)
    assert np.array_equal(vector, single)


def test_powers_of_two_are_exact():
    @numba.njit
    def powers(x, out):
        m = first(WIDTH)
        store(out, 0, m, power_of_two(load(x, 0, m) + SHIFTED))

    for exponents in (np.arange(-1022, -1014), np.arange(-4, 4), np.arange(1016, 1024)):
        out = np.zeros(WIDTH)
        powers(exponents.astype(float), out)
        assert np.array_equal(out, np.ldexp(1.0, exponents))
        assert np.array_equal(
            vectors._interpreted_power_of_two(exponents + SHIFTED), np.ldexp(1.0, exponents)
        )


INTERPRETED = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_vectors as kernels
x = 5.0 * np.random.default_rng(3).standard_normal(21)
out = np.full(24, 7.0)
kernels.along(x, out[:21])
print(*map(float.hex, out))
"""


def test_without_compiler_within_round_off(python):
    from pathlib import Path

    x = 5.0 * np.random.default_rng(3).standard_normal(21)
    found = python(INTERPRETED, env={"NUMBA_DISABLE_JIT": "1"}, arguments=[str(Path(__file__).parent)])
    found = np.array([float.fromhex(word) for word in found.split()])
    compiled = np.full(24, 7.0)
    along(x, compiled[:21])
    low = np.maximum(x, -3.0)
    # three roundings of the first term and two of the second, where the fused form has fewer
    terms = np.ldexp(1.0, np.rint(2.0 * low).astype(int)) * (low**2 + 0.5) + np.abs(low) / 7.0
    assert np.all(np.abs(found[:21] - compiled[:21]) <= 4 * 2.0**-53 * terms)
    assert np.all(found[21:] == 7.0)


@pytest.mark.parametrize("function", [operator.add, operator.mul])
def test_masks_are_no_numbers(function):
    @numba.njit
    def wrong(x):
        return function(first(3), load(x, 0, first(3)))

    with pytest.raises(numba.TypingError):
        wrong(np.zeros(8))


def test_strided_arrays_are_refused():
    @numba.njit
    def wrong(x, out):
        store(out, 0, first(3), load(x, 0, first(3)))

    with pytest.raises(numba.TypingError, match="contiguous"):
        wrong(np.zeros(40)[::2], np.zeros(8))
