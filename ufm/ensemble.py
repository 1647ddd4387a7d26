"""Many small runs at once: sixteen of them as the lanes of one kernel, or one per thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from ufm.checks import fits, whole
from ufm.environment import usable_cores
from ufm.errors import IncompatibleError, InterruptedRunError, invalid
from ufm.record import planned_steps
from ufm.run import Run
from ufm.simulate import INTERRUPTED, Records, advance, begin, why_diverged, without_finite_start
from ufm.stepping import CHUNK_SECONDS, collector_at_rest, progress_bar
from ufm.threads import one_blas_thread
from ufm.trajectory import End, Status, Trajectory

# Lanes win while the states of LANES runs stay near the processor. Time in lanes as a part of that alone (AVX-512, a
# second cache of 2 MiB): K = d = 4, n = 1 0.2; 10 0.4; 24 0.8; 48 (4608 numbers) 1.0; 56 1.2; 64 1.4; K = 10, d = 64,
# n = 10 (7040 numbers) 1.1; n = 50 2.5.
LARGEST_IN_LANES = 5000  # numbers of the state of a run
# Signs are bounded by maxima over the whole state, and a lane that a run left is wasted: K = d = 24 3.3 and 5.7; 32 7.7
# and 9.3; K = 10, d = 64, n = 5 (3840 numbers) 13 and 9.2.
LARGEST_WITH_SIGNS = 3072
GOES_ON = "goes on alone"  # the status of a run between its lane and the kernels for one run
MOST_STEPS = 2**14  # between two looks at Ctrl-C; their rates, one for each step and lane, take 2 MiB


def runs_in_lanes(run: Run) -> bool:
    """Which of the two families of kernels a run of an ensemble is for; it depends on that run alone.

    Of methods that do not depend on the gradient's scale, chains with ReLU stay outside the lanes: what is in doubt at
    its kink, and what is 0 behind dead units, is looked at one run at a time.
    """
    problem, optimizer = run.problem, run.optimizer
    largest = LARGEST_WITH_SIGNS if optimizer.scale_free else LARGEST_IN_LANES
    return (
        run.separable
        and not (optimizer.scale_free and problem.activation == "relu" and problem.depth > 1)
        and sum(int(np.prod(shape)) for shape in problem.shapes.values()) <= largest
    )


def ensemble(
    runs: Sequence[Run], *, workers: int | None = None, progress: bool = False
) -> tuple[Trajectory, ...]:
    """Simulate runs that share everything but numbers; each ends as it would alone.

    Parameters
    ----------
    runs : sequence of Run
        They share the shapes, loss and activation of the problem, the trained blocks, the kind of optimizer, steps,
        record, mini-batch size and precision; seed, start, frozen values, rates, decay and hyper-parameters are
        their own.
    workers : int, optional
        Threads, by default one for each usable core.
    progress : bool
        Show a progress bar over the steps of all runs.

    Returns
    -------
    tuple of Trajectory
        In the order of the runs. A run that diverges says so by its status, and the others go on.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For runs that cannot be simulated together.
    InterruptedRunError
        On Ctrl-C; `error.trajectory` is the tuple of all trajectories with their records so far, each of which can
        be resumed.

    Notes
    -----
    Nothing of a result depends on the number of workers or on what other runs there are. Two families of kernels
    serve ensembles (`runs_in_lanes`); a run agrees bit for bit with itself in any ensemble, and to round-off with
    `ufm.simulate`, which has another order of summation. A run whose step hangs on signs leaves its lane for the
    other family at the first step at which a bound of its own cannot exclude that one is undecided, or at which
    exponents have to be carried.

    Examples
    --------
    >>> import ufm
    >>> runs = [Run(ufm.UFM(3, 4), ufm.GD(0.1), steps=20, seed=seed) for seed in range(20)]
    >>> [trajectory.status.name for trajectory in ensemble(runs)] == ["completed"] * 20
    True
    """
    runs = _checked(runs)
    workers = usable_cores() or 1 if workers is None else whole("ensemble.workers", workers)
    stop, done = Event(), np.zeros(len(runs), np.int64)
    tasks = []
    with collector_at_rest():
        from ufm.kernels.lanes import LANES

        for which in _blocks(runs, LANES):
            block = [runs[i] for i in which]
            work = _in_lanes if runs_in_lanes(block[0]) else _alone
            tasks.append((which, partial(work, block, stop, partial(_note, done, np.array(which)))))
    total = len(runs) * (runs[0].steps or 0)
    found: list[Trajectory | None] = [None] * len(runs)
    with (
        ThreadPoolExecutor(min(workers, len(tasks)), "ufm") as pool,
        one_blas_thread,
        progress_bar(progress, total, 0) as show,
    ):
        futures = {pool.submit(work): which for which, work in tasks}
        gather = partial(_gather, pool, futures, found, lambda: show(int(done.sum())))
        try:
            gather()
        except BaseException as error:
            stop.set()
            if not isinstance(error, KeyboardInterrupt):
                for future in futures:
                    future.cancel()
                raise
            gather()
    trajectories = tuple(trajectory for trajectory in found if trajectory is not None)
    if stop.is_set():
        reached = sum(trajectory.status.name == "completed" for trajectory in trajectories)
        raise InterruptedRunError(
            f"the ensemble was interrupted, {reached} of {len(runs)} runs were complete; error.trajectory holds all",
            trajectories,  # type: ignore[arg-type]
        )
    return trajectories


def _gather(
    pool: ThreadPoolExecutor,
    futures: dict[Future[list[Any]], list[int]],
    found: list[Trajectory | None],
    show: Callable[[], None],
) -> None:
    """Put every trajectory in its place, let runs that left their lanes go on, and raise the first exception at once.

    A future stays among the `futures` until all that it brings is dealt with, so that Ctrl-C loses none.
    """
    while futures:
        ready, _ = wait(futures, timeout=CHUNK_SECONDS, return_when=FIRST_COMPLETED)
        for future in ready:
            for i, outcome in zip(futures[future], future.result(), strict=True):
                if isinstance(outcome, Trajectory):
                    found[i] = outcome
                else:
                    futures[pool.submit(outcome)] = [i]
            del futures[future]
        show()


def _note(done: np.ndarray, which: np.ndarray, at: int, among: Any = slice(None)) -> None:
    """Write down how far the runs `among` those of a block came."""
    done[which[among]] = at


def _shared(run: Run) -> dict[str, Any]:
    """What the runs of an ensemble have in common, by the name of the field."""
    problem, optimizer = run.problem, run.optimizer
    return {
        "problem.blocks": {name: problem.shapes[name] for name in problem.order},
        "problem.trained": problem.trained,
        "problem.per_class": problem.class_sizes,
        "problem.loss": problem.loss,
        "problem.activation": problem.activation,
        "problem.normalisation": problem.normalisation,
        "optimizer": type(optimizer).__name__ if isinstance(optimizer.rule, str) else optimizer.rule,
        "steps": run.steps,
        "record": run.record,
        "batch": run.batch,
        "dtype": run.dtype,
    }


def _checked(runs: Any) -> tuple[Run, ...]:
    allowed = "a sequence of at least one Run"
    if isinstance(runs, str | bytes) or not isinstance(runs, Sequence) or len(runs) == 0:
        raise invalid("ensemble.runs", runs, allowed)
    for run in runs:
        if not isinstance(run, Run):
            raise invalid("ensemble.runs", run, allowed)
        if run.steps is None:
            raise invalid("Run.steps", None, "a whole number >= 0")
    first = _shared(runs[0])
    for i, run in enumerate(runs):
        _ = run.rates  # more steps than anybody can take are refused before their records are planned
        for name, value in _shared(run).items():
            if value != first[name]:
                raise IncompatibleError(
                    f"ensemble.runs[{i}].{name} is {value!r}, that of runs[0] {first[name]!r}; "
                    "allowed: runs that share it."
                )
    return tuple(runs)


def _blocks(runs: Sequence[Run], lanes: int) -> list[list[int]]:
    """Positions of the runs that are simulated together, in order: up to `lanes` that run in lanes, or one alone."""
    blocks: list[list[int]] = []
    open_block: list[int] = []
    for i, run in enumerate(runs):
        if not runs_in_lanes(run):
            blocks.append([i])
            continue
        if len(open_block) in (0, lanes):
            open_block = []
            blocks.append(open_block)
        open_block.append(i)
    return blocks


def _alone(
    block: Sequence[Run], stop: Event, note: Callable[..., None], previous: Trajectory | None = None
) -> list[Trajectory]:
    """The one run of a block by the kernels for one run, from its start or from where it left its lane."""

    def interrupted(at: int) -> bool:
        note(at)
        return stop.is_set()

    (run,) = block
    end = begin(run) if previous is None else previous.end
    trajectory = advance(run, end, previous, throw=False, interrupted=interrupted, threads=1)
    note(run.steps or 0)
    return [trajectory]


def _in_lanes(block: Sequence[Run], stop: Event, note: Callable[..., None]) -> list[Any]:
    """The runs of a block as lanes; one that ends early leaves its lane, which from then on repeats another run.

    For a run that has to go on alone, in place of its trajectory: what does the rest of it.
    """
    from ufm.environment import Provenance

    lanes, clock = _Lanes(block), time.perf_counter()
    total, chunk = block[0].steps or 0, 64
    while lanes.running:
        since, moment = lanes.at, time.perf_counter()
        lanes.advance(min(since + chunk, total))
        note(lanes.at, lanes.running)
        if lanes.objection:
            for lane, diverged in lanes.objectors():
                name = "diverged" if diverged else GOES_ON
                lanes.leave(lane, name, why_diverged(block[lane], lanes.at) if diverged else "")
            lanes.fill()
        elif stop.is_set() and lanes.at < total:
            lanes.leave_all("interrupted", INTERRUPTED)
        elif lanes.at >= total:
            lanes.leave_all("completed", f"all {total} steps were taken")
        else:
            seconds = max(time.perf_counter() - moment, 1e-6)
            chunk = int(np.clip((lanes.at - since) * CHUNK_SECONDS / seconds, 1, min(8 * chunk, MOST_STEPS)))
    note(total, [lane for lane, left in enumerate(lanes.left) if left.status.name != GOES_ON])
    seconds = (time.perf_counter() - clock) / len(block)  # each run's share
    outcomes: list[Any] = []
    for i, (run, left) in enumerate(zip(block, lanes.left, strict=True)):
        at, goes_on = left.end.step, left.status.name == GOES_ON
        stats = {
            "steps": at,
            "seconds": seconds,
            "steps_per_second": at / max(seconds, 1e-9),
            "prepare_seconds": lanes.prepare_seconds,
            "compile_seconds": lanes.compile_seconds,
            "legs": 0 if goes_on else 1,
            "exponents_from": -1,
            "undecided_signs": 0,
            "first_undecided_step": -1,
        }
        steps, states, fit, penalty = left.records
        trajectory = Trajectory(
            run, steps, states, fit, penalty, left.status, stats, Provenance(run), left.end
        )
        if goes_on:
            among = partial(note, among=[i])
            outcomes.append(partial(_alone, [run], stop, among, trajectory))
        else:
            outcomes.append(trajectory)
    return outcomes


class _Left(NamedTuple):
    """What a run leaves behind."""

    records: Records
    status: Status
    end: End


class _Lanes:
    """Runs in the lanes of one kernel; run i is in lane i as long as it goes on."""

    def __init__(self, block: Sequence[Run]) -> None:
        began, self.block = time.perf_counter(), block
        run = block[0]
        problem, dtype = run.problem, run.dtype
        with collector_at_rest():
            from ufm.kernels import contract, doubt, loop, losses, updates
            from ufm.kernels.lanes import LANES, aligned
            from ufm.kernels.layout import buffers_of, chain_of, room_for_records

            compiled_before = contract.compile_seconds["total"]
            self.head, self.value = losses.pair(problem.loss, dtype)
            self.update = updates.rule(run.optimizer, dtype)
            signs = run.optimizer.scale_free and run.optimizer.elementwise
            self.watch = contract.compiled(doubt.alarm_of_lanes if signs else doubt.nothing, "watch", dtype)
            self.kernel = contract.compiled(loop.run_lanes, "run", dtype)
        self.compile_seconds = contract.compile_seconds["total"] - compiled_before
        starts = [begin(run) for run in block]
        self.theta, self.grad, self.m, self.v = (
            aligned((length, LANES), dtype) for length in (starts[0].theta.size, *[problem.size] * 3)
        )
        for lane in range(LANES):
            self.theta[:, lane] = starts[lane if lane < len(block) else 0].theta
        self.when = planned_steps(run.record, run.steps or 0)
        numbers = len(block) * len(self.when) * problem.size
        fits("simulate.record", "recorded states", numbers, "fewer records, such as LogSpaced(100)")
        self.records = room_for_records(len(block), self.when, problem.size, dtype)
        self.chain, self.buffers = chain_of(problem, dtype, LANES), buffers_of(problem, dtype, LANES)
        self.cursor = np.array([0, 0, contract.FINE, 0, -1], np.int64)
        self.running = list(range(len(block)))
        self.left: list[Any] = [None] * len(block)
        self.fill()
        self.prepare_seconds = time.perf_counter() - began

    @property
    def at(self) -> int:
        """Steps taken."""
        return int(self.cursor[0])

    @property
    def kept(self) -> int:
        """Records taken."""
        return int(self.cursor[1])

    @property
    def objection(self) -> bool:
        """Whether the kernel stopped because some run cannot go on."""
        return bool(self.cursor[2])

    def fill(self) -> None:
        """Let every lane whose run has ended, or that never had one, repeat a run that goes on."""
        from ufm.kernels.layout import step_of

        if not self.running:
            return
        lanes = self.theta.shape[1]
        held = [lane if lane in self.running else self.running[0] for lane in range(lanes)]
        for array in (self.theta, self.m, self.v):
            array[:] = array[:, held]
        self.runs = [self.block[i] for i in held]
        optimizers, decays = [run.optimizer for run in self.runs], [run.decay for run in self.runs]
        self.step = step_of(self.block[0].problem, optimizers, decays, self.block[0].dtype)

    def advance(self, stop: int) -> None:
        """Take steps until `stop` or an objection."""
        self.cursor[2] = 0
        self._call(self.records, stop)

    def _call(self, records: Any, stop: int) -> None:
        start, dtype = self.at, self.theta.dtype
        constant = all(run.rates.strides == (0,) for run in self.runs)
        needed = slice(start, min(stop, start + 1) if constant else stop)
        rates = np.stack([run.rates[needed] for run in self.runs], axis=1).astype(dtype).ravel()
        self.kernel(
            self.head, self.value, self.update, self.watch, self.chain, self.step, records, self.buffers,
            self.theta.ravel(), self.grad.ravel(), self.m.ravel(), self.v.ravel(), np.zeros(0),
            rates, np.zeros((0, 0), np.int64), start, stop, self.cursor,
        )  # fmt: skip

    def _logits(self, lane: int) -> np.ndarray:
        K, N = self.buffers.one.shape
        return np.ascontiguousarray(self.buffers.Z.reshape(K, N, -1)[:, :, lane])

    def _fit(self, lane: int) -> float:
        chain = self.chain
        return float(
            self.value(self._logits(lane), chain.segments, chain.targets, chain.parameters, self._scale)
        )

    @property
    def _scale(self) -> Any:
        return self.theta.dtype.type(self.chain.scale or 1.0 / self.buffers.one.shape[1])

    def objectors(self) -> list[tuple[int, bool]]:
        """The runs that cannot go on in their lanes and whether each diverged, by questions that concern it alone."""
        from ufm.kernels.contract import DOUBT, EXPONENTS, NOT_FINITE

        if self.cursor[2] == DOUBT:
            doubtful = self.buffers.bounds.lines > 0.0
            return [(lane, False) for lane in self.running if doubtful[lane]]
        needs_exponents = self.block[0].optimizer.scale_free and self.at < (self.block[0].steps or 0)
        chain, recorded, found = self.chain, self.at in self.when[self.kept : self.kept + 1], []
        for lane in self.running:
            Z = self._logits(lane)
            flag = self.head(
                Z, chain.segments, chain.targets, chain.parameters, self._scale, np.empty_like(Z),
                np.empty(3 * Z.shape[1], Z.dtype),
            )  # fmt: skip
            if flag == NOT_FINITE or (recorded and not np.isfinite(self._fit(lane))):
                found.append((lane, True))
            elif flag == EXPONENTS and needs_exponents:
                found.append((lane, False))
        assert found
        return found

    def leave(self, lane: int, name: str, reason: str, extra: Records | None = None) -> None:
        """Take a run out of its lane."""
        kept, size = self.kept, self.grad.shape[0]
        states, fit, penalty = (array[lane, :kept] for array in self.records[1:])
        parts: Records = (self.when[:kept], states, fit, penalty)
        theta, m, v = (array[:, lane].copy() for array in (self.theta, self.m, self.v))
        if extra is not None:
            steps, states, fit, penalty = (np.concatenate(pair) for pair in zip(parts, extra, strict=True))
            parts = (steps, states, fit, penalty)
        elif not kept and name == "diverged":
            parts = without_finite_start(self.at, theta[:size])
        end = End(self.at, theta, m, v, np.zeros(0))
        self.left[lane] = _Left(parts, Status(name, self.at, reason), end)
        self.running.remove(lane)

    def leave_all(self, name: str, reason: str) -> None:
        """Take all runs out of their lanes, with a record of where they are."""
        missing = self.at not in self.when[: self.kept][-1:]
        if missing:
            empty = type(self.records)(*(array[:0] for array in self.records))
            self._call(empty, self.at)
        for lane in tuple(self.running):
            self.leave(lane, name, reason, self._record(lane) if missing else None)

    def _record(self, lane: int) -> Records | None:
        run, theta, fit = self.block[lane], self.theta[:, lane].copy(), self._fit(lane)
        if not np.isfinite(fit):
            return None
        penalty = run.problem.penalty(run.problem.unpack(theta), run.decay)
        return np.array([self.at]), theta[None, : run.problem.size], np.array([fit]), np.array([penalty])
