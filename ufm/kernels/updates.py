"""Update rules: one function of numbers per optimizer, and the loop that applies it to the flat state.

`g` is the gradient with coupled decay, `t` counts from 1. The functions take vectors as well as numbers, so that one
run and the lanes of an ensemble, each with its own rates, take the same steps. Rules that act on each coordinate by
itself apply the decay in the same pass; for the others the time loop does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from ufm.errors import invalid
from ufm.kernels.contract import compiled, inline, user_compiled
from ufm.kernels.vectors import WIDTH, below, first, load, square_root, store, where, zeros

PARAMETERS = 5  # rows of hyper-parameters that rules read; Adam keeps its two corrections in the last


@inline
def _sign(x):
    return where(below(0.0, x), 1.0, where(below(x, 0.0), -1.0, 0.0))


@inline
def gd_step(theta, g, lr):
    """theta - lr g."""
    return theta - lr * g


@inline
def momentum_step(theta, g, m, lr, beta, nesterov):
    """Heavy ball; Nesterov looks ahead along the new buffer."""
    m = beta * m + g
    direction = where(below(0.0, nesterov), g + beta * m, m)
    return theta - lr * direction, m


@inline
def signgd_step(theta, g, lr):
    """theta - lr sign(g)."""
    return theta - lr * _sign(g)


@inline
def signum_step(theta, g, m, lr, beta):
    """Sign of the averaged gradient."""
    m = beta * m + (1.0 - beta) * g
    return theta - lr * _sign(m), m


@inline
def adam_step(theta, g, m, v, lr, beta1, beta2, eps, factor1, factor2):
    """Averages corrected by a factor each, eps outside the root; a coordinate without any gradient rests."""
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g * g
    root = square_root(v * factor2) + eps
    moves = below(0.0, root)
    step = where(moves, m / where(moves, root, 1.0), 0.0 * root)
    return theta - (lr * factor1) * step, m, v


# ------------------------------------------------------------- the same steps with one list of arguments


@inline
def _gd(theta, g, m, v, lr, p):
    return gd_step(theta, g, lr), m, v


@inline
def _momentum(theta, g, m, v, lr, p):
    theta, m = momentum_step(theta, g, m, lr, p[0], p[1])
    return theta, m, v


@inline
def _signgd(theta, g, m, v, lr, p):
    return signgd_step(theta, g, lr), m, v


@inline
def _remembered(average, beta):
    """What is kept of an average for the next step: nothing at beta = 0, lest smaller gradients vanish beside it."""
    return where(below(0.0, beta), average, 0.0)


@inline
def _signum(theta, g, m, v, lr, p):
    theta, m = signum_step(theta, g, m, lr, p[0])
    return theta, _remembered(m, p[0]), v


@inline
def _adam(theta, g, m, v, lr, p):
    theta, m, v = adam_step(theta, g, m, v, lr, p[0], p[1], p[2], p[3], p[4])
    return theta, _remembered(m, p[0]), _remembered(v, p[1])


@inline
def _at(a, there, step, held, theta, grad, m, v, lr, p, added, before, after):
    """The part of `_everywhere` from one number on."""
    x = load(theta, a, there)
    g = load(grad, a, there) + added * x
    y = load(m, a, there) if held > 0 else lr
    z = load(v, a, there) if held > 1 else lr
    x, y, z = step(x * before, g, y, z, lr, p)
    store(theta, a, there, x * after)
    if held > 0:
        store(m, a, there, y)
    if held > 1:
        store(v, a, there, z)


@inline
def _everywhere(step, held, theta, grad, m, v, rates, row, hyper, decay, table):
    """A step of every coordinate with its decay; of the buffers m and v the first `held` are in use.

    A row of numbers, one for each lane, has as many as there are lanes, but WIDTH equal ones for a single run.
    """
    lanes, all_of_them = hyper.size // PARAMETERS, first(WIDTH)
    for block in range(table.shape[0]):
        begin, of_block = table[block, 0], 3 * lanes * block
        end = begin + table[block, 1] * table[block, 2]
        for lane in range(0, lanes, WIDTH):
            lr = load(rates, row + lane, all_of_them) if lanes > WIDTH else zeros() + rates[row]
            added = load(decay, of_block + lane, all_of_them)
            before = 1.0 - lr * load(decay, of_block + lanes + lane, all_of_them)
            after = 1.0 - lr * load(decay, of_block + 2 * lanes + lane, all_of_them)
            p = (
                load(hyper, lane, all_of_them),
                load(hyper, lanes + lane, all_of_them),
                load(hyper, 2 * lanes + lane, all_of_them),
                load(hyper, 3 * lanes + lane, all_of_them),
                load(hyper, 4 * lanes + lane, all_of_them),
            )
            whole = end - (end - begin) % WIDTH
            for a in range(begin + lane, whole, lanes):
                _at(a, all_of_them, step, held, theta, grad, m, v, lr, p, added, before, after)
            if whole < end:
                _at(whole, first(end - whole), step, held, theta, grad, m, v, lr, p, added, before, after)


def gd(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """`gd_step` on every coordinate."""
    _everywhere(_gd, 0, theta, grad, m, v, rates, row, hyper, decay, table)


def momentum(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """`momentum_step` on every coordinate."""
    _everywhere(_momentum, 1, theta, grad, m, v, rates, row, hyper, decay, table)


def signgd(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """`signgd_step` on every coordinate."""
    _everywhere(_signgd, 0, theta, grad, m, v, rates, row, hyper, decay, table)


def signum(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """`signum_step` on every coordinate."""
    _everywhere(_signum, 1, theta, grad, m, v, rates, row, hyper, decay, table)


def adam(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """`adam_step` on every coordinate."""
    lanes = hyper.size // PARAMETERS
    for beta, factor in ((0, 3 * lanes), (lanes, 4 * lanes)):
        for i in range(lanes):
            if i > 0 and hyper[beta + i] == hyper[beta + i - 1]:
                hyper[factor + i] = hyper[factor + i - 1]
            else:
                hyper[factor + i] = 1.0 / (1.0 - hyper[beta + i] ** t)
    _everywhere(_adam, 2, theta, grad, m, v, rates, row, hyper, decay, table)


def normalised_gd(theta, grad, m, v, rates, row, t, hyper, decay, table):
    """Step of length lr against the gradient of all blocks together."""
    largest = 0.0
    for j in range(grad.size):
        largest = max(largest, abs(grad[j]))
    if largest == 0.0:
        return
    total = 0.0
    for j in range(grad.size):
        total += (grad[j] / largest) ** 2  # scaled: the square of a small gradient underflows
    factor = rates[row] / math.sqrt(total)
    for j in range(grad.size):
        theta[j] -= factor * (grad[j] / largest)


RULES: dict[str, Callable[..., Any]] = {
    "gd": gd,
    "momentum": momentum,
    "signgd": signgd,
    "signum": signum,
    "adam": adam,
    "normalised_gd": normalised_gd,
}


def _elementwise(step: Any) -> Callable[..., Any]:
    def update(theta, grad, m, v, rates, row, t, hyper, decay, table):
        for j in range(grad.size):
            theta[j], m[j], v[j] = step(theta[j], grad[j], m[j], v[j], rates[row], t, hyper)

    return update


def _blockwise(step: Any) -> Callable[..., Any]:
    def update(theta, grad, m, v, rates, row, t, hyper, decay, table):
        step(theta, grad, m, v, rates[row], t, hyper, table)

    return update


@lru_cache(maxsize=64)
def _user_update(step: Callable[..., Any], elementwise: bool) -> Callable[..., Any]:
    """The user's function as an update of the flat state; one object per function, so that it compiles once."""
    around = _elementwise if elementwise else _blockwise
    return around(step if hasattr(step, "py_func") else numba.njit(step))


def in_lanes(optimizer: Any) -> bool:
    """Whether the rule of an optimizer reads its rates and parameters lane by lane, and applies the decay itself."""
    return isinstance(optimizer.rule, str) and optimizer.rule != "normalised_gd"


def row(numbers: Sequence[float], dtype: str) -> np.ndarray:
    """One number for each lane as the rules read it: a single run's is repeated to a whole vector."""
    return np.repeat(numbers, WIDTH if len(numbers) == 1 else 1).astype(dtype)


def hyper_of(optimizers: Sequence[Any], dtype: str) -> np.ndarray:
    """Rows of the hyper-parameters of each lane, with room for what a rule keeps beside them; a user's as given."""
    if not in_lanes(optimizers[0]):
        return np.array(optimizers[0].hyper() or (0.0,), dtype)
    values = np.zeros((PARAMETERS, len(optimizers)))
    for lane, optimizer in enumerate(optimizers):
        numbers = optimizer.hyper()
        values[: len(numbers), lane] = numbers
    return np.concatenate([row(numbers, dtype) for numbers in values])


def rule(optimizer: Any, dtype: str) -> Any:
    """Compiled update rule of an optimizer.

    Raises
    ------
    IncompatibleError
        If a user's function does not compile.
    """
    if isinstance(optimizer.rule, str):
        if optimizer.rule not in RULES:
            raise invalid(
                f"{type(optimizer).__name__}.rule", optimizer.rule, f"a function, or {', '.join(RULES)}"
            )
        return compiled(RULES[optimizer.rule], "update", dtype)
    name = f"{type(optimizer).__name__}.step {getattr(optimizer.rule, '__name__', '')}".strip()
    return user_compiled(_user_update(optimizer.rule, optimizer.elementwise), "update", dtype, name)
