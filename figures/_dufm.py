"""Runs that the figures of the DUFM share: gradient descent from one random start, one run for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

import ufm
from ufm import plotting
from ufm.ensemble import ensemble
from ufm.run import Run
from ufm.trajectory import Trajectory

ALIVE = 1e-2  # of the largest entry; smaller rows are units that died out
PAPER = "Sukenik, Lampert, Mondelli, arXiv 2405.14468"
START = "W_l ~ N(0, 2/d), H_1 ~ N(0, 1/d)"  # of all these runs, in words


def train(
    problem: ufm.DUFM, decay: ufm.Coupled, lr: float, steps: int, seeds: Sequence[int], record: Any = None
) -> tuple[Trajectory, ...]:
    """One run of gradient descent for each seed; without `record` its first and last state alone are kept."""
    [width] = set(problem.widths)
    start = ufm.Start(ufm.Gaussian((2 / width) ** 0.5), H=ufm.Gaussian(width**-0.5))
    when = ufm.At([steps]) if record is None else record
    return ensemble(
        [Run(problem, ufm.GD(lr), decay, init=start, steps=steps, seed=seed, record=when) for seed in seeds]
    )


def last_ranks(runs: Sequence[Trajectory]) -> np.ndarray:
    """Rank of the class means of every layer before its ReLU at the end of each run, shape (runs, L)."""
    return np.stack([ufm.metrics.layer_ranks(run.problem, run.state(-1)) for run in runs]).astype(np.int32)


def last_losses(runs: Sequence[Trajectory]) -> np.ndarray:
    """Objective at the end of each run, shape (runs,)."""
    return np.array([run.loss[-1] for run in runs])


def ordered_units(M: np.ndarray) -> np.ndarray:
    """Rows of class means in an order that shows their patterns, and zeros below for units that died out."""
    size = np.abs(M).max(axis=1)
    alive = M[size > ALIVE * size.max()]
    signs = np.where(np.abs(alive) > ALIVE * size.max(), np.sign(alive), 0.0)
    order = np.lexsort((*np.round(alive.T[::-1], 2), *signs.T[::-1]))[::-1]
    return np.concatenate([alive[order], np.zeros((len(M) - len(alive), M.shape[1]))])


def runs_by_rank(ax: Axes, ranks: np.ndarray, ratio: np.ndarray, shown: tuple[float, float]) -> None:
    """Draw the loss ratio of every run beside its rank, the best one ringed; runs above the panel are counted."""
    places = ranks + 0.3 * np.sin(2.4 * np.arange(len(ranks)))
    ax.plot(places, ratio, "o", color=plotting.SIMULATION, markersize=2.4, markeredgewidth=0, label="runs")
    best = int(np.argmin(ratio))
    plotting.ring(ax, float(places[best]), float(ratio[best]))
    ax.set_ylim(*shown)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    above = int((ratio > shown[1]).sum())
    if above:
        ax.text(0.02, 0.98, f"{above} above", transform=ax.transAxes, va="top", fontsize=6.5)
