"""flow(problem, decay, times=...) -> Flow: gradient flow of the objective, the limit of small steps of GD.

    d theta/dt = -gradient(theta) of fit + sum lam/2 ||B||_F^2

Step t of ``simulate(problem, GD(lr), decay)`` from the same start approximates the flow at time t lr, to first order
in lr.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import choice, finite_array, real, whole
from ufm.decay import Decay
from ufm.errors import DivergedError, invalid
from ufm.initial import Gaussian, Given, draw
from ufm.normalisation import constant_row
from ufm.problems import Blocks, Problem
from ufm.stepping import progress_bar
from ufm.trajectory import Trajectory

if TYPE_CHECKING:
    from ufm.kernels.hessian import Objective

METHODS = ("DOP853", "LSODA", "Radau")
LEAST_TOLERANCE = 1e-13  # the solvers do not get below 100 times the spacing of float64


@dataclass(frozen=True)
class FlowStatus:
    """How an integration ended.

    Parameters
    ----------
    name : {"completed", "diverged"}
        In one word.
    time : float
        Time reached.
    reason : str
        In one sentence.
    """

    name: str
    time: float
    reason: str

    def __str__(self) -> str:
        return f"{self.name} at time {self.time:g}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Flow:
    """An integrated gradient flow; metrics read it as they read a `Trajectory`.

    Record i is the state at ``times[i]``.

    Parameters
    ----------
    problem, decay
        What was minimised.
    times : ndarray, shape (times,)
        Times of the records, increasing.
    states : ndarray, shape (times, trained size)
        Trained blocks, flat.
    fit, penalty : ndarray, shape (times,)
        Loss over the data, and sum of lam/2 ||B||_F^2.
    status : FlowStatus
        How the integration ended.
    stats : mapping
        Seconds, steps of the solver, evaluations of the gradient.
    provenance : mapping
        Arguments, versions and machine.

    Examples
    --------
    >>> import ufm
    >>> found = ufm.flow(ufm.UFM(classes=3, width=4), times=[0, 1])
    >>> found["W"].shape, found.loss.shape
    ((2, 3, 4), (2,))
    """

    problem: Problem
    decay: Decay | None
    times: np.ndarray
    states: np.ndarray
    fit: np.ndarray
    penalty: np.ndarray
    status: FlowStatus
    stats: Mapping[str, Any] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        for array in (self.times, self.states, self.fit, self.penalty):
            array.setflags(write=False)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: the blocks are views of the states, which a pickle would repeat."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def loss(self) -> np.ndarray:
        """Objective at each record: fit + penalty, shape (times,)."""
        loss: np.ndarray = self.fit + self.penalty
        return loss

    @cached_property
    def blocks(self) -> Blocks:
        """Blocks by name, each of shape (times, ...); frozen ones are repeated without a copy."""
        frozen = {
            name: np.broadcast_to(value, (len(self), *value.shape))
            for name, value in self.problem.frozen_values.items()
        }
        arrays = {**self.problem.unpack(self.states), **frozen}
        return Blocks({name: arrays[name] for name in self.problem.blocks}, self.problem.last)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.blocks[name]

    def __len__(self) -> int:
        return len(self.times)

    def state(self, i: int) -> Blocks:
        """All blocks at record i by name."""
        return Trajectory.state(self, i)  # type: ignore[arg-type]

    def features(self, layer: int | None = None, records: slice = slice(None)) -> np.ndarray:
        """Input of a layer, after the activation, as `Trajectory.features`."""
        return Trajectory.features(self, layer, records)  # type: ignore[arg-type]

    def logits(self) -> np.ndarray:
        """Logits at each record, shape (times, classes, samples)."""
        return Trajectory.logits(self)  # type: ignore[arg-type]

    def __str__(self) -> str:
        lines = [f"Flow, {self.decay!r}", f"  {self.problem!r}", f"  {self.status}"]
        if len(self):
            lines.append(
                f"  {len(self)} records of times {self.times[0]:g} ... {self.times[-1]:g}, "
                f"loss {self.loss[0]:.6g} -> {self.loss[-1]:.6g}"
            )
        return "\n".join(lines)


def flow(
    problem: Problem,
    decay: Decay | None = None,
    *,
    times: Any,
    init: Any = None,
    seed: int = 0,
    method: str = "DOP853",
    tolerance: float = 1e-10,
    steps: int = 20_000,
    progress: bool | None = None,
) -> Flow:
    """Integrate the gradient flow d theta/dt = -gradient(theta) of the objective.

    Parameters
    ----------
    problem : UFM or DUFM
        What is minimised, with any loss, the user's own included.
    decay : Coupled, optional
        Its penalty is part of the objective.
    times : array_like, shape (times,)
        When states are recorded: numbers >= 0 that increase; the start is time 0. They scale with the loss: with an
        average over N samples the flow is N times slower than with the sum.
    init : initialiser, Start, or arrays of the blocks' shapes by name, optional
        Where the trained blocks start; Gaussian(0.1) by default.
    seed : int
        Of the start, which is that of ``simulate(..., init=init, seed=seed)``.
    method : {"DOP853", "LSODA", "Radau"}
        Explicit Runge-Kutta of order 8; for stiff problems (late times, rates of decay far apart) the multistep
        LSODA, which switches to implicit formulas, or the implicit Radau. Both take a Jacobian by differences,
        of the square of the number of trained parameters.
    tolerance : float
        Error per step, relative to each entry, or to the largest entry of the start where that is larger. The error
        at a late time is this times what the flow makes of it: starts near a saddle part exponentially.
    steps : int
        Most steps of the solver.
    progress : bool, optional
        Show a progress bar over the times.

    Returns
    -------
    Flow

    Raises
    ------
    IncompatibleError
        For decoupled decay, which belongs to a step and to no objective.
    InvalidProblemError
        For other arguments that are not allowed.
    DivergedError
        If the solver cannot go on: the loss is not finite, its step has become too small, or it has taken `steps`
        of them, as explicit methods do when the problem is stiff; `error.trajectory` is the `Flow` so far.

    Notes
    -----
    With ReLU the gradient jumps where a pre-activation passes 0. DOP853 crosses such a kink in small steps, which its
    error asks for; the other two, made for smooth problems, may stay there. A flow that slides along a kink, as most
    do late, is a differential inclusion (the kernels take the slope 0 at 0), and every solver creeps along it: ask
    for early times and a tolerance of 1e-5 or so.

    Examples
    --------
    >>> import ufm
    >>> found = flow(ufm.UFM(classes=3, width=4, loss="mse"), ufm.Coupled(0.01), times=[0, 10, 1000])
    >>> found["W"].shape, found.status.name, round(float(found.loss[-1]), 8)
    ((3, 3, 4), 'completed', 0.02955)
    """
    from ufm.kernels.hessian import Objective

    if not isinstance(problem, Problem):
        raise invalid("flow.problem", problem, "a problem such as UFM(classes=10, width=64)")
    when = _increasing(times)
    seed, steps = whole("flow.seed", seed, 0), whole("flow.steps", steps)
    choice("flow.method", method, METHODS)
    tolerance = real("flow.tolerance", tolerance, LEAST_TOLERANCE, 1.0)
    if init is None:
        init = Gaussian(0.1)
    elif isinstance(init, Mapping) and all(isinstance(name, str) for name in init):
        init = Given(**init)
    objective = Objective(problem, decay, "flow")
    theta = problem.pack(draw(problem, init, seed))
    started = time.perf_counter()
    with progress_bar(progress, len(when), 0) as show, np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LSODA warns of what its status says
        states, status, stats = _integrate(objective, theta, when, method, tolerance, steps, show)
    fit, penalty = _parts(objective, theta, states)
    from ufm.environment import environment

    arguments = {"problem": problem, "decay": decay, "init": init, "seed": seed, "method": method}
    found = Flow(
        problem,
        decay,
        when[: len(states)].copy(),
        states,
        fit,
        penalty,
        status,
        {**stats, "seconds": time.perf_counter() - started},
        {
            **environment(),
            "flow": {name: repr(value) for name, value in arguments.items()} | {"tolerance": tolerance},
        },
    )
    if status.name == "diverged":
        raise DivergedError(f"the flow {status}", found)  # type: ignore[arg-type]
    return found


def _increasing(times: Any) -> np.ndarray:
    """Times of the records, checked."""
    allowed = "increasing numbers >= 0, at least one"
    when = finite_array("flow.times", times)
    if when.ndim != 1 or not when.size or when[0] < 0 or (np.diff(when) <= 0).any():
        raise invalid("flow.times", times, allowed)
    return when


def _integrate(
    objective: Objective,
    start: np.ndarray,
    times: np.ndarray,
    method: str,
    tolerance: float,
    steps: int,
    show: Any,
) -> tuple[np.ndarray, FlowStatus, dict[str, int]]:
    """States at the times that the solver reaches, how it ended, and its counts."""
    from scipy import integrate

    theta, size = start.copy(), objective.problem.size

    def slope(_: float, trained: np.ndarray) -> np.ndarray:
        theta[:size] = trained
        return -objective(theta)[1]

    def ended(name: str, at: float, reason: str) -> tuple[np.ndarray, FlowStatus, dict[str, int]]:
        counts = {"steps": taken, "evaluations": 1 + (0 if solver is None else int(solver.nfev))}
        return np.array(states).reshape(len(states), size), FlowStatus(name, at, reason), counts

    taken, solver = 0, None
    loss, gradient = objective(theta)
    finite = bool(np.isfinite(loss) and np.isfinite(gradient).all())
    states = [start[:size]] if times[0] == 0 else []
    if not finite:
        cause = constant_row(objective.problem)
        return ended("diverged", 0.0, f"the loss or its gradient is not finite at the start{cause}")
    last = float(times[-1])
    if last > 0:
        scale = float(np.abs(start[:size]).max()) or 1.0
        solver = getattr(integrate, method)(
            slope, 0.0, start[:size], last, rtol=tolerance, atol=tolerance * scale
        )
        while solver.status == "running":
            if taken == steps:
                reason = (
                    f"{method} took the {steps} steps allowed; stiff problems need method='LSODA' or 'Radau', "
                    "kinks of ReLU a larger tolerance"
                )
                return ended("diverged", float(solver.t), reason)
            solver.step()
            taken += 1
            if solver.status == "failed" or not np.isfinite(solver.y).all():
                reason = f"{method} finds no step that keeps the tolerance {tolerance:g}"
                return ended("diverged", float(solver.t), reason)
            due = times[len(states) : np.searchsorted(times, solver.t, side="right")]
            if due.size:
                states.extend(solver.dense_output()(due).T)
                show(len(states))
    return ended("completed", last, f"time {last:g} was reached")


def _parts(objective: Objective, start: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit and penalty at every state."""
    theta, size = start.copy(), objective.problem.size
    fit, penalty = np.empty(len(states)), np.empty(len(states))
    for i, trained in enumerate(states):
        theta[:size] = trained
        fit[i] = objective(theta, 0.0)[0]
        penalty[i] = 0.5 * objective.rates @ trained**2
    return fit, penalty
