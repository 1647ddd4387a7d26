"""The same mathematics in plain numpy, written to be read; the compiled kernels are tested against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from ufm.decay import shrinks_after
from ufm.epochs import batch_order
from ufm.initial import draw
from ufm.losses import MSE, Regression
from ufm.run import Run


def targets(problem: Any) -> np.ndarray:
    """Targets Y by sample, shape (classes, samples)."""
    if problem.targets is not None:
        return np.asarray(problem.targets)
    onehot = np.eye(problem.classes)[:, problem.labels]
    s = getattr(problem.loss, "smoothing", 0.0)
    smoothed: np.ndarray = (1 - s) * onehot + s / problem.classes
    return smoothed


def fit_and_gradient(
    problem: Any, state: dict[str, np.ndarray], columns: Any
) -> tuple[float, dict[str, np.ndarray]]:
    """Fit over the given samples and its gradient by every block."""
    L = problem.depth
    relu = problem.activation == "relu"
    X, inverse, rows = {}, {}, {}  # inputs of all layers; of normalised ones 1/deviation and BN
    Z = state["H"][:, columns]
    for layer in range(1, L + 1):
        if layer in problem.scales:
            centred = Z - Z.mean(axis=1, keepdims=True)
            inverse[layer] = 1 / np.sqrt((centred**2).mean(axis=1) + problem.normalisation.eps)
            rows[layer] = inverse[layer][:, None] * centred
            Z = state[problem.scales[layer]][:, None] * rows[layer]
        X[layer] = np.maximum(Z, 0.0) if relu and layer > 1 else Z
        if layer < L:
            Z = state[f"W{layer}"] @ X[layer]
    Z = state[f"W{L}"] @ X[L]
    if problem.bias:
        Z = Z + state["b"][:, None]
    Y = targets(problem)[:, columns]
    scale = 1.0 if problem.loss.reduction == "sum" else 1.0 / Z.shape[1]
    if isinstance(problem.loss, MSE | Regression):
        fit, D = scale * 0.5 * np.sum((Z - Y) ** 2), scale * (Z - Y)
    else:
        log_p = Z - logsumexp(Z, axis=0)
        fit, D = -scale * np.sum(Y * log_p), scale * (np.exp(log_p) * Y.sum(axis=0) - Y)
    gradient = {"b": D.sum(axis=1)}
    for layer in range(L, 0, -1):
        gradient[f"W{layer}"] = D @ X[layer].T
        D = state[f"W{layer}"].T @ D
        if relu and layer > 1:
            D = D * (X[layer] > 0)
        if layer in problem.scales:
            name, BN = problem.scales[layer], rows[layer]
            gradient[name] = (D * BN).sum(axis=1)
            along = BN * (D * BN).mean(axis=1, keepdims=True)
            factor = state[name] * inverse[layer]
            D = factor[:, None] * (D - D.mean(axis=1, keepdims=True) - along)
    gradient["H"] = np.zeros_like(state["H"])
    gradient["H"][:, columns] = D
    return float(fit), gradient


def update(
    optimizer: Any, x: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, lr: float, t: int
) -> Any:
    """New block and buffers after step t = 1, 2, ...; `g` is the gradient with coupled decay."""
    rule = optimizer.rule
    if rule == "gd":
        return x - lr * g, m, v
    if rule == "momentum":
        m = optimizer.beta * m + g
        return x - lr * (g + optimizer.beta * m if optimizer.nesterov else m), m, v
    if rule == "signgd":
        return x - lr * np.sign(g), m, v
    if rule == "signum":
        m = optimizer.beta * m + (1 - optimizer.beta) * g
        return x - lr * np.sign(m), m, v
    if rule == "adam":
        m = optimizer.beta1 * m + (1 - optimizer.beta1) * g
        v = optimizer.beta2 * v + (1 - optimizer.beta2) * g**2
        root = np.sqrt(v / (1 - optimizer.beta2**t)) + optimizer.eps
        step = np.divide(m / (1 - optimizer.beta1**t), root, out=np.zeros_like(m), where=root > 0)
        return x - lr * step, m, v
    raise ValueError(f"no reference for {optimizer!r}")


def simulate(run: Run) -> dict[str, np.ndarray]:
    """Trained blocks after every step, shape (steps + 1, ...), by name; float64."""
    problem, steps = run.problem, run.steps
    assert steps is not None
    state = {name: np.array(value) for name, value in problem.frozen_values.items()}
    state.update(draw(problem, run.init, run.seed))
    m = {name: np.zeros_like(state[name]) for name in problem.trained}
    v = {name: np.zeros_like(state[name]) for name in problem.trained}
    found = {name: [state[name]] for name in problem.trained}
    order = batch_order(run, 0, steps)
    for t, lr in enumerate(run.rates):
        columns = order[t][order[t] >= 0] if len(order) else np.arange(problem.samples)
        _, gradient = fit_and_gradient(problem, state, columns)
        if run.optimizer.rule == "normalised_gd":
            g = {name: gradient[name] + run.coupled[name] * state[name] for name in problem.trained}
            norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
        for name in problem.trained:
            x = state[name]
            g_block = gradient[name] + run.coupled[name] * x
            keep = 1 - lr * run.decoupled[name]
            after = shrinks_after(run.decay)
            x = x if after else keep * x
            if run.optimizer.rule == "normalised_gd":
                x = x - lr * g_block / norm
            else:
                x, m[name], v[name] = update(run.optimizer, x, g_block, m[name], v[name], lr, t + 1)
            state[name] = keep * x if after else x
            found[name].append(state[name])
    return {name: np.array(values) for name, values in found.items()}
