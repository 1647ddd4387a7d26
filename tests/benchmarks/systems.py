"""Ours and its peers: each prepares a case and returns a function that takes steps from the case's starts.

Peers get float64, all cores and their fastest honest form:

    jax            gradient by differentiation, `vmap` over runs, `lax.scan` over steps, compiled, buffers donated
    jax-hand       the gradient written by hand, else the same; for small matrices products are written out as sums of
                   broadcast products with the run as last axis, which XLA fuses and its batched product is far from
    torch          eager: the gradient written by hand, batched products, no autograd and no optimizer object
    torch-by-run   the same, one run after the other
    torch-compile  the same step through `torch.compile`
    numpy          the same with numpy

The step written by hand stands once and serves them all.
"""

from __future__ import annotations

import operator
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from ufm.ensemble import ensemble
from ufm.environment import usable_cores
from ufm.simulate import integrate

from .cases import LAM, Case

Blocks = dict[str, Any]
Runner = Callable[[int], Blocks]

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
WRITTEN_OUT = {1: 10, 256: 4}  # largest K for which sums beat XLA's product, by the number of runs


def ours(case: Case) -> Runner:
    """One run by `simulate`, several by `ensemble`."""
    if case.runs == 1:
        return lambda steps: _stacked(case, [integrate(case.described(steps)[0])])
    return lambda steps: _stacked(case, ensemble(case.described(steps)))


def _stacked(case: Case, trajectories: Any) -> Blocks:
    return {name: np.stack([traj[name][-1] for traj in trajectories]) for name in case.starts}


# Matrices with the run as first axis, as products of batches want it, or as last
FIRST = SimpleNamespace(classes=-2, product=operator.matmul, transpose=lambda a: a.swapaxes(-1, -2))
LAST = SimpleNamespace(
    classes=0,
    product=lambda a, b: (a[:, :, None] * b[None]).sum(1),
    transpose=lambda a: a.swapaxes(0, 1),
)


def targets(case: Case) -> np.ndarray:
    """One-hot columns, shape (classes, samples)."""
    return np.eye(case.problem.classes)[:, case.problem.labels]


def gradient(xp: Any, layout: Any, case: Case, Y: Any, blocks: Blocks) -> Blocks:
    """Gradient of the fit by every block."""
    L, product, transpose = case.problem.depth, layout.product, layout.transpose
    inputs = [blocks["H"]]
    for layer in range(1, L):
        X = product(blocks[f"W{layer}"], inputs[-1])
        inputs.append(xp.where(X > 0, X, 0.0))
    Z = product(blocks[_top(case)], inputs[-1])
    if L > 1:
        D = (Z - Y) / case.problem.samples
    else:
        E = xp.exp(Z - xp.amax(Z, axis=layout.classes, keepdims=True))
        D = (E / xp.sum(E, axis=layout.classes, keepdims=True) - Y) / case.problem.samples
    grad = {}
    for layer in range(L, 0, -1):
        name = _top(case) if layer == L else f"W{layer}"
        grad[name] = product(D, transpose(inputs[layer - 1]))
        D = product(transpose(blocks[name]), D)
        if layer > 1:
            D = xp.where(inputs[layer - 1] > 0, D, 0.0)
    return {**grad, "H": D}


def _top(case: Case) -> str:
    return next(name for name in reversed(list(case.starts)) if name.startswith("W"))


def update(xp: Any, rule: str, x: Any, g: Any, m: Any, v: Any, lr: Any, t: Any) -> tuple[Any, Any, Any]:
    """One block after a step, and its moments; `g` holds the decay."""
    if rule == "gd":
        return x - lr * g, m, v
    if rule == "signgd":
        return x - lr * xp.sign(g), m, v
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    root = xp.sqrt(v / (1 - BETA2**t)) + EPS
    return x - lr * m / ((1 - BETA1**t) * root), m, v


def step(xp: Any, rule: str, grad: Callable[[Blocks], Blocks], state: Any, lr: Any) -> Any:
    """State (blocks, m, v, t) after a step."""
    blocks, m, v, t = state
    g, t = grad(blocks), t + 1
    new = {k: update(xp, rule, x, g[k] + LAM * x, m[k], v[k], lr, t) for k, x in blocks.items()}
    return *({k: parts[i] for k, parts in new.items()} for i in range(3)), t


def _first_state(case: Case, convert: Callable[[np.ndarray], Any], shape: Callable[..., np.ndarray]) -> Any:
    blocks = {k: convert(shape(x).copy()) for k, x in case.starts.items()}
    moments = case.starts if case.rule == "adam" else {}
    m, v = ({k: convert(np.zeros_like(shape(x))) for k, x in moments.items()} for _ in range(2))
    nothing = dict.fromkeys(case.starts) if not moments else {}
    return blocks, m | nothing, v | nothing, convert(np.float64(0.0))


def _jax() -> Any:
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def with_jax(case: Case) -> Runner:
    """The model differentiated by jax and mapped over runs."""
    jax = _jax()
    jnp, Y, L = jax.numpy, jax.numpy.asarray(targets(case)), case.problem.depth

    def fit(blocks):
        X = blocks["H"]
        for layer in range(1, L):
            X = jax.nn.relu(blocks[f"W{layer}"] @ X)
        Z = blocks[_top(case)] @ X
        total = (
            0.5 * jnp.sum((Z - Y) ** 2) if L > 1 else jnp.sum(jax.nn.logsumexp(Z, axis=0)) - jnp.sum(Y * Z)
        )
        return total / case.problem.samples

    def whole(state, lr, steps):
        take = partial(step, jnp, case.rule, jax.grad(fit))
        return jax.lax.scan(lambda s, _: (take(s, lr), None), state, None, length=steps)[0]

    def mapped(state, lr, steps):
        if case.runs == 1:
            return whole(state, lr, steps)
        return jax.vmap(partial(whole, steps=steps), in_axes=((0, 0, 0, None), 0), out_axes=(0, 0, 0, None))(
            state, lr
        )

    one = case.runs == 1
    lr = case.rates[0] if one else case.rates
    return _scanned(case, mapped, lr, (lambda a: a[0]) if one else np.asarray, lambda a: a)


def with_jax_by_hand(case: Case) -> Runner:
    """The gradient written by hand, for all runs at once."""
    jax = _jax()
    jnp, one, K = jax.numpy, case.runs == 1, case.problem.classes
    out = case.problem.depth == 1 and max(K, case.problem.width) <= WRITTEN_OUT[1 if one else 256]
    layout = LAST if out else FIRST
    Y = jnp.asarray(targets(case)[:, :, None] if out and not one else targets(case))
    grad = partial(gradient, jnp, layout, case, Y)

    def whole(state, lr, steps):
        take = partial(step, jnp, case.rule, grad)
        return jax.lax.scan(lambda s, _: (take(s, lr), None), state, None, length=steps)[0]

    if one:
        return _scanned(case, whole, case.rates[0], lambda a: a[0], lambda a: a)
    if out:
        return _scanned(
            case, whole, case.rates, lambda a: np.moveaxis(a, 0, -1), lambda a: np.moveaxis(a, -1, 0)
        )
    return _scanned(case, whole, case.rates[:, None, None], np.asarray, lambda a: a)


def _scanned(case: Case, whole: Any, lr: Any, shape: Any, back: Any) -> Runner:
    """`whole(state, lr, steps)` compiled for every number of steps that is asked for, its state donated."""
    jax = _jax()
    compiled: dict[int, Any] = {}

    def run(steps):
        state = _first_state(case, jax.numpy.asarray, shape)
        if steps not in compiled:
            jitted = jax.jit(partial(whole, steps=steps), donate_argnums=0)
            compiled[steps] = jitted.lower(state, lr).compile()
        blocks = jax.block_until_ready(compiled[steps](state, lr))[0]
        return {k: back(np.asarray(x)).reshape(case.starts[k].shape) for k, x in blocks.items()}

    return run


def with_torch(case: Case, compiled: bool = False, threads: int | None = None) -> partial[Blocks]:
    """Eager PyTorch, or a step of it compiled; on one thread or on all, whichever is faster."""
    import torch

    if compiled and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ImportError("torch.compile needs a C++ compiler")
    grad = partial(gradient, torch, FIRST, case, torch.tensor(targets(case)))
    lr = torch.tensor(case.rates[:, None, None] if case.runs > 1 else case.rates[0])
    take = partial(step, torch, case.rule, grad)
    if compiled:
        torch._dynamo.reset()
        take = torch.compile(take)

    def on(count, steps):
        torch.set_num_threads(count)
        with torch.no_grad():
            state = _first_state(case, torch.tensor, _leading(case))
            for _ in range(steps):
                state = take(state, lr)
        return {k: x.numpy().reshape(case.starts[k].shape) for k, x in state[0].items()}

    return partial(on, fastest((1, usable_cores() or 1), on) if threads is None else threads)


def fastest(choices: Sequence[int], run: Callable[[int, int], Any], steps: int = 5, times: int = 3) -> int:
    """The one of the choices with which `run(choice, steps)` takes the least time."""
    best = dict.fromkeys(choices, float("inf"))
    for choice in choices:
        run(choice, 2)
    for _ in range(times):
        for choice in choices:
            begin = time.perf_counter()
            run(choice, steps)
            best[choice] = min(best[choice], time.perf_counter() - begin)
    return min(best, key=best.__getitem__)


def with_torch_by_run(case: Case) -> Runner:
    """Eager PyTorch as a script has it: one run after the other, on as many threads as are fastest for the first."""
    first = with_torch(case.alone(0))
    runners = [with_torch(case.alone(run), threads=first.args[0]) for run in range(case.runs)]

    def run(steps):
        found = [take(steps) for take in runners]
        return {k: np.concatenate([blocks[k] for blocks in found]) for k in found[0]}

    return run


def with_numpy(case: Case) -> Runner:
    """Plain numpy."""
    grad = partial(gradient, np, FIRST, case, targets(case))
    lr = case.rates[:, None, None] if case.runs > 1 else case.rates[0]

    def run(steps):
        state = _first_state(case, np.asarray, _leading(case))
        for _ in range(steps):
            state = step(np, case.rule, grad, state, lr)
        return {k: x.reshape(case.starts[k].shape) for k, x in state[0].items()}

    return run


def _leading(case: Case) -> Callable[[np.ndarray], np.ndarray]:
    return (lambda a: a[0]) if case.runs == 1 else np.asarray


PEERS: dict[str, Callable[[Case], Runner]] = {
    "jax": with_jax,
    "jax-hand": with_jax_by_hand,
    "torch": with_torch,
    "torch-by-run": with_torch_by_run,
    "torch-compile": partial(with_torch, compiled=True),
    "numpy": with_numpy,
}
