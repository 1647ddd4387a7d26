"""Forward and backward pass of the chain, on flat vectors.

`X` holds the inputs of all layers one after the other: the columns of H (unless they are read where they stand),
s(H_2), ..., and last the logits; `D` holds the derivatives by them in the same places. `product` multiplies the
matrices of one run, or those of all lanes.
"""

from __future__ import annotations

import numpy as np

from ufm.kernels.contract import helper, inline


@inline
def logits_offset(chain, B):
    """Where the logits begin in X, and their derivative in D, for B columns."""
    total = 0
    for layer in range(chain.table.shape[0] - 1):
        total += chain.table[layer, 1] * B
    return total * chain.lanes


@inline
def rectify(X, start, count):
    """ReLU of `count` numbers; nan stays. (LLVM vectorises no loop whose index may be negative, hence uintp.)"""
    for i in range(count):
        j = np.uintp(start + i)
        X[j] = 0.0 if X[j] <= 0.0 else X[j]


@inline
def rectify_derivative(D, X, start, count):
    """Derivative by the input of a ReLU, from that by its output X."""
    for i in range(count):
        j = np.uintp(start + i)
        D[j] = D[j] if X[j] > 0.0 else 0.0


# The first layer stands outside the loops: a variable that is now one array, now another, is slow in compiled code.


@inline
def forward(product, chain, theta, H, start, X, B):
    """Fill X above its first block from the B columns at H[start:]."""
    depth = chain.table.shape[0] - 1
    wide = B * chain.lanes
    here = chain.table[0, 1] * wide
    product(theta, chain.table[1, 0], 0, H, start, 0, X, here, chain.table[1, 1], chain.table[1, 2], B)
    for layer in range(2, depth + 1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below, here = here, here + inner * wide
        if chain.relu == 1:
            rectify(X, below, inner * wide)
        product(theta, weights, 0, X, below, 0, X, here, rows, inner, B)
    if chain.bias >= 0:
        for k in range(chain.table[depth, 1]):
            for lane in range(chain.lanes):
                b = theta[chain.bias + k * chain.lanes + lane]
                for i in range(B):
                    X[np.uintp(here + (k * B + i) * chain.lanes + lane)] += b


@inline
def backward(product, chain, theta, grad, H, start, G, out, X, D, B):
    """Fill the gradients from the residual at the end of D; the derivative by H goes to G[out:]."""
    depth = chain.table.shape[0] - 1
    here, lanes = logits_offset(chain, B), chain.lanes
    if chain.bias >= 0 and chain.trained[depth + 1] == 1:
        for k in range(chain.table[depth, 1]):
            for lane in range(lanes):
                total = D.dtype.type(0.0)
                for i in range(B):
                    total += D[here + (k * B + i) * lanes + lane]
                grad[chain.bias + k * lanes + lane] = total
    for layer in range(depth, 1, -1):
        weights, rows, inner = chain.table[layer, 0], chain.table[layer, 1], chain.table[layer, 2]
        below = here - inner * B * lanes
        if chain.trained[layer] == 1:
            product(D, here, 0, X, below, 1, grad, weights, rows, B, inner)
        if layer <= chain.lowest:
            return
        product(theta, weights, 1, D, here, 0, D, below, inner, rows, B)
        if chain.relu == 1:
            rectify_derivative(D, X, below, inner * B * lanes)
        here = below
    weights, rows, inner = chain.table[1, 0], chain.table[1, 1], chain.table[1, 2]
    if chain.trained[1] == 1:
        product(D, here, 0, H, start, 1, grad, weights, rows, B, inner)
    if chain.lowest < 1:
        product(theta, weights, 1, D, here, 0, G, out, inner, rows, B)


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
