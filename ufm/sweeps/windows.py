"""Metrics over the records of many runs: as many at a time as fit the cache, what they share computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.metrics.inputs import BLOCK
from ufm.metrics.means import shared_geometry
from ufm.problems import Problem
from ufm.trajectory import Trajectory

if TYPE_CHECKING:
    from ufm.sweeps.measures import Measure


@dataclass(eq=False)
class Window:
    """Records of one or several runs of one problem, as a metric reads a trajectory.

    Parameters
    ----------
    records : Trajectory
        Any of the runs, with the states of the records instead of its own.
    """

    records: Trajectory
    _features: dict[int | None, np.ndarray] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """What was minimised."""
        return self.records.problem

    def __len__(self) -> int:
        return len(self.records.states)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.records[name]

    def features(self, layer: int | None = None, records: slice = slice(None)) -> np.ndarray:
        """Input of a layer; the same array for every metric that asks for all records."""
        if layer not in self._features:
            self._features[layer] = self.records.features(layer)
        found = self._features[layer]
        return found if len(range(len(self))[records]) == len(self) else found[records]


def over_windows(
    measures: Sequence[Measure], trajectories: Sequence[Trajectory]
) -> dict[str, list[np.ndarray]]:
    """Values of measures at all records of runs of one problem.

    Parameters
    ----------
    measures : sequence of Measure
        Which read the states of records one by one.
    trajectories : sequence of Trajectory
        The runs.

    Returns
    -------
    dict of str to list of ndarray, shape (records,)
        By name, an array for each run; equal to the bit to those of one run at a time.
    """
    parts: dict[str, list[np.ndarray]] = {measure.name: [] for measure in measures}
    for window in _windows(trajectories) if measures else ():
        with shared_geometry():
            for measure in measures:
                parts[measure.name].append(measure.of(window))
    ends = np.cumsum([len(trajectory) for trajectory in trajectories])[:-1]
    return {name: np.split(np.concatenate(values), ends) for name, values in parts.items()}


def _windows(trajectories: Sequence[Trajectory]) -> Iterator[Window]:
    """All records in turn, so many at a time that the metrics' own blocks are not smaller."""
    first = trajectories[0]
    problem = first.problem
    shapes = [problem.shapes[f"W{layer}"] for layer in range(1, problem.depth + 1)]
    entries = max(
        max(rows, columns, problem.classes) * max(columns, problem.samples, problem.classes)
        for rows, columns in shapes
    )
    size = max(1, BLOCK // entries)
    waiting, held = [], 0
    for trajectory in trajectories:
        states = trajectory.states
        while held + len(states) >= size:
            waiting.append(states[: size - held])
            states, held = states[size - held :], 0
            yield _window(first, waiting)
            waiting = []
        waiting.append(states)
        held += len(states)
    if held:
        yield _window(first, waiting)


def _window(first: Trajectory, parts: Sequence[np.ndarray]) -> Window:
    states = parts[0] if len(parts) == 1 else np.concatenate(parts)
    nothing: Any = np.zeros(len(states))
    return Window(replace(first, states=states, steps=nothing, fit=nothing, penalty=nothing))
