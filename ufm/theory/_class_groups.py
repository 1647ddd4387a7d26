r"""Cross-entropy over groups of equal classes: the convex problem of one-layer models, solved with a certificate.

Group g holds K_g classes, each of the share n_g/N of the samples. The problem over K x K class means Z of the logits

    sum_k (n_k/N) CE(z_k + b, k) + rate ||Z diag(w)||_* + lb/2 ||b||^2

does not change under permutations inside a group, so it has a minimum that does not either:

    Z = sum_g a_g (I_g - J_g/K_g) + coarse,   ||Z diag(w)||_* = sum_g (K_g - 1) w_g |a_g| + ||C diag(w)||_*

with I_g, J_g on the classes of group g and C = <u_h, Z u_g>, u_g = 1_g/sqrt(K_g), a G x G matrix whose columns are
orthogonal to (sqrt(K_g)): a constant added to a column costs norm and changes no loss.

Certificate: CE(z, k) >= <q - e_k, z> + entropy(q) for every distribution q (Gibbs), and rate ||X||_* >= <U, X> for
every U with ||U|| <= rate. So any Q, one column for each class, with ||(Q - I) diag(n_k/(N w_k))|| <= rate bounds the
minimum from below by sum_k (n_k/N) entropy(q_k), less ||r||^2/(2 lb) with r = (Q - I) n/N (r must be 0 for lb = 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

ROUNDS = 4  # of L-BFGS, begun anew without memory
NEWTON = 30  # most steps that polish what L-BFGS has found
LARGEST_HESSIAN = 400  # parameters up to which there are such steps
NEGLIGIBLE = 1e-9  # share of the largest singular value of the coarse part below which one counts as 0


class Groups(NamedTuple):
    """Classes of equal size, largest size first."""

    sizes: tuple[int, ...]  # n_g
    counts: tuple[int, ...]  # K_g
    members: tuple[tuple[int, ...], ...]  # classes of each group


def groups_of(class_sizes: Sequence[int]) -> Groups:
    """Collect classes of equal size.

    Examples
    --------
    >>> groups_of([2, 20, 2]).members
    ((1,), (0, 2))
    """
    sizes = tuple(sorted(set(class_sizes), reverse=True))
    members = tuple(tuple(k for k, n in enumerate(class_sizes) if n == size) for size in sizes)
    return Groups(sizes, tuple(map(len, members)), members)


class Setting(NamedTuple):
    """The convex problem by groups."""

    counts: tuple[int, ...]  # K_g
    shares: tuple[float, ...]  # n_g/N, of one class
    weights: tuple[float, ...]  # w_g
    rate: float
    bias: float | None = None  # lb; None without a bias


class Means(NamedTuple):
    """Optimal class means of the logits by groups, and how far from the optimum they can be."""

    amplitudes: np.ndarray  # a_g, 0 for merged and single classes, shape (G,)
    coarse: np.ndarray  # part of Z constant on groups: entry [h, g] for classes h and g, shape (G, G)
    bias: np.ndarray  # shape (G,)
    value: float  # objective
    bound: float  # certified lower bound of the objective
    own: np.ndarray  # dual distributions: probability of the sample's class, shape (G,)
    other: np.ndarray  # of each other class of its group
    total: np.ndarray  # of all classes of group h together, [h, g]

    @property
    def gap(self) -> float:
        """Objective less its lower bound."""
        return self.value - self.bound

    @property
    def contrasts(self) -> np.ndarray:
        """Probability of the own class less that of another class of its group."""
        contrasts: np.ndarray = self.own - self.other
        return contrasts


@lru_cache(maxsize=256)
def solve(setting: Setting) -> Means:
    """Minimise, by L-BFGS over factors of the coarse part and Newton steps, and bound the minimum from below."""
    return _Solver(setting).solution()


def nuclear_norm(setting: Setting, means: Means) -> float:
    """||Z diag(w)||_* of class means."""
    solver = _Solver(setting)
    within = float(np.sum((solver.K - 1) * solver.w * means.amplitudes))
    return within + float(np.linalg.svd(means.coarse * solver.basis_scale * solver.w, compute_uv=False).sum())


class _Solver:
    """The objective as a function of one vector: amplitudes, bias, and two factors of the coarse part."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.K = np.array(setting.counts, dtype=float)
        self.share = np.array(setting.shares, dtype=float)
        self.w = np.array(setting.weights, dtype=float)
        self.G = len(self.K)
        self.basis_scale = np.sqrt(np.outer(self.K, self.K))  # C = basis_scale * coarse
        # the rule of `minority_collapse`: amplitudes below it are 0
        self.active = np.flatnonzero((self.K > 1) & (setting.rate * self.w < self.share))
        self.basis = np.linalg.qr(np.column_stack([np.sqrt(self.K), np.eye(self.G)]))[0][:, 1:]

    # -- parts of the vector

    def split(self, theta: np.ndarray) -> tuple[Any, Any, Any, Any]:
        A, B, r = len(self.active), self.G if self.setting.bias is not None else 0, self.G - 1
        a = np.zeros(self.G, dtype=theta.dtype)
        a[self.active] = theta[:A]
        b = theta[A : A + B] if B else np.zeros(self.G, dtype=theta.dtype)
        rest = theta[A + B :]
        if not len(rest):  # the coarse part is left out
            return a, b, np.zeros((r, r), dtype=theta.dtype), np.zeros((self.G, r), dtype=theta.dtype)
        return a, b, rest[: r * r].reshape(r, r), rest[r * r :].reshape(self.G, r)

    def coarse_of(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        coarse: np.ndarray = (self.basis @ (U @ V.T)) / (self.basis_scale * self.w)
        return coarse

    # -- the model

    def distributions(self, a: np.ndarray, Z: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Probabilities of own, other class of the group, group totals [h, g], and the cross-entropy."""
        diagonal = np.diagonal(Z)
        own, other = diagonal + a * (1 - 1 / self.K), diagonal - a / self.K
        shift = np.maximum(Z.real.max(axis=0), own.real)
        weight = self.K[:, None] * np.exp(Z - shift)
        own_weight, other_weight = np.exp(own - shift), np.exp(other - shift)
        np.fill_diagonal(weight, own_weight + (self.K - 1) * other_weight)
        norm = weight.sum(axis=0)
        return own_weight / norm, other_weight / norm, weight / norm, np.log(norm) + shift - own

    def objective(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, U, V = self.split(theta)
        _, other, total, losses = self.distributions(a, self.coarse_of(U, V) + b[:, None])
        rate, lb = self.setting.rate, self.setting.bias or 0.0
        group_share = self.K * self.share
        value = group_share @ losses + rate * ((self.K - 1) * self.w) @ a + lb / 2 * self.K @ b**2
        value += rate / 2 * ((U * U).sum() + (V * V).sum())
        within, by_Z = self.slopes(other, total)
        parts = [(within + rate * (self.K - 1) * self.w)[self.active]]
        if self.setting.bias is not None:
            parts.append(by_Z.sum(axis=1) + lb * self.K * b)
        if len(theta) > len(self.active) + (self.G if self.setting.bias is not None else 0):
            by_X = self.basis.T @ (by_Z / (self.basis_scale * self.w))
            parts += [(by_X @ V + rate * U).ravel(), (by_X.T @ U + rate * V).ravel()]
        return value, np.concatenate(parts)

    def slopes(self, other: Any, total: Any) -> tuple[Any, Any]:
        """Derivatives of the fit by the amplitudes, and by the entries of the coarse part."""
        missing = (
            total.sum(axis=0) - np.diagonal(total) + (self.K - 1) * other
        )  # 1 - own without cancellation
        within = -self.share * (self.K - 1) * (missing + other)
        return within, self.K * self.share * (total - np.eye(self.G))

    # -- the search

    def solution(self) -> Means:
        setting = self.setting
        theta = np.zeros(len(self.active) + (self.G if setting.bias is not None else 0))
        if setting.bias is not None:
            theta[len(self.active) :] = np.log(self.share)
        if len(theta):
            theta = self.descend(theta)
        a, b, _, _ = self.split(theta)
        by_Z = self.slopes(*self.distributions(a, np.zeros((self.G, self.G)) + b[:, None])[1:3])[1]
        if self.G > 1:
            left, values, right = np.linalg.svd(-self.basis.T @ (by_Z / (self.basis_scale * self.w)))
            if values[0] > setting.rate:  # else the coarse part is 0
                root = np.sqrt(np.maximum(values, 0.1 * values[0]) / values[0])
                theta = np.concatenate([theta, (left * root).ravel(), (right[: self.G - 1].T * root).ravel()])
                theta = self.descend(theta)
        return self.certified(theta)

    def descend(self, theta: np.ndarray) -> np.ndarray:
        from scipy.optimize import minimize

        options = {"maxiter": 2000, "maxfun": 8000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-13}
        best = np.inf
        for _ in range(ROUNDS):
            end = minimize(self.objective, theta, jac=True, method="L-BFGS-B", options=options)
            if not end.fun < best - 1e-16:
                break
            theta, best = end.x, end.fun
        return self.polish(theta) if len(theta) <= LARGEST_HESSIAN else theta

    def polish(self, theta: np.ndarray) -> np.ndarray:
        """Newton steps while they shrink the gradient; flat directions (rotations of the factors) are left alone."""
        size = float(np.linalg.norm(self.objective(theta)[1]))
        for _ in range(NEWTON):
            gradient = self.objective(theta)[1]
            # a derivative along the imaginary axis is free of cancellation
            steps = theta + 1e-30j * np.eye(len(theta))
            hessian = np.array([self.objective(step)[1].imag for step in steps]) * 1e30
            values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
            kept = values > 1e-12 * values[-1]
            step = vectors[:, kept] @ ((vectors[:, kept].T @ gradient) / values[kept])
            trial = theta - step
            trial_size = float(np.linalg.norm(self.objective(trial)[1]))
            if not trial_size < size:
                break
            theta, size = trial, trial_size
        return theta

    def certified(self, theta: np.ndarray) -> Means:
        a, b, U, V = self.split(theta)
        a = np.maximum(a, 0.0)
        left, values, right = (
            np.linalg.svd(U @ V.T, full_matrices=False) if self.G > 1 else (U, np.zeros(0), V.T)
        )
        values = np.where(values > NEGLIGIBLE * values.max(initial=0.0), values, 0.0)
        coarse = (self.basis @ ((left * values) @ right)) / (self.basis_scale * self.w)
        if not self.setting.bias:  # a constant in a free bias is nobody's
            b = b - self.K @ b / self.K.sum()
        own, other, total, losses = self.distributions(a, coarse + b[:, None])
        value = float(
            (self.K * self.share) @ losses
            + self.setting.rate * (((self.K - 1) * self.w) @ a + values.sum())
            + (self.setting.bias or 0.0) / 2 * self.K @ b**2
        )
        bound, own, other, total = self.lower_bound(own, other, total)
        return Means(a, coarse, b, value, bound, own, other, total)

    def lower_bound(self, own: Any, other: Any, total: Any) -> tuple[float, Any, Any, Any]:
        """Dual value at the model's distributions, made feasible; -inf where that fails."""
        lb = self.setting.bias
        if lb == 0:  # r = 0, by a shift of all columns
            excess = (total - np.eye(self.G)) @ (self.K * self.share) / self.K
            own, other, total = own - excess, other - excess, total - (self.K * excess)[:, None]
            if min(own.min(), other.min(), total.min()) < 0:
                return -np.inf, own, other, total
        within, by_Z = self.slopes(other, total)
        several = self.K > 1
        norms = np.abs(within[several] / ((self.K - 1) * self.w)[several])  # on the within-group part
        norm = max(
            float(np.linalg.norm(by_Z / (self.basis_scale * self.w), 2)), float(norms.max(initial=0.0))
        )
        kept = min(1.0, self.setting.rate / max(norm, 1e-300))
        eye = np.eye(self.G)
        missing = kept * (total.sum(axis=0) - np.diagonal(total) + (self.K - 1) * other)
        own, other, total = 1 - missing, kept * other, eye + kept * (total - eye)
        groups = np.where(eye == 1, 0.0, total / self.K[:, None])  # one class of another group
        entropy = -own * np.log1p(-missing) - (self.K - 1) * _xlogx(other) - self.K @ _xlogx(groups)
        bound = float((self.K * self.share) @ entropy)
        if lb:
            moment = (total - eye) @ (self.K * self.share)  # of all classes of a group together
            bound -= float(np.sum(moment**2 / self.K)) / (2 * lb)
        return bound, own, other, total


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))
