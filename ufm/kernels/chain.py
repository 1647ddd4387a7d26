"""Forward and backward pass of the chain, on flat vectors.

`X` holds the inputs of all layers one after the other: the columns of H (unless they are read where they stand),
s(H_2), ..., and last the logits; `D` holds the derivatives by them in the same places.
"""

from __future__ import annotations

from ufm.kernels.contract import helper, inline
from ufm.kernels.product import product


@inline
def logits_offset(chain, B):
    """Where the logits begin in X, and their derivative in D, for B columns."""
    total = 0
    for layer in range(chain.table.shape[0] - 1):
        total += chain.table[layer, 1] * B
    return total


@inline
def forward(chain, theta, H, start, X, B):
    """Fill X above its first block from the B columns at H[start:]."""
    depth = chain.table.shape[0] - 1
    below, here = 0, chain.table[0, 1] * B
    source, offset = H, start
    for layer in range(1, depth + 1):
        rows, inner = chain.table[layer, 1], chain.table[layer, 2]
        product(theta, chain.table[layer, 0], 0, source, offset, 0, X, here, rows, inner, B)
        if chain.relu == 1 and layer < depth:
            for j in range(here, here + rows * B):
                # written so that nan stays
                X[j] = 0.0 if X[j] <= 0.0 else X[j]
        below, here = here, here + rows * B
        source, offset = X, below
    if chain.bias >= 0:
        j = below
        for k in range(chain.table[depth, 1]):
            b = theta[chain.bias + k]
            for _ in range(B):
                X[j] += b
                j += 1


@inline
def backward(chain, theta, grad, H, start, G, out, X, D, B):
    """Fill the gradients from the residual at the end of D; the derivative by H goes to G[out:]."""
    depth = chain.table.shape[0] - 1
    here = logits_offset(chain, B)
    if chain.bias >= 0 and chain.trained[depth + 1] == 1:
        j = here
        for k in range(chain.table[depth, 1]):
            total = D.dtype.type(0.0)
            for _ in range(B):
                total += D[j]
                j += 1
            grad[chain.bias + k] = total
    for layer in range(depth, 0, -1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below = here - inner * B
        inputs, offset = (X, below) if layer > 1 else (H, start)
        if chain.trained[layer] == 1:
            product(D, here, 0, inputs, offset, 1, grad, weights, rows, B, inner)
        if layer <= chain.lowest:
            break
        target, place = (D, below) if layer > 1 else (G, out)
        product(theta, weights, 1, D, here, 0, target, place, inner, rows, B)
        if chain.relu == 1 and layer > 1:
            for j in range(below, below + inner * B):
                D[j] = D[j] if X[j] > 0.0 else 0.0
        here = below


@helper
def gather(chain, theta, columns, count, X, segments, targets):
    """Copy the columns of a batch (increasing) into X, count where each class begins, copy their targets."""
    d, N, start = chain.table[0, 1], chain.table[0, 2], chain.table[0, 0]
    for k in range(segments.size):
        segments[k] = 0
    for i in range(count):
        segments[chain.labels[columns[i]] + 1] += 1
    for k in range(1, segments.size):
        segments[k] += segments[k - 1]
    for j in range(d):
        for i in range(count):
            X[j * count + i] = theta[start + j * N + columns[i]]
    for k in range(targets.shape[0]):
        for i in range(count):
            targets[k, i] = chain.targets[k, columns[i]]


@helper
def scatter(chain, D, columns, count, grad):
    """Put the derivative by the columns of a batch into the gradient of H; other columns get 0."""
    d, N, start = chain.table[0, 1], chain.table[0, 2], chain.table[0, 0]
    for j in range(start, start + d * N):
        grad[j] = 0.0
    for j in range(d):
        for i in range(count):
            grad[start + j * N + columns[i]] = D[j * count + i]
