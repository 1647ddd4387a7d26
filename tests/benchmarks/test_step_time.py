"""Time of a step against the arithmetic it cannot do without, in one process. Run with --benchmark-only."""

import math

import numba
import numpy as np
import pytest

import ufm

STEPS = 200_000
RULES = {
    "gd": ufm.GD(0.1),
    "momentum": ufm.Momentum(0.1, 0.9),
    "adam": ufm.Adam(1e-3),
    "signgd": ufm.SignGD(1e-4),
}


@numba.njit(error_model="numpy")
def floor(A, B, C, x, repeats):
    """Three products of 10 x 10 matrices and 100 exponentials, `repeats` times."""
    for _ in range(repeats):
        np.dot(A, B, C)
        np.dot(B, C, A)
        np.dot(C, A, B)
        for j in range(x.size):
            x[j] = math.exp(-abs(x[j]))
        A[0, 0], B[0, 0] = 1.0, 1.0
    return x[0]


def matrices():
    rng = np.random.default_rng(0)
    Q = [np.linalg.qr(rng.standard_normal((10, 10)))[0] for _ in range(3)]
    return (*Q, rng.standard_normal(100))


def run(rule, problem, steps=STEPS):
    return ufm.simulate(problem, rule, ufm.Coupled(1e-3), steps=steps, record=ufm.Every(steps))


@pytest.mark.benchmark(group="10 x 10")
def test_floor(benchmark):
    """What the rows below are to be divided by."""
    arguments = matrices()
    floor(*arguments, 10)
    benchmark.extra_info["steps"] = STEPS
    benchmark(floor, *arguments, STEPS)


@pytest.mark.benchmark(group="10 x 10")
@pytest.mark.parametrize("rule", RULES)
def test_step(benchmark, rule):
    """K = d = 10, one sample per class, cross-entropy."""
    problem = ufm.UFM(10, 10)
    run(RULES[rule], problem, 100)
    benchmark.extra_info["steps"] = STEPS
    benchmark(run, RULES[rule], problem)


@pytest.mark.benchmark(group="call")
def test_call_of_no_steps(benchmark):
    """What a call costs besides its steps."""
    problem = ufm.UFM(10, 10)
    benchmark(run, ufm.GD(0.1), problem, 1)
