"""The learning rate over steps. A plain float means a constant rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ufm.arrays import Content
from ufm.checks import finite_array, fits, real, whole
from ufm.errors import invalid


@runtime_checkable
class Schedule(Protocol):
    """Anything with `rates(steps)`, the learning rate of each step, shape (steps,)."""

    def rates(self, steps: int) -> np.ndarray:
        """Return the rate of the update from t to t + 1 for t = 0 ... steps - 1."""
        ...


def _moment(where: str, value: Any) -> float | int:
    """A fraction of the run in (0, 1) as float, or a step as int."""
    if isinstance(value, float | np.floating):
        number = real(where, value, 0.0, allowed="fractions of the run in (0, 1), or steps >= 1")
        if 0.0 < number < 1.0:
            return number
        raise invalid(where, value, "fractions of the run in (0, 1), or steps >= 1")
    return whole(where, value, 1)


def _step(moment: float | int, steps: int) -> int:
    return int(moment * steps) if isinstance(moment, float) else moment


@dataclass(frozen=True)
class StepDecay:
    """Multiply the rate by `factor` at each moment in `at`.

    Parameters
    ----------
    lr : float
        Rate of the first steps, >= 0.
    at : sequence of float or int
        Moments: floats in (0, 1) are fractions of the run, ints are steps.
    factor : float
        Multiplier at each moment, >= 0.

    Raises
    ------
    InvalidProblemError
        For a negative or non-finite rate or factor, or a moment outside its range.

    Examples
    --------
    >>> StepDecay(1.0, at=(2, 4)).rates(6).round(3).tolist()
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    """

    lr: float
    at: Sequence[float | int] = (1 / 3, 2 / 3)
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", real("StepDecay.lr", self.lr, 0.0))
        object.__setattr__(self, "factor", real("StepDecay.factor", self.factor, 0.0))
        try:
            moments = tuple(_moment("StepDecay.at", moment) for moment in self.at)
        except TypeError:
            raise invalid("StepDecay.at", self.at, "a sequence of fractions in (0, 1) or of steps") from None
        object.__setattr__(self, "at", moments)

    def rates(self, steps: int) -> np.ndarray:
        """Return the rate of every step, shape (steps,)."""
        drops = np.zeros(steps, dtype=np.int64)
        for moment in self.at:
            drops[_step(moment, steps) :] += 1
        # What overflows is refused by `rates`.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.lr * self.factor**drops


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `lr` down to `final`, after a linear warm-up.

    Parameters
    ----------
    lr : float
        Largest rate, >= 0.
    final : float
        Rate that the cosine tends to at the end of the run, >= 0.
    warmup : int or float
        Steps (int) or fraction of the run (float in (0, 1)) of linear growth from lr/warmup to lr.

    Raises
    ------
    InvalidProblemError
        For negative or non-finite values.

    Examples
    --------
    >>> Cosine(1.0).rates(4).round(3).tolist()
    [1.0, 0.854, 0.5, 0.146]
    """

    lr: float
    final: float = 0.0
    warmup: float | int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", real("Cosine.lr", self.lr, 0.0))
        object.__setattr__(self, "final", real("Cosine.final", self.final, 0.0))
        none = isinstance(self.warmup, int | float | np.number) and self.warmup == 0
        object.__setattr__(self, "warmup", 0 if none else _moment("Cosine.warmup", self.warmup))

    def rates(self, steps: int) -> np.ndarray:
        """Return the rate of every step, shape (steps,)."""
        warm = min(_step(self.warmup, steps), steps)
        s = np.arange(steps - warm)
        fall = self.final + (self.lr - self.final) * 0.5 * (1.0 + np.cos(np.pi * s / max(steps - warm, 1)))
        # What overflows is refused by `rates`.
        with np.errstate(over="ignore"):
            rise = self.lr * np.arange(1, warm + 1) / max(warm, 1)
        return np.concatenate([rise, fall])


@dataclass(frozen=True)
class Rates:
    """A learning rate for every step, as given.

    Parameters
    ----------
    values : array_like, shape (steps,)
        Finite rates >= 0; a run may not have more steps than values.

    Raises
    ------
    InvalidProblemError
        For values that are not a finite, non-negative vector, or fewer values than steps.

    Examples
    --------
    >>> Rates([0.1, 0.2, 0.3]).rates(2).tolist()
    [0.1, 0.2]
    """

    values: Any

    def __post_init__(self) -> None:
        content = self.values if isinstance(self.values, Content) else Content("Rates.values", self.values)
        if content.array.ndim != 1 or content.array.size == 0 or (content.array < 0).any():
            raise invalid("Rates.values", self.values, "a non-empty vector of finite numbers >= 0")
        object.__setattr__(self, "values", content)

    def rates(self, steps: int) -> np.ndarray:
        """Return the rate of every step, shape (steps,)."""
        if steps > self.values.array.size:
            raise invalid("Rates.values", f"a vector of {self.values.array.size}", f"at least {steps} rates")
        return np.array(self.values.array[:steps])


def rates(lr: float | Schedule, steps: int) -> np.ndarray:
    """Learning rate of every step of a constant rate or a schedule, shape (steps,).

    Examples
    --------
    >>> rates(0.5, 3).tolist()
    [0.5, 0.5, 0.5]
    """
    steps = whole("simulate.steps", steps, 0, 2**48)
    fits("simulate.steps", f"the rates of {steps} steps", 3 * steps, "fewer steps, or a constant rate")
    lr = checked("optimizer.lr", lr)
    if isinstance(lr, float):
        return np.full(steps, lr)
    where = f"{type(lr).__name__}.rates({steps})"
    values = finite_array(where, lr.rates(steps))
    if values.shape != (steps,) or (values < 0).any():
        raise invalid(where, values, f"{steps} finite rates >= 0")
    return values


def checked(where: str, lr: Any) -> float | Schedule:
    """Return a rate that an optimizer can hold: a float >= 0 or a schedule."""
    # a float first: whether something is a schedule takes long to find out
    if not isinstance(lr, float) and isinstance(lr, Schedule) and not isinstance(lr, type):
        return lr
    return real(where, lr, 0.0, allowed="a finite number >= 0, or a schedule such as StepDecay(0.1)")
