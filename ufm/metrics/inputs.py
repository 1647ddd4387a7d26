"""What a metric is given: a trajectory, or arrays with leading batch axes, read a block of records at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ufm.checks import array_of, whole
from ufm.errors import invalid
from ufm.metrics.classes import Classes

BLOCK = 2**18  # numbers in the largest array of one block of records: 2 MiB, so that passes stay in the cache

ALONE = "a trajectory alone, or arrays alone"


@dataclass(frozen=True, eq=False)
class RecordedFeatures:
    """Input of one layer at every record of a trajectory, computed for the records that are asked for.

    Parameters
    ----------
    trajectory : Trajectory
        A run with its records.
    layer : int or None
        1 ... depth; None for the last layer.
    """

    trajectory: Any
    layer: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Records, width of the layer's input, samples."""
        problem = self.trajectory.problem
        layer = problem.depth if self.layer is None else self.layer
        return (len(self.trajectory), problem.widths[layer - 1], problem.samples)

    def __getitem__(self, records: slice) -> np.ndarray:
        features: np.ndarray = self.trajectory.features(self.layer, records)
        return features


Source = np.ndarray | RecordedFeatures


def is_trajectory(value: Any) -> bool:
    """Whether `value` is a run with records rather than an array."""
    return hasattr(value, "features") and hasattr(value, "problem")


def numbers(where: str, value: Any, kinds: str = "iuf") -> np.ndarray:
    """`value` as an array of one of these kinds of dtype; its entries need not be finite."""
    allowed = "an array of real numbers" if "f" in kinds else "whole numbers 0 ... K - 1"
    return array_of(where, value, kinds, allowed)


def read_layer(where: str, value: Any, layer: int | None) -> int | None:
    """The layer asked for; None for the last one, and for plain arrays, which have no layers."""
    if layer is None:
        return None
    if not is_trajectory(value):
        raise invalid(f"{where}.layer", layer, "None with plain arrays")
    return whole(f"{where}.layer", layer, 1, value.problem.depth)


def read_class_weights(where: str, W: Any, layer: int | None = None) -> np.ndarray:
    """Weights as `read_weights`, of a problem whose outputs are classes."""
    if is_trajectory(W):
        _ = W.problem.labels  # raises where there are none
    return read_weights(where, W, layer)


def read_weights(where: str, W: Any, layer: int | None = None) -> np.ndarray:
    """Weights of a layer, or the array itself, shape (..., rows, width)."""
    layer = read_layer(where, W, layer)
    if is_trajectory(W):
        W = W["W" if layer is None else f"W{layer}"]
    weights = numbers("metrics.W", W)
    if weights.ndim < 2 or 0 in weights.shape[-2:]:
        raise invalid("metrics.W.shape", weights.shape, "(..., classes, width), both at least 1")
    return weights


def read_features(where: str, H: Any, labels: Any, layer: int | None = None) -> tuple[Source, Classes]:
    """Features (..., width, N) and their classes, from a trajectory or from the arrays."""
    layer = read_layer(where, H, layer)
    if is_trajectory(H):
        if labels is not None:
            raise invalid(where, "trajectory and arrays", ALONE)
        return RecordedFeatures(H, layer), Classes.of(H.problem.labels)
    if H is None or labels is None:
        raise invalid(where, "no features or labels", "a trajectory, or arrays with H and labels")
    H, labels = numbers(f"{where}.H", H), numbers(f"{where}.labels", labels, "iu")
    if H.ndim < 2 or 0 in H.shape[-2:] or labels.shape != H.shape[-1:]:
        raise invalid(f"{where}: shapes of H, labels", (H.shape, labels.shape), "(..., width, N) and (N,)")
    # With a sample in every class there are no more classes than samples.
    if labels.min() < 0 or labels.max() >= labels.size:
        raise invalid(f"{where}.labels", labels, "whole numbers 0 ... K - 1, each at least once")
    return H, Classes.of(labels.astype(np.int64))


def read_both(
    where: str, W: Any, H: Any, labels: Any, layer: int | None
) -> tuple[np.ndarray, Source, Classes]:
    """Weights and features that fit each other, a row of W for each class."""
    if is_trajectory(H) or (is_trajectory(W) and H is not None):
        raise invalid(where, "trajectory and arrays", ALONE)
    features, classes = read_features(where, W if is_trajectory(W) else H, labels, layer)
    weights = read_weights(where, W, layer)
    expected = (classes.count, features.shape[-2])
    if weights.shape[-2:] != expected:
        allowed = f"(..., {expected[0]}, {expected[1]}), classes x width of H"
        raise invalid(f"{where}.W.shape", weights.shape, allowed)
    return weights, features, classes


def read_bias(where: str, W: Any, b: Any, count: int, layer: int | None) -> np.ndarray:
    """Bias of the layer as columns, shape (..., count, 1): the model's own, `b`, or 0."""
    if is_trajectory(W):
        if b is not None:
            raise invalid(where, "trajectory and bias", ALONE)
        if W.problem.bias and layer in (None, W.problem.depth):
            b = W["b"]
    bias = numbers(f"{where}.b", np.zeros(count) if b is None else b)
    if bias.shape[-1:] != (count,):
        raise invalid(f"{where}.b.shape", bias.shape, f"(..., {count})")
    return bias[..., None]


def over_records(
    metric: Callable[..., np.ndarray], *sources: Source, largest: tuple[int, int] = (1, 1)
) -> Any:
    """Metric of matrices with leading batch axes, over blocks of the first axis that bound the memory.

    Parameters
    ----------
    metric : callable
        Takes one float64 array of shape (..., rows, columns) for each source, broadcasts over leading axes,
        and may divide by zero or meet entries that are not finite: no warning leaves this function.
    *sources : ndarray or RecordedFeatures
        Their leading axes broadcast against each other.
    largest : tuple of int
        Shape of the largest matrix that `metric` makes for one record, where larger than its input.

    Returns
    -------
    ndarray or float, shape (...) or (..., more)
    """
    try:
        lead = np.broadcast_shapes(*(source.shape[:-2] for source in sources))
    except ValueError:
        shapes = tuple(source.shape for source in sources)
        raise invalid("metrics: shapes of the arrays", shapes, "leading axes that broadcast") from None
    with np.errstate(all="ignore"):
        if not lead:
            return metric(*(_float64(source, ()) for source in sources))[()]
        entries = max(prod(shape) for shape in (largest, *(source.shape[-2:] for source in sources)))
        size = max(1, BLOCK // (entries * max(1, prod(lead[1:]))))
        starts = range(0, max(1, lead[0]), size)
        return np.concatenate(
            [metric(*(_float64(s, lead, slice(start, start + size)) for s in sources)) for start in starts]
        )


def _float64(source: Source, lead: tuple[int, ...], records: slice = slice(None)) -> np.ndarray:
    """These records of a source; one without the first leading axis, or with length 1 there, serves all."""
    if len(source.shape) - 2 < len(lead) or (lead and source.shape[0] == 1 != lead[0]):
        records = slice(None)
    return np.asarray(source[records] if lead else source, dtype=np.float64)
