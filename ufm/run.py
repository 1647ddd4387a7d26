"""A run before it is simulated: everything that decides its numbers, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.decay import Decay, per_block
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
    init : initialiser, optional
        Where the run starts.
    steps : int, optional
        Number of updates.
    seed : int
        Root of all random numbers: starts and batch order.
    record : Every, LogSpaced or At
        Which steps are kept.
    batch : int, optional
        Mini-batch size; None means full batch.
    dtype : {"float64", "float32"}
        Precision of the whole run.
    trajectory : Trajectory, optional
        The simulated run.
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
        return rates(self.optimizer.lr, self.steps)
