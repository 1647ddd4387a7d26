"""Forward and backward pass of the chain, on lists of matrix views that are made once per call of a loop."""

from __future__ import annotations

import numpy as np

from ufm.kernels.contract import helper, inline


@helper
def views(chain, flat, trained_only):
    """H, W1 ... WL as matrices inside the flat vector; empty where a gradient is not wanted."""
    found = [np.empty((0, 0), flat.dtype) for _ in range(chain.table.shape[0])]
    for i in range(chain.table.shape[0]):
        if trained_only and chain.trained[i] == 0:
            continue
        offset, rows, columns = chain.table[i, 0], chain.table[i, 1], chain.table[i, 2]
        found[i] = flat[offset : offset + rows * columns].reshape((rows, columns))
    return found


@helper
def layers(chain, dtype_of, columns):
    """Room for the inputs of all layers and the logits: matrices (d_1, columns) ... (K, columns)."""
    found = [np.zeros((chain.table[0, 1], columns), dtype_of.dtype)]
    for i in range(1, chain.table.shape[0]):
        found.append(np.zeros((chain.table[i, 1], columns), dtype_of.dtype))
    return found


@helper
def lowest_trained(chain):
    """Number of layers that the backward pass can leave out: 0 if H is trained."""
    lowest = 0
    while lowest < chain.table.shape[0] - 1 and chain.trained[lowest] == 0:
        lowest += 1
    return lowest


@inline
def forward(chain, theta, weights, X):
    """Fill X[1:] from X[0]; X[-1] are the logits."""
    depth = len(weights) - 1
    for layer in range(1, depth + 1):
        np.dot(weights[layer], X[layer - 1], X[layer])
        if chain.relu == 1 and layer < depth:
            flat = X[layer].ravel()
            for j in range(flat.size):
                # `not <= 0` keeps nan
                flat[j] = 0.0 if flat[j] <= 0.0 else flat[j]
    if chain.bias >= 0:
        Z = X[depth]
        for k in range(Z.shape[0]):
            b = theta[chain.bias + k]
            for i in range(Z.shape[1]):
                Z[k, i] += b


@inline
def pull_back(chain, weights, X, D, layer):
    """Fill D[layer - 1], the derivative by the input of a layer before its ReLU."""
    np.dot(weights[layer].T, D[layer], D[layer - 1])
    if chain.relu == 1 and layer > 1:
        below, inputs = D[layer - 1].ravel(), X[layer - 1].ravel()
        for j in range(below.size):
            below[j] = below[j] if inputs[j] > 0.0 else 0.0


@inline
def backward(chain, grad, weights, gradients, X, D, lowest):
    """Fill the gradients from the residual D[-1]; D[0] is the derivative by the columns X[0]."""
    depth = len(weights) - 1
    if chain.bias >= 0 and chain.trained[depth + 1] == 1:
        R = D[depth]
        for k in range(R.shape[0]):
            total = R.dtype.type(0.0)
            for i in range(R.shape[1]):
                total += R[k, i]
            grad[chain.bias + k] = total
    for layer in range(depth, 0, -1):
        if chain.trained[layer] == 1:
            np.dot(D[layer], X[layer - 1].T, gradients[layer])
        if layer <= lowest:
            break
        pull_back(chain, weights, X, D, layer)


@helper
def gather(H, labels, columns, count, X, segments):
    """Copy the columns of a batch, in increasing order, and count where each class begins."""
    for k in range(segments.size):
        segments[k] = 0
    for i in range(count):
        segments[labels[columns[i]] + 1] += 1
    for k in range(1, segments.size):
        segments[k] += segments[k - 1]
    for j in range(H.shape[0]):
        for i in range(count):
            X[j, i] = H[j, columns[i]]


@helper
def gather_targets(targets, columns, count, out):
    """Copy the targets of a batch."""
    for k in range(targets.shape[0]):
        for i in range(count):
            out[k, i] = targets[k, columns[i]]


@helper
def scatter(D, columns, count, G):
    """Put the derivative of a batch into the gradient of H; other columns get 0."""
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            G[j, i] = 0.0
        for i in range(count):
            G[j, columns[i]] = D[j, i]
