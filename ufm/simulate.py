"""simulate(problem, optimizer, ...) -> Trajectory: the one entry function."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from ufm.checks import fits, flag, whole
from ufm.decay import Decay
from ufm.epochs import batch_order
from ufm.errors import DivergedError, IncompatibleError, InterruptedRunError, invalid
from ufm.initial import Gaussian, draw
from ufm.normalisation import constant_row
from ufm.parts import Parts, runs_in_parts
from ufm.problems import Problem
from ufm.record import Every, planned_steps
from ufm.run import Run
from ufm.stepping import CHUNK_SECONDS, collector_at_rest, progress_bar
from ufm.threads import one_blas_thread
from ufm.trajectory import End, Status, Trajectory

INTERRUPTED = "Ctrl-C was pressed"
FIRST_OPERATIONS = 2e9  # of the first chunk, whose time is not known yet
MOST_NUMBERS = 2**16  # rates, or samples drawn, that wait for one call of the kernel


def simulate(
    problem: Problem,
    optimizer: Any,
    decay: Decay | None = None,
    *,
    steps: int,
    init: Any = Gaussian(0.1),
    seed: int = 0,
    record: Any = Every(1),
    batch: int | None = None,
    dtype: str = "float64",
    throw: bool = True,
    progress: bool | None = None,
    callback: Callable[[int, Any], Any] | None = None,
) -> Trajectory:
    """Integrate the discrete-time training dynamics of a problem.

    Parameters
    ----------
    problem : UFM, DUFM or RegressionUFM
        What is minimised.
    optimizer : GD, Momentum, SignGD, Signum, Adam, NormalisedGD, Elementwise or Blockwise
        How a step is taken.
    decay : Coupled, Decoupled or Mixed, optional
        Where weight decay acts.
    steps : int
        Number of updates >= 0.
    init : initialiser, Start or arrays by block name
        Where the trained blocks start, arrays of shape ``problem.shapes[block]``; that of a solution of
        `ufm.solutions` is its ``.start``.
    seed : int
        Root of all random numbers: starts and batch order.
    record : Every, LogSpaced or At
        Which steps are kept; the first and the last always are.
    batch : int, optional
        Mini-batch size: shuffled epochs, the smaller last batch kept. Columns of H that are not in a batch have
        zero gradient but feel momentum and decay.
    dtype : {"float64", "float32"}
        Precision; float32 exists to study its rounding floors.
    throw : bool
        Raise when the run diverges or is interrupted; otherwise return the trajectory with its status.
    progress : bool, optional
        Show a progress bar.
    callback : callable, optional
        ``callback(step, blocks)``, called a few times per second; the run stops when it returns True.

    Returns
    -------
    Trajectory

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For arguments that are not allowed, each in one sentence.
    DivergedError
        When logits are no longer finite; `error.trajectory` holds the records so far.
    InterruptedRunError
        On Ctrl-C; `error.trajectory` holds the records so far and can be resumed.

    Examples
    --------
    >>> import ufm
    >>> traj = ufm.simulate(ufm.UFM(classes=3, width=4), ufm.GD(0.1), ufm.Coupled(0.01), steps=100)
    >>> traj["W"].shape, traj.status.name
    ((101, 3, 4), 'completed')
    """
    run = Run(
        problem=problem,
        optimizer=optimizer,
        decay=decay,
        init=init,
        steps=steps,
        seed=seed,
        record=record,
        batch=batch,
        dtype=dtype,
    )
    return integrate(run, throw=throw, progress=progress, callback=callback)


def integrate(
    run: Run,
    *,
    throw: bool = True,
    progress: bool | None = None,
    callback: Callable[[int, Any], Any] | None = None,
) -> Trajectory:
    """Simulate a run that is described already; the options are those of `simulate`."""
    if run.steps is None:
        raise invalid("simulate.steps", None, "a whole number >= 0")
    return advance(run, begin(run), None, flag("simulate.throw", throw), progress, callback)


def begin(run: Run) -> End:
    """State of the integrator before the first step."""
    problem, dtype, size = run.problem, run.dtype, run.problem.size
    theta = problem.pack(draw(problem, run.init, run.seed)).astype(dtype)
    return End(0, theta, np.zeros(size, dtype), np.zeros(size, dtype), np.zeros(0))


def resume(
    trajectory: Trajectory,
    steps: int | None = None,
    *,
    throw: bool = True,
    progress: bool | None = None,
    callback: Callable[[int, Any], Any] | None = None,
) -> Trajectory:
    """Continue a run; see `Trajectory.resume`."""
    old = trajectory.run
    if trajectory.status.name == "diverged":
        raise IncompatibleError(f"the run {trajectory.status}; allowed: runs whose state is finite.")
    done = trajectory.end.step
    assert old.steps is not None
    total = old.steps if steps is None else whole("resume.steps", steps, 0)
    if total < done:
        raise invalid("resume.steps", total, f"a total of at least the {done} steps already taken")
    run = replace(old, steps=total)
    if not np.array_equal(run.rates[:done], old.rates[:done]):
        raise IncompatibleError(
            f"resume.steps is {total}, but {old.optimizer.lr!r} gives other rates to the {done} steps already taken "
            f"when the run is longer; allowed: the {old.steps} steps first asked for, or rates given per step."
        )
    return advance(run, trajectory.end, trajectory, throw, progress, callback)


def advance(
    run: Run,
    begin: End,
    previous: Trajectory | None,
    throw: bool,
    progress: bool | None = None,
    callback: Callable[[int, Any], Any] | None = None,
    interrupted: Callable[[int], bool] = lambda step: False,
    threads: int | None = None,
) -> Trajectory:
    """Run from `begin` to the end of `run`, in chunks of compiled steps; `interrupted` is Ctrl-C to another thread.

    A large run is shared out among `threads`, by default as many as BLAS may have.
    """
    total = run.steps
    assert total is not None
    if callback is not None and not callable(callback):
        raise invalid("simulate.callback", callback, "None, or a function of the step and the blocks")
    stepper = _Stepper(run, begin, previous, threads)
    name, reason = "completed", f"all {total} steps were taken"
    began, chunk = time.perf_counter(), int(np.clip(FIRST_OPERATIONS / run.operations, 1, 64))
    most = max(1, MOST_NUMBERS // (run.batch or 1))  # steps in a chunk, whose batches are drawn at once
    try:
        with progress_bar(progress, total, begin.step) as show, stepper.threads:
            while True:
                since, clock = stepper.at, time.perf_counter()
                stepper.advance(min(since + chunk, total))
                at = stepper.at
                show(at)
                if stepper.needs_exponents:
                    stepper.carry_exponents()
                    continue
                if stepper.diverged:
                    name, reason = "diverged", why_diverged(run, at)
                    break
                if interrupted(at):
                    raise KeyboardInterrupt
                if callback is not None and callback(at, run.problem.unpack(stepper.theta.copy())):
                    name, reason = "stopped", "the callback returned True"
                    break
                if at >= total:
                    break
                seconds = max(time.perf_counter() - clock, 1e-6)
                chunk = int(np.clip((at - since) * CHUNK_SECONDS / seconds, 1, min(8 * chunk, most)))
    except KeyboardInterrupt:
        name, reason = "interrupted", INTERRUPTED
    from ufm.environment import Provenance

    records = stepper.all_records(and_now=name in ("stopped", "interrupted"))
    stats = stepper.stats(time.perf_counter() - began)
    status = Status(name, stepper.at, reason)
    trajectory = Trajectory(run, *records, status, stats, Provenance(run), stepper.end)
    if throw and name == "diverged":
        raise DivergedError(f"{run.optimizer!r} {trajectory.status}", trajectory)
    if throw and name == "interrupted":
        raise InterruptedRunError(
            f"the run was {trajectory.status}; continue with error.trajectory.resume()", trajectory
        )
    return trajectory


Records = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # steps, states, fit, penalty


class _Stepper:
    """The compiled kernel of one run, with the arrays it steps, its cursor and its records."""

    def __init__(self, run: Run, begin: End, previous: Trajectory | None, threads: int | None) -> None:
        began, problem, dtype = time.perf_counter(), run.problem, run.dtype
        self.run, self.previous = run, previous
        self.theta, self.m, self.v, self.unit = (
            array.copy() for array in (begin.theta, begin.m, begin.v, begin.unit)
        )
        with collector_at_rest():
            from ufm.kernels import contract, doubt, losses, updates
            from ufm.kernels.layout import buffers_of, chain_of, room_for_records, step_of

            self._compiled = contract.compile_seconds
            self._compiled_before = self._compiled["total"]
            self._head, self._value = losses.pair(problem.loss, dtype)
            self._update = updates.rule(run.optimizer, dtype)
            signs = run.optimizer.scale_free and run.optimizer.elementwise
            self._alarm = contract.compiled(doubt.alarm if signs else doubt.nothing, "watch", dtype)
            in_parts = runs_in_parts(run)
            self._kernel: Any = None if in_parts else _kernel(run, exponents=self.unit.size > 0)
        self._rates = run.rates  # before the records: more steps than anybody can take are refused first
        self._planned = planned_steps(run.record, run.steps or 0)
        recorded = previous is not None and begin.step in previous.steps[-1:]
        self._when = self._planned[self._planned >= begin.step + recorded]
        numbers = len(self._when) * problem.size
        fits("simulate.record", "recorded states", numbers, "fewer records, such as LogSpaced(100)")
        self._records = room_for_records(1, self._when, problem.size, dtype)
        self._grad = np.zeros(problem.size, dtype)
        self._chain = chain_of(problem, dtype)
        self._step = step_of(problem, [run.optimizer], [run.decay], dtype)
        self._parts = Parts(run, self._chain, self._step, threads) if in_parts else None
        self._buffers = None if in_parts else buffers_of(problem, dtype)
        self._before = previous.stats if previous is not None else {}
        self._exponents_from = self._before.get("exponents_from", -1)
        undecided = self._before.get("undecided_signs", 0), self._before.get("first_undecided_step", -1)
        self._began_at = begin.step
        # steps taken, records kept, why the kernel stopped, undecided signs, step of the first
        self._cursor = np.array([begin.step, 0, contract.FINE, *undecided], np.int64)
        self._prepare_seconds = time.perf_counter() - began

    @property
    def at(self) -> int:
        """Steps taken."""
        return int(self._cursor[0])

    @property
    def _why(self) -> int:
        """Why the kernel stopped, a constant of `ufm.kernels.contract`."""
        return int(self._cursor[2])

    @property
    def needs_exponents(self) -> bool:
        """Whether the kernel stopped since gradients are about to underflow."""
        from ufm.kernels.contract import EXPONENTS

        return self._why == EXPONENTS

    @property
    def diverged(self) -> bool:
        """Whether the kernel stopped at logits or a loss that are not finite."""
        from ufm.kernels.contract import NOT_FINITE

        return self._why == NOT_FINITE

    @property
    def threads(self) -> Any:
        """What to hold while the run goes on: threads of ours, or of BLAS, but not of both."""
        return nullcontext() if self._parts is None else one_blas_thread

    @property
    def end(self) -> End:
        """State of the integrator."""
        return End(self.at, self.theta, self.m, self.v, self.unit)

    def carry_exponents(self) -> None:
        """From here on by the kernel that keeps an exponent beside every number."""
        assert self._parts is None
        self._cursor[2] = 0
        self.unit, self._exponents_from = np.zeros(self.run.problem.size), self.at
        self._kernel = _kernel(self.run, exponents=True)

    def advance(self, stop: int) -> None:
        """Steps until `stop`, or for as long as a chunk may take; those at which the alarm sounds are counted."""
        from ufm.kernels import contract, doubt

        began, since, counted = time.perf_counter(), -1, 0
        self._call(self._records, stop, self._alarm)
        while self._why == contract.DOUBT:
            self._cursor[2], at = contract.FINE, self.at
            # twice as many as last time where the alarm sounds again at once: each call costs as much as some steps
            counted = 2 * counted if at == since else 1
            count = contract.compiled(doubt.count, "watch", self.run.dtype)
            self._call(self._records, min(at + counted, stop), count)
            since = self.at
            late = time.perf_counter() - began > CHUNK_SECONDS
            if late or since == stop or self._why != contract.FINE:
                return
            self._call(self._records, stop, self._alarm)

    def _call(self, records: Any, stop: int, watch: Any) -> None:
        from ufm.kernels.contract import interrupt_deferred

        start = self.at
        order = batch_order(self.run, start, stop)
        rates = self._rates[start:stop].astype(self.run.dtype)
        with interrupt_deferred():
            functions, state = (self._head, self._value, self._update), (self.theta, self.m, self.v)
            if self._parts is not None:
                self._parts.advance(functions, records, state, rates, start, stop, self._cursor)
                return
            self._kernel(
                *functions, watch, self._chain, self._step, records, self._buffers,
                self.theta, self._grad, self.m, self.v, self.unit, rates, order, start, stop, self._cursor,
            )  # fmt: skip

    def all_records(self, and_now: bool) -> Records:
        """The records, those of the run before included, and one of where it stands if asked for and not yet there."""
        kept, begun = int(self._cursor[1]), self._began_at
        states, fit, penalty = (array[0, :kept] for array in self._records[1:])
        parts: list[Records] = [(self._when[:kept], states, fit, penalty)]
        if (old := self.previous) is not None:
            known = np.isin(old.steps, self._planned) | (old.steps < begun)
            parts.insert(0, (old.steps[known], old.states[known], old.fit[known], old.penalty[known]))
        last = max((int(part[0][-1]) for part in parts if len(part[0])), default=-1)
        if and_now and last != self.at:
            parts += self._record_now()
        if last < 0 and not parts[-1][0].size:
            parts.append(without_finite_start(self.at, self.theta[: self.run.problem.size]))
        steps, states, fit, penalty = (
            np.concatenate(columns) if len(columns) > 1 else columns[0]
            for columns in zip(*parts, strict=True)
        )
        return steps, states, fit, penalty

    def _record_now(self) -> list[Records]:
        """A record of the present state; none where its loss is not finite."""
        from ufm.kernels.layout import room_for_records

        now = room_for_records(1, np.array([self.at]), self.run.problem.size, self.run.dtype)
        self._cursor[1] = 0
        self._call(now, self.at, self._alarm)
        return [(now.when, now.states[0], now.fit[0], now.penalty[0])] if self._cursor[1] == 1 else []

    def stats(self, seconds: float) -> dict[str, Any]:
        """Counts and times after so many seconds of stepping; those of a resumed run are of the whole run."""
        before = self._before
        seconds += before.get("seconds", 0.0)
        return {
            "steps": self.at,
            "seconds": seconds,
            "steps_per_second": self.at / max(seconds, 1e-9),
            "prepare_seconds": self._prepare_seconds + before.get("prepare_seconds", 0.0),
            "compile_seconds": self._compiled["total"]
            - self._compiled_before
            + before.get("compile_seconds", 0.0),
            "legs": 1 + before.get("legs", 0),
            "exponents_from": self._exponents_from,
            "undecided_signs": int(self._cursor[3]),
            "first_undecided_step": int(self._cursor[4]),
        }


def _kernel(run: Run, exponents: bool) -> Any:
    """The compiled loop over the steps of a run."""
    from ufm.kernels import batches, contract, loop

    if exponents:
        from ufm.kernels import extended

        return contract.compiled(extended.run, "run", run.dtype)
    if run.problem.normalisation is None:
        return contract.compiled(batches.run if run.in_batches else loop.run, "run", run.dtype)
    from ufm.kernels import normalisation

    return contract.compiled(
        normalisation.run_batches if run.in_batches else normalisation.run, "run", run.dtype
    )


def without_finite_start(at: int, theta: np.ndarray) -> Records:
    """The one record of a run that not even begins with finite logits: its start is kept all the same."""
    return np.array([at]), theta[None].copy(), np.array([np.inf]), np.array([np.inf])


def why_diverged(run: Run, at: int) -> str:
    """The sentence that a diverged run's status speaks in."""
    lr = float(run.rates[max(at - 1, 0)]) if len(run.rates) else 0.0
    largest = max([0.0, *run.coupled.values(), *run.decoupled.values()])
    return (
        f"logits or loss are not finite; the last learning rate was {lr:g} and the largest lr * decay "
        f"{lr * largest:g}; try smaller ones{constant_row(run.problem)}"
    )
