"""Forward and backward pass of chains with batch normalisation, and the time loops compiled with them.

The loops are those of all problems, with these passes in place of `ufm.kernels.chain`'s; they are compiled when the
first normalised problem is. Two more columns of the chain's table, which nobody else reads, say where the scale of
each normalised layer is; eps stands behind the parameters of the loss. Behind the logits, `X` keeps of every
normalised layer the rows BN(H_l) and the inverses of their standard deviations.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ufm.kernels import batches, loop
from ufm.kernels.chain import logits_offset, rectify, rectify_derivative
from ufm.kernels.contract import allocates, helper, inline

SCALE, SCALE_TRAINED = (
    3,
    4,
)  # columns of the table: offset of gamma_l in row l - 1, -1 without; whether it is trained


@inline
def normalise(chain, theta, gamma, source, start, X, out, rows, B, room):
    """Fill X[out:] with diag(gamma) BN of the rows at source[start:]; what the derivative needs goes to X[room:]."""
    real = X.dtype.type
    eps = chain.parameters[chain.parameters.size - 1]
    for j in range(rows):
        row, kept, to = start + j * B, room + j * B, out + j * B
        # relative to the first sample, so that a constant row has variance 0 to the last bit
        first, mean, variance = source[row], real(0.0), real(0.0)
        for i in range(B):
            mean += source[np.uintp(row + i)] - first
        mean /= real(B)
        for i in range(B):
            deviation = (source[np.uintp(row + i)] - first) - mean
            X[np.uintp(kept + i)] = deviation
            variance += deviation * deviation
        inverse = real(1.0) / np.sqrt(variance / real(B) + eps)
        X[room + rows * B + j] = inverse
        scale = theta[gamma + j]
        for i in range(B):
            X[np.uintp(kept + i)] *= inverse
            X[np.uintp(to + i)] = scale * X[np.uintp(kept + i)]


@inline
def normalise_derivative(chain, theta, grad, level, X, room, D, at, G, out, B):
    """From the derivative by diag(gamma) BN(x) at D[at:] those by gamma and by x, if trained; the latter goes to G."""
    real = X.dtype.type
    gamma, rows = chain.table[level, SCALE], chain.table[level, 1]
    for j in range(rows):
        row, kept, to = at + j * B, room + j * B, out + j * B
        mean, along = real(0.0), real(0.0)
        for i in range(B):
            mean += D[np.uintp(row + i)]
            along += D[np.uintp(row + i)] * X[np.uintp(kept + i)]
        if chain.table[level, SCALE_TRAINED] == 1:
            grad[gamma + j] = along
        if level > 0 or chain.trained[0] == 1:
            mean /= real(B)
            along /= real(B)
            factor = theta[gamma + j] * X[room + rows * B + j]
            for i in range(B):
                G[np.uintp(to + i)] = factor * (D[np.uintp(row + i)] - mean - X[np.uintp(kept + i)] * along)


@inline
def kept_by(chain, level, B):
    """How many numbers the normalisation of one layer keeps behind the logits."""
    return chain.table[level, 1] * (B + 1) if chain.table[level, SCALE] >= 0 else 0


@inline
def forward(product, chain, theta, H, start, X, B):
    """Fill X from the B columns at H[start:], which may be its own first block."""
    depth = chain.table.shape[0] - 1
    room = logits_offset(chain, B) + chain.table[depth, 1] * B
    here, rows = 0, chain.table[0, 1]
    if chain.table[0, SCALE] >= 0:
        normalise(chain, theta, chain.table[0, SCALE], H, start, X, 0, rows, B, room)
    else:
        for i in range(rows * B):
            X[np.uintp(i)] = H[np.uintp(start + i)]
    for layer in range(1, depth + 1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        room += kept_by(chain, layer - 1, B)
        below, here = here, here + inner * B
        product(theta, weights, 0, X, below, 0, X, here, rows, inner, B)
        if layer == depth:
            break
        if chain.table[layer, SCALE] >= 0:
            normalise(chain, theta, chain.table[layer, SCALE], X, here, X, here, rows, B, room)
        if chain.relu == 1:
            rectify(X, here, rows * B)
    if chain.bias >= 0:
        for k in range(chain.table[depth, 1]):
            b = theta[chain.bias + k]
            for i in range(B):
                X[np.uintp(here + k * B + i)] += b


@inline
def backward(product, chain, theta, grad, H, start, G, out, X, D, B):
    """Fill the gradients from the residual at the end of D; the derivative by H, if trained, goes to G[out:]."""
    depth = chain.table.shape[0] - 1
    here = logits_offset(chain, B)
    room = here + chain.table[depth, 1] * B
    for level in range(depth):
        room += kept_by(chain, level, B)
    if chain.bias >= 0 and chain.trained[depth + 1] == 1:
        for k in range(chain.table[depth, 1]):
            total = D.dtype.type(0.0)
            for i in range(B):
                total += D[here + k * B + i]
            grad[chain.bias + k] = total
    for layer in range(depth, 0, -1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below, level = here - inner * B, layer - 1
        room -= kept_by(chain, level, B)
        if chain.trained[layer] == 1:
            product(D, here, 0, X, below, 1, grad, weights, rows, B, inner)
        if layer <= chain.lowest:
            return
        product(theta, weights, 1, D, here, 0, D, below, inner, rows, B)
        if layer > 1:
            if chain.relu == 1:
                rectify_derivative(D, X, below, inner * B)
            if chain.table[level, SCALE] >= 0:
                normalise_derivative(chain, theta, grad, level, X, room, D, below, D, below, B)
        here = below
    if chain.table[0, SCALE] >= 0:
        normalise_derivative(chain, theta, grad, 0, X, room, D, 0, G, out, B)
    elif chain.trained[0] == 1:
        for i in range(chain.table[0, 1] * B):
            G[np.uintp(out + i)] = D[np.uintp(i)]


def _with(function: Any, **others: Any) -> Any:
    """The same source with other functions for these names."""
    found = FunctionType(
        function.__code__, {**function.__globals__, **others}, function.__name__ + "_normalised"
    )
    found.__qualname__ = found.__name__
    return found


_PASSES: dict[str, Callable[..., Any]] = {"forward": forward, "backward": backward}

run = _with(loop.run, **_PASSES)
evaluate = _with(loop.evaluate, **_PASSES)
_record = getattr(batches.record, "py_func", batches.record)  # without the compiler it is a function already
run_batches = allocates(_with(batches.run, **_PASSES, record=helper(_with(_record, **_PASSES))))
