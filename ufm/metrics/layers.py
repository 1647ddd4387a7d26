"""Metrics of every layer of a chain at once: class means before and behind the activation, their spectra, DNC1 to DNC3.

They take a trajectory, or a problem with one state, and return an array with an axis of length L behind that of the
records: entry l - 1 belongs to H_l (``stage="pre"``) or s(H_l) (``stage="post"``, the input of W_l), l = 1 ... L. The
activation acts on H_2 ... H_L, so both are the same at l = 1, and for linear chains. A normalised H_l is what stands
behind the normalisation, at either stage. M_l has the class means in its
columns; here they are not centred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ufm.checks import choice, real
from ufm.errors import invalid
from ufm.metrics.classes import Classes
from ufm.metrics.inputs import BLOCK, is_trajectory
from ufm.metrics.means import COLUMN, ROW, geometry, scaled, unit
from ufm.metrics.spectra import singular_values_and_vectors
from ufm.metrics.variability import inverse_trace, mean_over_pairs, quotient_of_traces, squared_norm
from ufm.normalisation import behind as behind_normalisation
from ufm.problems import Problem

STAGES = ("pre", "post")
RANK_TOLERANCE = 1e-2


class Layer(NamedTuple):
    """One layer at a block of records."""

    before: np.ndarray  # H_l, shape (..., d_l, N)
    behind: np.ndarray  # s(H_l)
    weights: np.ndarray  # W_l, shape (..., rows, d_l)
    classes: Classes

    def features(self, stage: str) -> np.ndarray:
        """H_l or s(H_l)."""
        return self.before if stage == "pre" else self.behind

    def means(self, stage: str) -> np.ndarray:
        """Class means of H_l or s(H_l), shape (..., d_l, K)."""
        return self.classes.means(self.classes.sorted(self.features(stage)))


def over_layers(
    where: str, source: Any, state: Mapping[str, Any] | None, metric: Callable[[Layer], np.ndarray]
) -> list[np.ndarray]:
    """Metric of every layer, over blocks of records that bound the memory; no warning leaves this function."""
    if is_trajectory(source):
        if state is not None:
            raise invalid(f"{where}.state", "a state beside a trajectory", "None with a trajectory")
        problem, blocks, records = source.problem, source.blocks, len(source)
    elif isinstance(source, Problem):
        if state is None:
            raise invalid(f"{where}.state", None, "a state, arrays by block name, beside a problem")
        problem, records = source, 1
        blocks = {
            name: value[None]
            for name, value in problem.unpack(problem.pack(getattr(state, "blocks", state))).items()
        }
    else:
        raise invalid(f"{where}.source", source, "a trajectory, or a problem with a state")
    classes = Classes.of(problem.labels)
    widest = max(prod(shape) for shape in (*problem.shapes.values(), (max(problem.widths), problem.samples)))
    size = max(1, BLOCK // widest)
    found: list[list[np.ndarray]] = [[] for _ in range(problem.depth)]
    with np.errstate(all="ignore"):
        for start in range(0, records, size):
            chosen = slice(start, start + size)
            at = {name: np.asarray(block[chosen], np.float64) for name, block in blocks.items()}
            before = behind_normalisation(problem, at, 1, at["H"])
            for layer in range(1, problem.depth + 1):
                rectified = layer > 1 and problem.activation == "relu"
                behind = np.maximum(before, 0.0) if rectified else before
                weights = at[f"W{layer}"]
                found[layer - 1].append(metric(Layer(before, behind, weights, classes)))
                if layer < problem.depth:
                    before = behind_normalisation(problem, at, layer + 1, weights @ behind)
    joined = [np.concatenate(parts) for parts in found]
    return joined if is_trajectory(source) else [array[0] for array in joined]


def _stacked(where: str, source: Any, state: Any, metric: Callable[[Layer], np.ndarray]) -> np.ndarray:
    return np.stack(over_layers(where, source, state, metric), axis=1 if is_trajectory(source) else 0)


def layer_means(
    source: Any, state: Mapping[str, Any] | None = None, *, stage: str = "post"
) -> tuple[np.ndarray, ...]:
    """Class means M_l of every layer, not centred.

    Parameters
    ----------
    source : Trajectory or Problem
        A run, or what was minimised.
    state : mapping of str to array_like, optional
        With a problem: the trained blocks by name, of the shapes in ``problem.shapes``, or a Solution.
    stage : {"post", "pre"}
        Behind the activation, or before it.

    Returns
    -------
    tuple of ndarray, each of shape (records, d_l, K)
        Without the axis of the records for a single state; so in all metrics here.

    Raises
    ------
    InvalidProblemError
        For another stage, or a state that does not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=1, per_class=2)
    >>> layer_means(problem, {"W": [[1.0], [0.0]], "H": [[1.0, 3.0, 0.0, 4.0]]})[0].tolist()
    [[2.0, 2.0]]
    """
    choice("layer_means.stage", stage, STAGES)
    return tuple(over_layers("layer_means", source, state, lambda layer: layer.means(stage)))


def layer_grams(source: Any, state: Mapping[str, Any] | None = None, *, stage: str = "post") -> np.ndarray:
    """Gram matrices M_l^T M_l of the class means of every layer; rotations of a layer do not change them.

    Parameters
    ----------
    source, state, stage
        As for `layer_means`.

    Returns
    -------
    ndarray, shape (records, L, K, K)

    Raises
    ------
    InvalidProblemError
        For another stage, or a state that does not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=2)
    >>> layer_grams(problem, {"W": np.eye(2), "H": [[0.0, 3.0], [3.0, 0.0]]}).tolist()
    [[[9.0, 0.0], [0.0, 9.0]]]
    """
    choice("layer_grams.stage", stage, STAGES)

    def gram(layer: Layer) -> np.ndarray:
        M = layer.means(stage)
        products: np.ndarray = np.swapaxes(M, -1, -2) @ M
        return products

    return _stacked("layer_grams", source, state, gram)


def _spectrum(layer: Layer, stage: str) -> np.ndarray:
    """K singular values of the class means, 0 beyond the width."""
    _, s = singular_values_and_vectors(layer.means(stage))
    missing = layer.classes.count - s.shape[-1]
    return np.concatenate([s, np.where(np.isnan(s[..., :1]), np.nan, np.zeros((*s.shape[:-1], missing)))], -1)


def layer_spectra(source: Any, state: Mapping[str, Any] | None = None, *, stage: str = "post") -> np.ndarray:
    """Singular values of the class means M_l of every layer, largest first, 0 beyond the width.

    Parameters
    ----------
    source, state, stage
        As for `layer_means`.

    Returns
    -------
    ndarray, shape (records, L, K)
        nan where the class means are not finite.

    Raises
    ------
    InvalidProblemError
        For another stage, or a state that does not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=2)
    >>> layer_spectra(problem, {"W": np.eye(2), "H": [[0.0, 2.0], [3.0, 0.0]]}).tolist()
    [[3.0, 2.0]]
    """
    choice("layer_spectra.stage", stage, STAGES)
    return _stacked("layer_spectra", source, state, lambda layer: _spectrum(layer, stage))


def layer_ranks(
    source: Any,
    state: Mapping[str, Any] | None = None,
    *,
    stage: str = "pre",
    tolerance: float = RANK_TOLERANCE,
) -> np.ndarray:
    """Numerical rank of the class means M_l of every layer: singular values above `tolerance` times the largest.

    Parameters
    ----------
    source, state, stage
        As for `layer_means`; before the activation by default, where low-rank solutions differ from neural collapse.
    tolerance : float
        Share of the largest singular value, in [0, 1). The default, a hundredth, is for states that a run has found:
        fixed steps stall at a distance from kinks. For written states give 1e-10.

    Returns
    -------
    ndarray, shape (records, L)
        Whole numbers as floats, 0 for zeros; nan where the class means are not finite.

    Raises
    ------
    InvalidProblemError
        For another stage or tolerance, or a state that does not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.DUFM(classes=2, width=2, depth=2)
    >>> state = {"H": [[1.0, -1.0], [0.0, 0.0]], "W1": [[1.0, 0.0], [-1.0, 0.0]], "W2": [[1.0, 0.0], [0.0, 1.0]]}
    >>> layer_ranks(problem, state).tolist(), layer_ranks(problem, state, stage="post").tolist()
    ([1.0, 1.0], [1.0, 2.0])
    """
    choice("layer_ranks.stage", stage, STAGES)
    share = real("layer_ranks.tolerance", tolerance, 0.0, 1.0)

    def count(layer: Layer) -> np.ndarray:
        s = _spectrum(layer, stage)
        return np.where(np.isnan(s[..., 0]), np.nan, (s > share * s[..., :1]).sum(axis=-1))

    return _stacked("layer_ranks", source, state, count)


DNC1_FORMS = {
    "pinv": lambda layer, stage: inverse_trace(*_with_cutoff(layer, stage)),
    "quotient": lambda layer, stage: quotient_of_traces(geometry(layer.features(stage), layer.classes)),
    "frobenius": lambda layer, stage: squared_norm(*_with_cutoff(layer, stage)),
    "cdnv": lambda layer, stage: mean_over_pairs(geometry(layer.features(stage), layer.classes), layer.classes),
}  # fmt: skip


def _with_cutoff(layer: Layer, stage: str) -> tuple[Any, float]:
    """Geometry of the features, and what counts as 0 in the pseudoinverse: the default of `ufm.metrics.nc1`."""
    H = layer.features(stage)
    return geometry(H, layer.classes), H.shape[-2] * 2.0**-52


def dnc1(
    source: Any, state: Mapping[str, Any] | None = None, form: str = "pinv", *, stage: str = "post"
) -> np.ndarray:
    """DNC1 of every layer: spread within classes against distances between their means.

    Parameters
    ----------
    source, state, stage
        As for `layer_means`.
    form : {"pinv", "quotient", "frobenius", "cdnv"}
        tr(Sigma_W pinv(Sigma_B))/K; tr(Sigma_W)/tr(Sigma_B); ||Sigma_W pinv(Sigma_B)||_F^2; `ufm.metrics.cdnv`. The
        first two are `ufm.metrics.nc1`, of any layer and at either stage.

    Returns
    -------
    ndarray, shape (records, L)
        0 with one sample per class; nan where all class means coincide.

    Raises
    ------
    InvalidProblemError
        For another form or stage, or a state that does not fit the problem.

    Notes
    -----
    "frobenius" is what a public reproduction of arXiv 2404.06106 computes (recalled).

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=1, per_class=2)
    >>> state = {"W": [[1.0], [0.0]], "H": [[-3.0, -1.0, 1.0, 3.0]]}
    >>> [round(float(dnc1(problem, state, form)[0]), 6) for form in DNC1_FORMS]
    [0.125, 0.25, 0.0625, 0.0625]
    """
    choice("dnc1.form", form, tuple(DNC1_FORMS))
    choice("dnc1.stage", stage, STAGES)
    return _stacked("dnc1", source, state, lambda layer: DNC1_FORMS[form](layer, stage))


def dnc2(source: Any, state: Mapping[str, Any] | None = None, *, stage: str = "post") -> np.ndarray:
    """DNC2 of every layer, for MSE with ReLU: ||G/||G||_F - I/sqrt(K)||_F with G = M_l^T M_l.

    0 where the class means are an orthogonal frame: pairwise orthogonal and of equal norms. For the simplex of
    cross-entropy and of trained biases use `ufm.metrics.nc2` with ``layer=l``.

    Parameters
    ----------
    source, state, stage
        As for `layer_means`.

    Returns
    -------
    ndarray, shape (records, L)
        Between 0 and sqrt(2 - 2/sqrt(K)), which means of rank 1 reach; nan where all class means are 0.

    Raises
    ------
    InvalidProblemError
        For another stage, or a state that does not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=2)
    >>> dnc2(problem, {"W": [[1.0, 0.0], [0.0, 1.0]], "H": [[0.0, 3.0], [3.0, 0.0]]}).round(12).tolist()
    [0.0]
    """
    choice("dnc2.stage", stage, STAGES)

    def distance(layer: Layer) -> np.ndarray:
        M = scaled(layer.means(stage))
        K = M.shape[-1]
        difference = unit(np.swapaxes(M, -1, -2) @ M) - np.eye(K) / np.sqrt(K)
        norm: np.ndarray = np.linalg.norm(difference, axis=(-2, -1))
        return norm

    return _stacked("dnc2", source, state, distance)


def dnc3(source: Any, state: Mapping[str, Any] | None = None) -> np.ndarray:
    """DNC3 of every layer: how far rows of W_l are from collinear with a column of the class means of s(H_l).

    sqrt(sum_i ||w_i||^2 min_k (1 - cos(w_i, mu_k)^2))/||W_l||_F: the share of the weights that is orthogonal to the
    nearest class mean. 0 where every row is 0 or collinear with a class mean, of either sign.

    Parameters
    ----------
    source, state
        As for `layer_means`.

    Returns
    -------
    ndarray, shape (records, L)
        Between 0 and 1; nan where W_l or all class means are 0.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=2, width=2)
    >>> dnc3(problem, {"W": [[0.0, 1.0], [-2.0, 0.0]], "H": [[0.0, 3.0], [3.0, 0.0]]}).tolist()
    [0.0]
    """

    def share(layer: Layer) -> np.ndarray:
        W, M = scaled(layer.weights), layer.means("post")
        M = scaled(M, COLUMN)
        M = M / np.linalg.norm(M, axis=COLUMN, keepdims=True)
        M = np.where(np.isnan(M) & np.isfinite(layer.means("post")), 0.0, M)  # no row is collinear with 0
        rows = scaled(W, ROW)
        rows = rows / np.linalg.norm(rows, axis=ROW, keepdims=True)
        nearest = np.abs(rows @ M).argmax(axis=-1)
        column = np.take_along_axis(np.swapaxes(M, -1, -2), nearest[..., None], axis=-2)
        left = (
            rows - (rows * column).sum(axis=-1, keepdims=True) * column
        )  # not 1 - cos^2, which would cancel
        squares = (W**2).sum(axis=-1)
        away = np.where(squares > 0, squares * (left**2).sum(axis=-1), 0.0)
        total = squares.sum(axis=-1)
        empty = (M == 0).all(axis=(-2, -1)) | ~np.isfinite(layer.weights).all(axis=(-2, -1))
        return np.where(empty | (total == 0), np.nan, np.sqrt(away.sum(axis=-1) / total))

    return _stacked("dnc3", source, state, share)
