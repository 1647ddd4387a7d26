"""A run before it is simulated: everything that decides its numbers, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import choice, whole
from ufm.decay import Decay, per_block
from ufm.errors import invalid
from ufm.initial import Gaussian, Given, Start, is_initialiser
from ufm.losses import UserLoss
from ufm.normalisation import refuse_signs
from ufm.problems import Problem
from ufm.record import Every
from ufm.schedules import rates

if TYPE_CHECKING:
    from ufm.trajectory import Trajectory


@dataclass(frozen=True)
class Run:
    """Description of a run; the theory reads it, and with a trajectory it can be judged.

    Parameters
    ----------
    problem : UFM or DUFM
        What is minimised.
    optimizer : Optimizer
        How a step is taken.
    decay : Coupled, Decoupled or Mixed, optional
        Where weight decay acts; None: nowhere.
    init : initialiser or mapping, optional
        Where the run starts; Gaussian(0.1) by default.
    steps : int, optional
        Number of updates.
    seed : int
        Root of all random numbers: starts and batch order.
    record : Every, LogSpaced or At
        Which steps are kept.
    batch : int, optional
        Mini-batch size; None means full batch.
    dtype : {"float64", "float32"}
        Precision in which state, gradient and buffers are held; the arithmetic on single numbers between
        loading and storing them may be wider.
    trajectory : Trajectory, optional
        The simulated run.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a field that is not allowed, in one sentence.
    """

    problem: Any
    optimizer: Any
    decay: Decay | None = None
    init: Any = None
    steps: int | None = None
    seed: int = 0
    record: Any = field(default_factory=Every)
    batch: int | None = None
    dtype: str = "float64"
    trajectory: Trajectory | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if not isinstance(self.problem, Problem):
            raise invalid("simulate.problem", self.problem, "a problem such as UFM(classes=10, width=64)")
        optimizer = self.optimizer
        wanted = ("lr", "rule", "hyper", "scale_free", "elementwise", "buffers")
        if isinstance(optimizer, type) or not all(hasattr(optimizer, name) for name in wanted):
            raise invalid("simulate.optimizer", optimizer, "an optimizer such as GD(0.1)")
        if optimizer.buffers not in (0, 1, 2):
            raise invalid("simulate.optimizer.buffers", optimizer.buffers, "0, 1 (m) or 2 (m and v)")
        if self.optimizer.scale_free:
            refuse_signs(f"simulate.optimizer, {optimizer!r}", self.problem)
        if self.init is None:
            put(self, "init", Gaussian(0.1))
        if isinstance(self.init, Mapping) and all(isinstance(name, str) for name in self.init):
            put(self, "init", Given(**self.init))
        if not (is_initialiser(self.init) or isinstance(self.init, Start)):
            raise invalid(
                "simulate.init",
                self.init,
                "an initialiser such as Gaussian(0.1), Start(W=..., H=...), arrays by block name, or the .start of a "
                "solution",
            )
        if isinstance(self.record, type) or not callable(getattr(self.record, "steps", None)):
            raise invalid("simulate.record", self.record, "Every(n), LogSpaced(count) or At(steps)")
        if self.steps is not None:
            put(self, "steps", whole("simulate.steps", self.steps, 0))
        put(self, "seed", whole("simulate.seed", self.seed, 0))
        choice("simulate.dtype", self.dtype, ("float64", "float32"))
        if self.batch is not None:
            put(self, "batch", whole("simulate.batch", self.batch))
            if self.batch > self.problem.samples:
                raise invalid("simulate.batch", self.batch, f"at most the {self.problem.samples} samples")
        _ = self._decay_rates

    @property
    def in_batches(self) -> bool:
        """Whether a step sees some of the samples only."""
        return self.batch is not None and self.batch < self.problem.samples

    @property
    def separable(self) -> bool:
        """Whether a step does to each sample and to each coordinate what does not depend on the others.

        So it is with full batches, losses of ours, chains without normalisation, and rules of ours that act on each
        coordinate by itself.
        """
        from ufm.kernels.updates import in_lanes

        return (
            in_lanes(self.optimizer)
            and not isinstance(self.problem.loss, UserLoss)
            and self.problem.normalisation is None
            and not self.in_batches
        )

    @property
    def operations(self) -> float:
        """Rough number of floating-point operations of a step: those of its matrix products and its update."""
        sizes = (*self.problem.widths, self.problem.classes)
        weights = sum(rows * columns for columns, rows in pairwise(sizes))
        return float(6 * weights * (self.batch or self.problem.samples) + 20 * self.problem.size)

    @property
    def coupled(self) -> Mapping[str, float]:
        """Coupled rate of every trained block by name; 0 where there is none."""
        return self._decay_rates[0]

    @property
    def decoupled(self) -> Mapping[str, float]:
        """Decoupled rate of every trained block by name; 0 where there is none."""
        return self._decay_rates[1]

    @cached_property
    def _decay_rates(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return per_block(self.decay, self.problem)

    @cached_property
    def rates(self) -> np.ndarray:
        """Learning rate of every step, shape (steps,)."""
        if self.steps is None:
            raise ValueError("Run.steps is None; the rates of a schedule need the number of steps.")
        lr = self.optimizer.lr
        if isinstance(lr, float) and self.steps > 0:  # takes no memory, however many steps and runs there are
            return np.broadcast_to(rates(lr, 1), whole("simulate.steps", self.steps, 0, 2**48))
        return rates(lr, self.steps)
