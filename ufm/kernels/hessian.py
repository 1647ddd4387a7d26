"""Second derivative of the fit along a direction: the tangent of the forward and of the backward pass.

Every unit of every ReLU has a slope: 1, 0, or ONE_SIDED at a kink, where the slope is 1 along directions that raise
the unit and 0 along the others. With slopes 0 and 1 the product is linear in the direction and exact but for
round-off; with one-sided ones it is half the gradient of a piecewise quadratic form.

Linear chains with normalised layers have a product of their own, in numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from ufm.decay import per_block
from ufm.errors import IncompatibleError
from ufm.kernels import losses, reference
from ufm.kernels.chain import logits_offset
from ufm.kernels.contract import compiled, inline
from ufm.kernels.evaluate import evaluation
from ufm.kernels.layout import buffers_of, chain_of, per_coordinate
from ufm.kernels.loop import scale_of
from ufm.kernels.losses import SQUARED, _softmax_unscaled
from ufm.kernels.tiled_product import product
from ufm.losses import MSE

ONE_SIDED = 2.0


@inline
def _add(out, start, terms, count):
    """Add `count` terms to out[start:]."""
    for i in range(count):
        out[np.uintp(start + i)] += terms[np.uintp(i)]


@inline
def _rectify_tangent(T, slopes, start, count):
    """Tangent behind a ReLU, from that before it."""
    for i in range(count):
        j = np.uintp(start + i)
        if slopes[j] == 0.0 or (slopes[j] == ONE_SIDED and T[j] <= 0.0):
            T[j] = 0.0


@inline
def _rectify_tangent_derivative(E, T, slopes, start, count):
    """Tangent of the derivative before a ReLU; a one-sided unit passes it on where its own tangent T is positive."""
    for i in range(count):
        j = np.uintp(start + i)
        if slopes[j] == 0.0 or (slopes[j] == ONE_SIDED and T[j] <= 0.0):
            E[j] = 0.0


@inline
def _residual_tangent(chain, Z, T, scale, E, work):
    """Fill E with the tangent of the residual along the tangent T of the logits.

    For cross-entropy it is y scale p (t - <p, t>) with y the sum of the targets; t is taken relative to its entry at
    the largest probability, so that nothing cancels where that is nearly 1.
    """
    K, B = Z.shape
    if chain.parameters[2] == SQUARED:
        for k in range(K):
            for i in range(B):
                E[k, i] = scale * T[k, i]
        return
    _softmax_unscaled(Z, E, work)
    for i in range(B):
        mass = Z.dtype.type(1.0)
        if chain.targets.size > 0:
            mass = Z.dtype.type(0.0)
            for k in range(K):
                mass += chain.targets[k, i]
        top = 0
        for k in range(1, K):
            if Z[k, i] > Z[top, i]:
                top = k
        total, at_top = work[2 * B + i], T[top, i]
        mean = Z.dtype.type(0.0)
        for k in range(K):
            E[k, i] /= total
            mean += E[k, i] * (T[k, i] - at_top)
        for k in range(K):
            E[k, i] *= mass * scale * ((T[k, i] - at_top) - mean)


def hessian(chain, buffers, tangents, slopes, theta, v, out, room):
    """Fill `out` with the Hessian of the fit times v, from what `evaluate` left in the buffers.

    v has an entry for every block, 0 on the frozen ones; `room` takes the largest block or input of a layer.
    """
    N, H, depth = chain.table[0, 2], chain.table[0, 0], chain.table.shape[0] - 1
    X, D, Z, work = buffers.X, buffers.D, buffers.Z, tangents.work
    T, E = tangents.X, tangents.D
    first, rows, inner = chain.table[1, 0], chain.table[1, 1], chain.table[1, 2]
    here = inner * N
    product(v, first, 0, theta, H, 0, T, here, rows, inner, N)
    product(theta, first, 0, v, H, 0, room, 0, rows, inner, N)
    _add(T, here, room, rows * N)
    for layer in range(2, depth + 1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below, here = here, here + inner * N
        if chain.relu == 1:
            _rectify_tangent(T, slopes, below, inner * N)
        product(v, weights, 0, X, below, 0, T, here, rows, inner, N)
        product(theta, weights, 0, T, below, 0, room, 0, rows, inner, N)
        _add(T, here, room, rows * N)
    if chain.bias >= 0:
        for k in range(chain.table[depth, 1]):
            b = v[chain.bias + k]
            for i in range(N):
                T[np.uintp(here + k * N + i)] += b
    _residual_tangent(chain, Z, tangents.Z, scale_of(chain, theta, N), tangents.R, work)
    here = logits_offset(chain, N)
    if chain.bias >= 0 and chain.trained[depth + 1] == 1:
        j = here
        for k in range(chain.table[depth, 1]):
            total = E.dtype.type(0.0)
            for _ in range(N):
                total += E[j]
                j += 1
            out[chain.bias + k] = total
    for layer in range(depth, 1, -1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below = here - inner * N
        if chain.trained[layer] == 1:
            product(E, here, 0, X, below, 1, out, weights, rows, N, inner)
            product(D, here, 0, T, below, 1, room, 0, rows, N, inner)
            _add(out, weights, room, rows * inner)
        if layer <= chain.lowest:
            return
        product(theta, weights, 1, E, here, 0, E, below, inner, rows, N)
        product(v, weights, 1, D, here, 0, room, 0, inner, rows, N)
        _add(E, below, room, inner * N)
        if chain.relu == 1:
            _rectify_tangent_derivative(E, T, slopes, below, inner * N)
        here = below
    rows, inner = chain.table[1, 1], chain.table[1, 2]
    if chain.trained[1] == 1:
        product(E, here, 0, theta, H, 1, out, first, rows, N, inner)
        product(D, here, 0, v, H, 1, room, 0, rows, N, inner)
        _add(out, first, room, rows * inner)
    if chain.lowest < 1:
        product(theta, first, 1, E, here, 0, out, H, inner, rows, N)
        product(v, first, 1, D, here, 0, room, 0, inner, rows, N)
        _add(out, H, room, inner * N)


class _Layer(NamedTuple):
    """One layer of a normalised chain and its tangent; `rows` and `inverse` are None where nothing is normalised."""

    X: np.ndarray  # input of W_l
    T: np.ndarray  # its tangent
    rows: np.ndarray | None  # BN(H_l)
    inverse: np.ndarray | None  # of the standard deviations, shape (rows, 1)
    along: np.ndarray | None  # tangent of BN(H_l)
    faster: np.ndarray | None  # tangent of the inverse deviations, shape (rows, 1)


def _mean(A: np.ndarray) -> np.ndarray:
    return A.mean(axis=1, keepdims=True)


def _layers(problem: Any, state: Mapping[str, np.ndarray], v: Mapping[str, np.ndarray]) -> list[_Layer]:
    """Inputs of all layers of a linear chain and their tangents along v."""
    X, T, found = state["H"], v["H"], list[_Layer]()
    for layer in range(1, problem.depth + 1):
        if layer > 1:
            below = f"W{layer - 1}"
            X, T = state[below] @ found[-1].X, v[below] @ found[-1].X + state[below] @ found[-1].T
        if layer not in problem.scales:
            found.append(_Layer(X, T, None, None, None, None))
            continue
        gamma, along_gamma = (blocks[problem.scales[layer]][:, None] for blocks in (state, v))
        centred = X - _mean(X)
        inverse = 1 / np.sqrt(_mean(centred**2) + problem.normalisation.eps)
        rows = inverse * centred
        along = inverse * (T - _mean(T) - rows * _mean(rows * T))
        faster = -(inverse**2) * _mean(rows * T)
        found.append(_Layer(gamma * rows, along_gamma * rows + gamma * along, rows, inverse, along, faster))
    return found


def _normalised_product(
    problem: Any, state: Mapping[str, np.ndarray], v: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Hessian of the fit of a linear chain with normalised layers times v, by block."""
    layers, last = _layers(problem, state, v), problem.last
    Z, T = state[last] @ layers[-1].X, v[last] @ layers[-1].X + state[last] @ layers[-1].T
    if problem.bias:
        Z, T = Z + state["b"][:, None], T + v["b"][:, None]
    D, E = _residual_and_tangent(problem, Z, T)
    found = {"b": E.sum(axis=1)}
    for layer in range(problem.depth, 0, -1):
        X, along_X, rows, inverse, along, faster = layers[layer - 1]
        W, along_W = state[f"W{layer}"], v[f"W{layer}"]
        found[f"W{layer}"] = E @ X.T + D @ along_X.T
        D, E = W.T @ D, along_W.T @ D + W.T @ E
        if rows is None:
            continue
        name = problem.scales[layer]
        found[name] = (E * rows + D * along).sum(axis=1)
        gamma, along_gamma = state[name][:, None], v[name][:, None]
        D, E = gamma * D, along_gamma * D + gamma * E
        inner = D - _mean(D) - rows * _mean(rows * D)
        E = E - _mean(E) - rows * _mean(rows * E) - along * _mean(rows * D) - rows * _mean(along * D)
        D, E = inverse * inner, faster * inner + inverse * E
    found["H"] = E
    return found


def _residual_and_tangent(problem: Any, Z: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of the fit by the logits, and its tangent along that of the logits."""
    scale = 1.0 if problem.loss.reduction == "sum" else 1.0 / problem.samples
    Y = reference.targets(problem)
    if isinstance(problem.loss, MSE):
        return scale * (Z - Y), scale * T
    p, mass = softmax(Z, axis=0), Y.sum(axis=0)
    return scale * (mass * p - Y), scale * mass * p * (T - (p * T).sum(axis=0))


class Objective:
    """Fit plus coupled penalty with its first two derivatives, on flat vectors; buffers are kept between calls.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    decay : Coupled or Mixed, optional
        Its decoupled part must be 0.
    where : str
        Who asks, for the sentence a decoupled rate is answered with.
    """

    def __init__(self, problem: Any, decay: Any, where: str) -> None:
        self.problem = problem
        coupled, decoupled = per_block(decay, problem)
        if any(decoupled.values()):
            raise IncompatibleError(
                f"{where}.decay is {decay!r}; allowed: None or Coupled, because decoupled decay belongs to the step "
                "and to no objective."
            )
        self.rates = per_coordinate(problem, [coupled], "float64")
        self.chain, self.buffers = chain_of(problem, "float64"), buffers_of(problem, "float64")
        head, value = losses.pair(problem.loss, "float64")
        kernel = compiled(evaluation(problem), "evaluate", "float64")
        self._evaluate = lambda theta, grad: kernel(head, value, self.chain, self.buffers, theta, grad)

    def __call__(self, theta: np.ndarray, factor: float = 1.0) -> tuple[float, np.ndarray]:
        """Value and gradient by the trained blocks, with every rate of the decay times `factor`."""
        gradient, rates = np.zeros(self.problem.size), factor * self.rates
        fit = self._evaluate(theta, gradient)
        trained = theta[: gradient.size]
        with np.errstate(over="ignore"):
            return float(fit + 0.5 * rates @ trained**2), gradient + rates * trained

    def curvature(self, theta: np.ndarray, slopes: np.ndarray) -> Any:
        """The product of the Hessian with a vector, at the state whose derivatives stand in the buffers.

        Parameters
        ----------
        theta : ndarray, shape (size of all blocks,)
            State, with which `__call__` was just called.
        slopes : ndarray, shape of the inputs X of all layers
            Slope of every unit.
        """
        if self.problem.normalisation is not None:
            return self._normalised_curvature(theta)
        chain, buffers, size = self.chain, self.buffers, self.problem.size
        tangents = buffers_of(self.problem, "float64")
        widest = max(*self.problem.widths, self.problem.classes)
        room = np.zeros(widest * max(widest, self.problem.samples))
        direction = np.zeros(theta.size)
        kernel = compiled(hessian, "hessian", "float64")

        def product(v: np.ndarray) -> np.ndarray:
            direction[:size] = v.ravel()
            out = np.zeros(size)
            kernel(chain, buffers, tangents, slopes, theta, direction, out, room)
            return out + self.rates * direction[:size]

        return product

    def _normalised_curvature(self, theta: np.ndarray) -> Any:
        """`curvature` of a linear chain with normalised layers."""
        problem, size = self.problem, self.problem.size
        state, direction = problem.unpack(theta), np.zeros(theta.size)

        def product(v: np.ndarray) -> np.ndarray:
            direction[:size] = v.ravel()
            found = _normalised_product(problem, state, problem.unpack(direction))
            flat = np.concatenate([found[name].ravel() for name in problem.trained])
            return flat + self.rates * direction[:size]

        return product
