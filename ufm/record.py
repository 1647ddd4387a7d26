"""Which steps of a run are kept. The first and the last always are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ufm.checks import fits, whole
from ufm.errors import invalid

MOST_RECORDS = 2**32


class Record(Protocol):
    """Anything with `steps(total)`, the recorded steps in increasing order."""

    def steps(self, total: int) -> np.ndarray:
        """Return the recorded step indices between 0 and `total`, both included."""
        ...


def _with_ends(steps: np.ndarray, total: int) -> np.ndarray:
    return np.unique(np.concatenate([[0], steps, [total]])).astype(np.int64)


@dataclass(frozen=True)
class Every:
    """Keep every n-th step.

    Parameters
    ----------
    n : int
        >= 1.

    Raises
    ------
    InvalidProblemError
        For an n that is no whole number >= 1.

    Examples
    --------
    >>> Every(20).steps(50).tolist()
    [0, 20, 40, 50]
    """

    n: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("Every.n", self.n))

    def steps(self, total: int) -> np.ndarray:
        """Return the recorded step indices."""
        fits(
            "Every.n", f"the records of {total} steps", 3 * (total // self.n), "a larger n, or LogSpaced(100)"
        )
        return _with_ends(np.arange(0, total + 1, self.n), total)


@dataclass(frozen=True)
class LogSpaced:
    """Keep about `count` steps, evenly spaced in the logarithm of 1 + t.

    Parameters
    ----------
    count : int
        >= 2; the first and the last step are among them.

    Raises
    ------
    InvalidProblemError
        For a count that is no whole number >= 2, or of more records than memory holds.

    Examples
    --------
    >>> LogSpaced(4).steps(1000).tolist()
    [0, 9, 99, 1000]
    """

    count: int = 300

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", whole("LogSpaced.count", self.count, 2))
        if self.count > MOST_RECORDS:
            raise invalid("LogSpaced.count", self.count, f"a whole number from 2 to {MOST_RECORDS}")

    def steps(self, total: int) -> np.ndarray:
        """Return the recorded step indices."""
        fits("LogSpaced.count", "its records", 3 * self.count, "a smaller count")
        return _with_ends(np.rint(np.geomspace(1, total + 1, self.count)) - 1, total)


@dataclass(frozen=True)
class At:
    """Keep the steps given; steps beyond the end of the run are refused.

    Parameters
    ----------
    at : sequence of int
        Steps >= 0, in any order.

    Raises
    ------
    InvalidProblemError
        For a step that is no whole number >= 0.

    Examples
    --------
    >>> At([5, 2]).steps(10).tolist()
    [0, 2, 5, 10]
    """

    at: Sequence[int]

    def __post_init__(self) -> None:
        try:
            given = tuple(sorted({whole("At.at", step, 0) for step in self.at}))
        except TypeError:
            raise invalid("At.at", self.at, "a sequence of steps >= 0") from None
        object.__setattr__(self, "at", given)

    def steps(self, total: int) -> np.ndarray:
        """Return the recorded step indices."""
        if self.at and self.at[-1] > total:
            raise invalid("At.at", self.at[-1], f"steps up to the end of the run, {total}")
        return _with_ends(np.array(self.at, dtype=np.int64), total)


def planned_steps(record: Record, total: int) -> np.ndarray:
    """Steps to record of a run of `total` steps, with the first and the last.

    Raises
    ------
    InvalidProblemError
        If the record's own `steps` gives anything but whole numbers from 0 to `total`.
    """
    given = np.asarray(record.steps(total))
    if given.ndim != 1 or (
        given.size and (given.dtype.kind not in "iu" or given.min() < 0 or given.max() > total)
    ):
        raise invalid(f"{type(record).__name__}.steps({total})", given, f"whole numbers from 0 to {total}")
    return _with_ends(given, total)
