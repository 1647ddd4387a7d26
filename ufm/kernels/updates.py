"""Update rules: one scalar function per optimizer, and the loop that applies it to the flat state.

`g` is the gradient with coupled decay, `t` counts from 1; decoupled decay is applied by the time loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba

from ufm.errors import invalid
from ufm.kernels.contract import compiled, inline, user_compiled


@inline
def _sign(x):
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0)


@inline
def gd_step(theta, g, lr):
    """theta - lr g."""
    return theta - lr * g


@inline
def momentum_step(theta, g, m, lr, beta, nesterov):
    """Heavy ball; Nesterov looks ahead along the new buffer."""
    m = beta * m + g
    direction = g + beta * m if nesterov > 0.0 else m
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
def adam_step(theta, g, m, v, lr, beta1, beta2, eps, correction1, correction2):
    """Bias-corrected averages, eps outside the root; a coordinate without any gradient rests."""
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g * g
    root = math.sqrt(v / correction2) + eps
    step = m / (correction1 * root) if root > 0.0 else 0.0 * root
    return theta - lr * step, m, v


def gd(theta, grad, m, v, lr, t, hyper, table):
    """`gd_step` on every coordinate."""
    for j in range(grad.size):
        theta[j] = gd_step(theta[j], grad[j], lr)


def momentum(theta, grad, m, v, lr, t, hyper, table):
    """`momentum_step` on every coordinate."""
    beta, nesterov = hyper[0], hyper[1]
    for j in range(grad.size):
        theta[j], m[j] = momentum_step(theta[j], grad[j], m[j], lr, beta, nesterov)


def signgd(theta, grad, m, v, lr, t, hyper, table):
    """`signgd_step` on every coordinate."""
    for j in range(grad.size):
        theta[j] = signgd_step(theta[j], grad[j], lr)


def signum(theta, grad, m, v, lr, t, hyper, table):
    """`signum_step` on every coordinate."""
    beta = hyper[0]
    for j in range(grad.size):
        theta[j], m[j] = signum_step(theta[j], grad[j], m[j], lr, beta)


def adam(theta, grad, m, v, lr, t, hyper, table):
    """`adam_step` on every coordinate."""
    beta1, beta2, eps = hyper[0], hyper[1], hyper[2]
    correction1, correction2 = 1.0 - beta1**t, 1.0 - beta2**t
    for j in range(grad.size):
        theta[j], m[j], v[j] = adam_step(
            theta[j], grad[j], m[j], v[j], lr, beta1, beta2, eps, correction1, correction2
        )


def normalised_gd(theta, grad, m, v, lr, t, hyper, table):
    """Step of length lr against the gradient of all blocks together."""
    largest = 0.0
    for j in range(grad.size):
        largest = max(largest, abs(grad[j]))
    if largest == 0.0:
        return
    total = 0.0
    for j in range(grad.size):
        total += (grad[j] / largest) ** 2  # scaled: the square of a small gradient underflows
    factor = lr / math.sqrt(total)
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
    def update(theta, grad, m, v, lr, t, hyper, table):
        for j in range(grad.size):
            theta[j], m[j], v[j] = step(theta[j], grad[j], m[j], v[j], lr, t, hyper)

    return update


@lru_cache(maxsize=64)
def _user_update(step: Callable[..., Any], elementwise: bool) -> Callable[..., Any]:
    """The user's function as an update of the flat state; one object per function, so that it compiles once."""
    if not elementwise:
        return getattr(step, "py_func", step)
    return _elementwise(step if hasattr(step, "py_func") else numba.njit(step))


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
