"""Powers and products of 2 x 2 matrices: against exact fractions, entry by entry, and what is refused."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from ufm.errors import InvalidProblemError
from ufm.theory import _evaluator
from ufm.theory._double_double import DoubleDouble
from ufm.theory.row_sum import recursion_entries

EPS = 2.0**-100  # a few operations on double-doubles


def exact(value):
    """A double-double, or a float, as a fraction."""
    if isinstance(value, DoubleDouble):
        return Fraction(float(value.high)) + Fraction(float(value.low))
    return Fraction(float(value))


def times(A, B):
    return [[sum(A[i][k] * B[k][j] for k in range(2)) for j in range(2)] for i in range(2)]


def product(matrices):
    """Later ones on the left."""
    found = [[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]]
    for M in matrices:
        found = times(M, found)
    return found


def entries_of(M, index=()):
    return [[exact(M[(i, j, *index)]) for j in range(2)] for i in range(2)]


def close(found, expected, scale=None):
    """Whether all entries agree to a few roundings of the largest."""
    largest = scale or max(abs(x) for row in expected for x in row)
    apart = (
        abs(a - b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    return max(apart) <= EPS * 64 * largest


def doubles(rng, *shape):
    high = rng.standard_normal((2, 2, *shape))
    return DoubleDouble(high, high * 2.0**-60 * rng.uniform(-1, 1, high.shape))


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("value", ["a", [None], np.nan, np.inf, -1e-300, [0.0, -1.0], 1.01e100])
def test_numbers_that_are_refused(value):
    with pytest.raises(InvalidProblemError, match=r"here is .*; allowed: finite numbers in \[0, 1e\+100\]"):
        _evaluator.nonnegative("here", value)


def test_numbers_that_are_allowed():
    assert _evaluator.nonnegative("here", [0, 1e100]).tolist() == [0.0, 1e100]
    assert _evaluator.nonnegative("here", 1e300, np.inf).dtype == np.float64
    with pytest.raises(InvalidProblemError, match="allowed: finite numbers >= 0"):
        _evaluator.nonnegative("here", np.inf, np.inf)
    assert _evaluator.momentum_of("beta", [0.0, 1 - 2.0**-53]).tolist() == [0.0, 1 - 2.0**-53]
    for beta in (1.0, 1.5, [0.5, 1.0]):
        with pytest.raises(InvalidProblemError, match=r"allowed: numbers in \[0, 1\)"):
            _evaluator.momentum_of("beta", beta)


def test_steps_are_whole_numbers():
    found = _evaluator.steps_of("t", [0, 1, 2.0**53])
    assert (found.dtype, found.tolist()) == (np.int64, [0, 1, 2**53])
    for t in (-1, 0.5, 2.0**53 + 2, np.nan, np.inf, "a", [0, 0.5]):
        with pytest.raises(InvalidProblemError, match=r"t is .*; allowed: whole numbers in \[0, 2\^53\]"):
            _evaluator.steps_of("t", t)


def test_schedules_are_long_enough():
    assert _evaluator.rates_of([0.1, 0.2], 2).tolist() == [0.1, 0.2]
    with pytest.raises(InvalidProblemError, match=r"is 2; allowed: at least the largest t, 3"):
        _evaluator.rates_of([0.1, 0.2], 3)
    for wrong in (0.1, [[0.1, 0.2]]):
        with pytest.raises(InvalidProblemError, match="one rate per step"):
            _evaluator.rates_of(wrong, 0)
    with pytest.raises(
        InvalidProblemError, match=r"growth\.lr is None; allowed: a learning rate, or a schedule"
    ):
        _evaluator.evaluate(recursion_entries, 1, None, 0.0, 0.0, 0.0, False, None)


def test_numbers_beyond_float64():
    found = _evaluator.scaled(np.array([0.5, 0.5, -0.5, 0.75]), np.array([1, 2000, 10**9, -(10**9)]))
    assert found.tolist() == [1.0, np.inf, -np.inf, 0.0]
    assert _evaluator.scaled(np.array([1.0]), np.array([-5000]))[0] == 0.0
    assert _evaluator.scaled(np.array(2.0**-60), np.array(1070)) == 2.0**1010


# ------------------------------------------------------------------------------------- matrices, exactly


def test_a_product_and_its_exponent(rng):
    A, B = doubles(rng, 3), doubles(rng, 3)
    found = _evaluator._multiply(A, B)
    moved, exponent = _evaluator._normalised(found, np.array([0, 5, -7]))
    for n in range(3):
        expected = times(entries_of(A, (n,)), entries_of(B, (n,)))
        assert close(entries_of(found, (n,)), expected)
        shifted = [
            [x * Fraction(2) ** int(exponent[n] - (0, 5, -7)[n]) for x in row]
            for row in entries_of(moved, (n,))
        ]
        assert shifted == entries_of(found, (n,))
        assert 0.5 <= np.abs(moved.high[..., n]).max() < 1


def test_identity_is_one_on_the_diagonal():
    found = _evaluator._identity((2, 3))
    assert found.high.shape == found.low.shape == (2, 2, 2, 3)
    assert not found.low.any()
    assert np.array_equal(found.high, np.broadcast_to(np.eye(2)[..., None, None], (2, 2, 2, 3)))


def test_powers_of_some_of_the_matrices(rng):
    base, which, count = doubles(rng, 3), np.array([2, 0, 1, 2, 0]), np.array([0, 1, 2, 13, 64])
    given = count.copy()
    found, exponent = _evaluator._power(base, which, count)
    assert np.array_equal(count, given)
    for n in range(5):
        expected = product([entries_of(base, (which[n],))] * int(count[n]))
        got = [[x * Fraction(2) ** int(exponent[n]) for x in row] for row in entries_of(found, (n,))]
        assert close(got, expected), n


@pytest.mark.parametrize("count", [1, 2, 4, 7, 10])
def test_products_of_what_comes_before(rng, count):
    """Every index of every owner, whatever the blocks that the products are cut into."""
    pieces, exponents = doubles(rng, 2, count), rng.integers(-3, 4, (2, count))
    owner, index = (each.ravel() for each in np.meshgrid([0, 1], np.arange(count)))
    found, e = _evaluator._products_before(pieces, exponents, owner, index)
    for n, (o, i) in enumerate(zip(owner, index, strict=True)):
        factors = [
            [[x * Fraction(2) ** int(exponents[o, j]) for x in row] for row in entries_of(pieces, (o, j))]
            for j in range(i)
        ]
        got = [[x * Fraction(2) ** int(e[n]) for x in row] for row in entries_of(found, (n,))]
        assert close(got, product(factors)), (o, i)


# ------------------------------------------------------------------------------------------ the recursion


def one_step(lr, beta, coupled, decoupled, nesterov):
    """The matrix of (m, q), exactly; without coupled decay q stays 0."""
    numbers = [Fraction(float(x)) for x in (lr, beta if coupled else 0.0, coupled, decoupled)]
    (a, b), (c, d) = recursion_entries(*numbers, nesterov)
    return [[a, b], [c, d]]


def value(found, index=()):
    mantissa, exponent = found
    return exact(mantissa[index]) * Fraction(2) ** int(exponent[index])


@pytest.mark.parametrize("nesterov", [False, True])
def test_growth_of_many_parameters_at_once(nesterov):
    """All shapes are broadcast: t along rows, rates along columns."""
    t, lr = np.array([[0], [1], [6]]), np.array([0.3, 2.0, 1e-3])
    beta, coupled, decoupled = np.array([0.9, 0.0, 0.5]), np.array([0.4, 0.2, 0.0]), np.array([0.0, 0.1, 0.7])
    found = _evaluator.evaluate(recursion_entries, t, lr, beta, coupled, decoupled, nesterov, None)
    assert found[0].high.shape == found[1].shape == (3, 3)
    for i, steps in enumerate(t[:, 0]):
        for j in range(3):
            matrix = one_step(lr[j], beta[j], coupled[j], decoupled[j], nesterov)
            expected = product([matrix] * int(steps))[0][0]
            assert abs(value(found, (i, j)) - expected) <= EPS * 64 * max(1, abs(expected))


def test_growth_along_a_schedule():
    """Every t, pieces of several lengths, a rate of 0 in between, for two parameter sets."""
    schedule = np.array([0.5] * 3 + [0.25] + [0.0] * 2 + [0.5] * 4 + [2.0, 1.0])
    t, beta, coupled = np.arange(13)[:, None], np.array([0.5, 0.9]), np.array([0.3, 0.6])
    found = _evaluator.evaluate(recursion_entries, t, None, beta, coupled, 0.125, False, schedule)
    for j in range(2):
        matrices = [one_step(lr, beta[j], coupled[j], 0.125, False) for lr in schedule]
        for steps in range(13):
            expected = product(matrices[:steps])[0][0]
            assert abs(value(found, (steps, j)) - expected) <= EPS * 640


def test_growth_along_a_schedule_that_is_not_reached():
    assert value(_evaluator.evaluate(recursion_entries, 0, None, 0.0, 0.5, 0.0, False, [1.0])) == 1
    assert value(_evaluator.evaluate(recursion_entries, 0, None, 0.0, 0.5, 0.0, False, [])) == 1
    early = _evaluator.evaluate(recursion_entries, 1, None, 0.0, 0.5, 0.0, False, [0.5, 1e99])
    assert value(early) == Fraction(3, 4)


@pytest.mark.parametrize("schedule", [None, [0.5, 0.25, 0.5]])
def test_more_parameters_than_are_evaluated_at_once(schedule):
    """Sets beyond one pass, in an order that is not that of the passes, several steps each."""
    coupled = np.linspace(0.0, 1.0, 4099)[::-1]
    t = np.array([[2], [3]])
    high = _evaluator.evaluate(
        recursion_entries, t, None if schedule else 0.5, 0.0, coupled, 0.0, False, schedule
    )
    rates = schedule or [0.5] * 3
    for i, steps in enumerate((2, 3)):
        expected = np.prod([1 - rate * coupled for rate in rates[:steps]], axis=0)
        np.testing.assert_allclose(np.ldexp(high[0].high[i], high[1][i]), expected, rtol=1e-14)


# ------------------------------------------------------------------------------------ sums along the steps


def sums(matrices, vectors, t):
    """The three sums for one t, by the definition."""
    phi, carried, injected = np.eye(2), [1.0], []
    for s in reversed(range(t)):
        injected.append((phi @ vectors[s])[0])
        phi = phi @ matrices[s]
        carried.append(phi[0, 0])
    return [np.abs(carried).sum(), np.abs(injected).sum(), np.square(injected).sum()]


@pytest.mark.parametrize("longest", [0, 1, 2, 3, 8, 9, 10])
def test_sums_at_one_matrix(rng, longest):
    M, inject = rng.uniform(-1, 1, (2, 2)), rng.standard_normal(2)
    found = _evaluator.sums_of_powers(M, inject, longest)
    assert found.shape == (3, longest + 1)
    expected = [sums([M] * t, [inject] * t, t) for t in range(longest + 1)]
    np.testing.assert_allclose(found.T, expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9, 11])
def test_sums_where_every_step_has_its_own_matrix(rng, steps):
    """Records in any order, some of them twice."""
    M, inject = rng.uniform(-1, 1, (steps, 2, 2)), rng.standard_normal((steps, 2))
    t = np.concatenate([np.arange(steps + 1)[::-1], [steps // 2]])
    found = _evaluator.sums_of_products(M, inject, t)
    np.testing.assert_allclose(found.T, [sums(M, inject, when) for when in t], rtol=1e-12)


def test_both_sums_agree():
    M, inject = np.array([[0.9, -0.3], [0.2, 0.5]]), np.array([-0.1, 1.0])
    one = _evaluator.sums_of_powers(M, inject, 20)
    other = _evaluator.sums_of_products(np.tile(M, (20, 1, 1)), np.tile(inject, (20, 1)), np.arange(21))
    np.testing.assert_allclose(one, other, rtol=1e-12)
    assert all((later >= before).all() for before, later in pairwise(one.T))
