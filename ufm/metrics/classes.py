"""Which samples belong to which class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ufm.errors import invalid


@dataclass(frozen=True, eq=False)
class Classes:
    """Which columns of H belong to which class.

    Parameters
    ----------
    order : ndarray of int, shape (N,), or None
        Columns in the order of their classes; None where they stand in it.
    counts : ndarray of int, shape (K,)
        Samples of each class, none 0.
    """

    order: np.ndarray | None
    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray) -> Classes:
        """Classes of these labels 0 ... K - 1, or the sentence that names those without a sample."""
        counts = np.bincount(labels)
        if not counts.all():
            missing = np.flatnonzero(counts == 0).tolist()
            raise invalid("class_means: classes without a sample", missing, "none")
        in_order = bool((labels[1:] >= labels[:-1]).all())
        return cls(None if in_order else np.argsort(labels, kind="stable"), counts)

    @property
    def count(self) -> int:
        """Number K of classes."""
        return len(self.counts)

    def sorted(self, H: np.ndarray) -> np.ndarray:
        """Columns of H by class."""
        return H if self.order is None else H[..., self.order]

    def sums(self, H: np.ndarray) -> np.ndarray:
        """Sum over the samples of each class, for columns by class, shape (..., K)."""
        return np.add.reduceat(H, np.cumsum(self.counts) - self.counts, axis=-1)

    def means(self, H: np.ndarray) -> np.ndarray:
        """Mean over the samples of each class, for columns by class, shape (..., K)."""
        means: np.ndarray = self.sums(H) / self.counts
        return means

    def spread(self, means: np.ndarray) -> np.ndarray:
        """The mean of its class for every sample, shape (..., N)."""
        return np.repeat(means, self.counts, axis=-1)
