"""States of the deep UFM written down by hand, independent of the package: neural collapse and vertex-edge graphs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.optimize import brentq


def gain(strength: float, depth: int) -> float:
    """Larger root x of (1 - x) x^((L-1)/(L+1)) = strength."""
    low = (depth - 1) / (2 * depth)
    return brentq(lambda x: (1 - x) * x ** ((depth - 1) / (depth + 1)) - strength, low, 1.0, xtol=1e-16)


def collapse(
    K: int, L: int, lam: float, width: int, n: int = 1, x: float | None = None
) -> tuple[dict[str, np.ndarray], float]:
    """Neural collapse at equal decays with its loss; x may be the smaller root."""
    x = gain(K * n ** (1 / (L + 1)) * lam, L) if x is None else x
    c = (n * x**2 * lam ** (L + 1)) ** (1 / (L + 1))
    eye = np.eye(width)
    state = {f"W{layer}": np.sqrt(c / lam) * eye * (np.arange(width) < K) for layer in range(1, L + 1)}
    state[f"W{L}"] = state[f"W{L}"][:K]
    state["H"] = np.sqrt(c / (lam * n)) * np.repeat(eye[:, :K], n, axis=1)
    return state, (1 - x) * (1 + L * x) / 2


def graph(
    r: int, L: int, lam: float, width: int, variant: str = "kneser"
) -> tuple[dict[str, np.ndarray], float]:
    """Strongly regular graph of rank r with one sample per class, K = r (r - 1)/2, and its loss.

    The last layer is the best for its features, which is output x I in the identity variant.
    """
    edges = list(combinations(range(r), 2))
    K = len(edges)
    B = np.array([[float(vertex in edge) for edge in edges] for vertex in range(r)])
    U, s, Vt = np.linalg.svd(B, full_matrices=False)
    rows = (B.T - 0.5) if variant == "identity" else (0.5 - B.T)
    features = np.maximum(rows @ B, 0.0)
    theta = np.linalg.eigvalsh(features)
    # everything but the last layer, at scale t of the features: L equal penalties with product (lam/2)^L * cost
    cost = s.sum() ** 2 * r ** (L - 3) * np.sum(rows**2)

    def penalty(t: float) -> float:
        return 0.5 * (lam**L * t**2 * cost) ** (1 / L)

    def slope(t: float) -> float:
        return -np.sum(lam * t * theta**2 / (K * lam + t**2 * theta**2) ** 2) + 2 * penalty(t) / t

    t = brentq(slope, 0.5, 10.0, xtol=1e-15)
    share = 2 * penalty(t) / lam  # squared norm of every factor but the last
    state = {f"W{layer}": np.zeros((width, width)) for layer in range(1, L)}
    state["W1"][:r, :r] = np.sqrt(share / s.sum()) * U * np.sqrt(s)
    state["H"] = np.zeros((width, K))
    state["H"][:r] = np.sqrt(share / s.sum()) * np.sqrt(s)[:, None] * Vt
    for layer in range(2, L - 1):
        state[f"W{layer}"][:r, :r] = np.sqrt(share / r) * np.eye(r)
    state[f"W{L - 1}"][:K, :r] = np.sqrt(share / np.sum(rows**2)) * rows
    state[f"W{L}"] = np.zeros((K, width))
    state[f"W{L}"][:, :K] = np.linalg.solve(t**2 * features @ features + K * lam * np.eye(K), t * features)
    loss = np.sum(lam / (2 * (K * lam + t**2 * theta**2))) + L * penalty(t)
    return state, float(loss)
