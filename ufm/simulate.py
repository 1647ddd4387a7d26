"""simulate(problem, optimizer, ...) -> Trajectory: the one entry function."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ufm.checks import fits, flag, whole
from ufm.decay import Decay
from ufm.epochs import batch_order
from ufm.errors import DivergedError, IncompatibleError, InterruptedRunError, invalid
from ufm.initial import Gaussian, draw
from ufm.normalisation import constant_row
from ufm.problems import Problem
from ufm.record import Every, planned_steps
from ufm.run import Run
from ufm.stepping import CHUNK_SECONDS, collector_at_rest, progress_bar
from ufm.trajectory import End, Status, Trajectory

INTERRUPTED = "Ctrl-C was pressed"


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
) -> Trajectory:
    """Run from `begin` to the end of `run`, in chunks of compiled steps; `interrupted` is Ctrl-C to another thread."""
    problem, dtype, total = run.problem, run.dtype, run.steps
    assert total is not None
    if callback is not None and not callable(callback):
        raise invalid("simulate.callback", callback, "None, or a function of the step and the blocks")
    started, unit = time.perf_counter(), begin.unit.copy()
    with collector_at_rest():
        from ufm.kernels import batches, contract, doubt, extended, loop, losses, updates
        from ufm.kernels.layout import buffers_of, chain_of, room_for_records, step_of

        compiled_before = contract.compile_seconds["total"]
        head, value = losses.pair(problem.loss, dtype)
        update = updates.rule(run.optimizer, dtype)
        signs = run.optimizer.scale_free and run.optimizer.elementwise
        alarm = contract.compiled(doubt.alarm if signs else doubt.nothing, "watch", dtype)
        plain = batches.run if run.in_batches else loop.run
        if problem.normalisation is not None:
            from ufm.kernels import normalisation

            plain = normalisation.run_batches if plain is batches.run else normalisation.run
        kernel = contract.compiled(plain if unit.size == 0 else extended.run, "run", dtype)
    rates = run.rates  # first: more steps than anybody can take are refused before their records are planned
    planned = planned_steps(run.record, total)
    recorded = previous is not None and begin.step in previous.steps[-1:]
    when = planned[planned >= begin.step + recorded]
    numbers = len(when) * problem.size
    fits("simulate.record", "recorded states", numbers, "fewer records, such as LogSpaced(100)")
    theta, m, v = begin.theta.copy(), begin.m.copy(), begin.v.copy()
    grad = np.zeros(problem.size, dtype)
    records = room_for_records(1, when, problem.size, dtype)
    before = previous.stats if previous is not None else {}
    undecided = before.get("undecided_signs", 0), before.get("first_undecided_step", -1)
    cursor = np.array([begin.step, 0, contract.FINE, *undecided], np.int64)

    chain, step = chain_of(problem, dtype), step_of(problem, [run.optimizer], [run.decay], dtype)
    buffers = buffers_of(problem, dtype)
    exponents_from = before.get("exponents_from", -1)

    def call(records: Any, stop: int, watch: Any = alarm) -> None:
        start = int(cursor[loop.AT])
        order = batch_order(run, start, stop)
        with contract.interrupt_deferred():
            kernel(
                head, value, update, watch, chain, step, records, buffers, theta, grad, m, v, unit,
                rates[start:stop].astype(dtype), order, start, stop, cursor,
            )  # fmt: skip

    def go_on(stop: int) -> None:
        """Steps until `stop`, or for as long as a chunk may take; those at which the alarm sounds are counted."""
        began, since, counted = time.perf_counter(), -1, 0
        call(records, stop)
        while cursor[loop.WHY] == contract.DOUBT:
            cursor[loop.WHY], at = contract.FINE, int(cursor[loop.AT])
            # twice as many as last time where the alarm sounds again at once: each call costs as much as some steps
            counted = 2 * counted if at == since else 1
            call(records, min(at + counted, stop), contract.compiled(doubt.count, "watch", dtype))
            since = int(cursor[loop.AT])
            late = time.perf_counter() - began > CHUNK_SECONDS
            if late or since == stop or cursor[loop.WHY] != contract.FINE:
                return
            call(records, stop)

    name, reason = "completed", f"all {total} steps were taken"
    stepping = time.perf_counter()
    chunk = 64
    try:
        with progress_bar(progress, total, begin.step) as show:
            while True:
                since, clock = int(cursor[loop.AT]), time.perf_counter()
                go_on(min(since + chunk, total))
                at, why = int(cursor[loop.AT]), int(cursor[loop.WHY])
                show(at)
                if why == contract.EXPONENTS:
                    cursor[loop.WHY] = contract.FINE
                    unit, exponents_from = np.zeros(problem.size), at
                    kernel = contract.compiled(extended.run, "run", dtype)
                    continue
                if why == contract.NOT_FINITE:
                    name, reason = "diverged", why_diverged(run, at)
                    break
                if interrupted(at):
                    raise KeyboardInterrupt
                if callback is not None and callback(at, problem.unpack(theta.copy())):
                    name, reason = "stopped", "the callback returned True"
                    break
                if at >= total:
                    break
                seconds = max(time.perf_counter() - clock, 1e-6)
                limit = max(1, 2**20 // (run.batch or 1))
                chunk = int(np.clip((at - since) * CHUNK_SECONDS / seconds, 1, min(8 * chunk, limit)))
    except KeyboardInterrupt:
        name, reason = "interrupted", INTERRUPTED

    at, kept = int(cursor[loop.AT]), int(cursor[loop.KEPT])
    parts: list[tuple[np.ndarray, ...]] = [
        (when[:kept], records.states[0, :kept], records.fit[0, :kept], records.penalty[0, :kept])
    ]
    if previous is not None:
        known = np.isin(previous.steps, planned) | (previous.steps < begin.step)
        parts.insert(
            0, tuple(a[known] for a in (previous.steps, previous.states, previous.fit, previous.penalty))
        )
    last = max((int(part[0][-1]) for part in parts if len(part[0])), default=-1)
    if name in ("stopped", "interrupted") and last != at:
        extra = room_for_records(1, np.array([at]), problem.size, dtype)
        cursor[loop.KEPT] = 0
        call(extra, at)
        if cursor[loop.KEPT] == 1:
            parts.append((extra.when, extra.states[0], extra.fit[0], extra.penalty[0]))
    if last < 0 and not parts[-1][0].size:
        parts.append(without_finite_start(at, theta[: problem.size]))
    steps_, states, fit, penalty = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    # counts and times of a resumed run are those of the whole run
    seconds = time.perf_counter() - stepping + before.get("seconds", 0.0)
    stats = {
        "steps": at,
        "seconds": seconds,
        "steps_per_second": at / max(seconds, 1e-9),
        "prepare_seconds": stepping - started + before.get("prepare_seconds", 0.0),
        "compile_seconds": contract.compile_seconds["total"]
        - compiled_before
        + before.get("compile_seconds", 0.0),
        "legs": 1 + before.get("legs", 0),
        "exponents_from": exponents_from,
        "undecided_signs": int(cursor[loop.UNDECIDED]),
        "first_undecided_step": int(cursor[loop.FIRST_UNDECIDED]),
    }
    from ufm.environment import Provenance

    trajectory = Trajectory(
        run,
        steps_,
        states,
        fit,
        penalty,
        Status(name, at, reason),
        stats,
        Provenance(run),
        End(at, theta, m, v, unit),
    )
    if throw and name == "diverged":
        raise DivergedError(f"{run.optimizer!r} {trajectory.status}", trajectory)
    if throw and name == "interrupted":
        raise InterruptedRunError(
            f"the run was {trajectory.status}; continue with error.trajectory.resume()", trajectory
        )
    return trajectory


def without_finite_start(at: int, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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
