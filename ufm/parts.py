"""One large run on several threads: its samples are cut into parts, which the threads share out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from threading import Thread
from typing import Any, NamedTuple

import numpy as np

from ufm.environment import usable_cores
from ufm.problems import Problem
from ufm.run import Run
from ufm.threads import one_blas_thread

COLUMNS, MOST_PARTS = 256, 64
WHOLE = 8  # columns that products of a part take at a time, without a rest
# How many times as long a step takes where BLAS divides each product among two threads: K = 20, d = 64, n = 20 1.3 to
# 1.6; K = 100, n = 10 and d = 128 1.3 to 1.4, d = 400 1.05, d = 512 (306,000 numbers in a part) .9 to 1.1, d = 1024 .8.
LEAST_OPERATIONS = 3e6  # of a step
LARGEST_PART = 300_000  # inputs and derivatives of all layers
TRIAL, ENOUGH = 16, 0.8  # the first 1/16 of the steps show whether threads have enough of their processors
TELLING = 0.01  # seconds: in a shorter call the start of threads and the first use of memory weigh too much


def ends_of_parts(problem: Problem) -> np.ndarray:
    """Where the parts end: samples of part p are ends[p] ... ends[p+1] - 1.

    Parts are a power of two, lest one of two or four threads has much more to do (3 % at most, for no part but the
    last leaves a rest of WHOLE columns), and few enough that their gradients by the weights, which are added up at
    every step, have no more numbers than H.
    """
    d, samples = problem.shapes["H"]
    weights = sum(int(np.prod(shape)) for name, shape in problem.shapes.items() if name != "H")
    parts = 1
    while samples > COLUMNS * parts and 2 * parts * weights <= d * samples and parts < MOST_PARTS:
        parts *= 2
    ends = WHOLE * np.rint(np.arange(parts + 1) * samples / parts / WHOLE).astype(int)
    ends[-1] = samples
    return ends


def runs_in_parts(run: Run) -> bool:
    """Whether the samples of a run are shared out among threads; it depends on that run alone.

    The count of undecided signs looks at a whole state, so that methods that do not depend on the gradient's scale
    stay outside.
    """
    ends, problem = ends_of_parts(run.problem), run.problem
    numbers = 2 * (sum(problem.widths) + problem.classes) * np.diff(ends).max()
    return (
        run.separable
        and not run.optimizer.scale_free
        and run.operations >= LEAST_OPERATIONS
        and len(ends) > 2
        and bool(numbers <= LARGEST_PART)
    )


class _Held(NamedTuple):
    """What one thread works with."""

    chain: Any
    step: Any
    share: Any
    state: tuple[np.ndarray, np.ndarray, np.ndarray]  # theta, m, v
    grad: np.ndarray


class _NoThreadError(Exception):
    """The system starts no further thread."""


class Parts:
    """The compiled loop over the steps of a run whose samples are shared out.

    Parameters
    ----------
    run : Run
        The run.
    chain, step
        The run as kernels see it.
    threads : int, optional
        How many at most, by default as many as BLAS may have. No bit of the result depends on it.
    """

    def __init__(self, run: Run, chain: Any, step: Any, threads: int | None) -> None:
        from ufm.kernels import contract, meeting, parts
        from ufm.kernels.share import columns_of

        self._kernel = contract.compiled(parts.run, "parts", run.dtype)
        self._problem, self._chain, self._step = run.problem, chain, step
        self._most = 1 if meeting.ALONE else threads
        self._ends = ends_of_parts(run.problem)
        self._columns = columns_of(run.problem, chain, step, self._ends)
        self._held: list[_Held] = []

    def advance(
        self,
        functions: tuple[Any, Any, Any],
        records: Any,
        state: tuple[np.ndarray, np.ndarray, np.ndarray],
        rates: np.ndarray,
        start: int,
        stop: int,
        cursor: np.ndarray,
    ) -> None:
        """Steps start ... stop - 1 of theta, m and v by head, value and update, as `ufm.kernels.loop.run`.

        Threads that do not get their processors, for other programs want them too, hold each other up for the time
        of many steps: the first steps show it, and one thread takes the rest.
        """
        from ufm.kernels.contract import FINE
        from ufm.kernels.loop import WHY

        with one_blas_thread as of_blas:
            self._share_out(min(usable_cores() or 1, of_blas if self._most is None else self._most))
            trial = (stop - start) // TRIAL if len(self._held) > 1 else 0
            if trial > 0:
                had = self._advance(functions, records, state, rates, start, start + trial, cursor)
                if cursor[WHY] != FINE:
                    return
                if had < ENOUGH:
                    self._share_out(1)
            self._advance(functions, records, state, rates[trial:], start + trial, stop, cursor)

    def _advance(
        self,
        functions: tuple[Any, ...],
        records: Any,
        state: tuple[np.ndarray, ...],
        rates: np.ndarray,
        start: int,
        stop: int,
        cursor: np.ndarray,
    ) -> float:
        """The steps on copies of the state, and these back; which part of their processors the threads had."""
        from ufm.kernels.contract import FINE
        from ufm.kernels.loop import AT, WHY

        self._copy(state)
        try:
            after, had = self._call(functions, records, rates, start, stop, cursor)
            if after[WHY] != FINE:  # H has gone on from where the run ends
                self._copy(state)
                after, had = self._call(functions, records, rates, start, int(after[AT]), cursor)
        except _NoThreadError:  # nothing is lost
            self._most = 1
            self._share_out(1)
            return self._advance(functions, records, state, rates, start, stop, cursor)
        self._copy(state, back=True)
        cursor[:] = after
        return had

    def _copy(self, state: tuple[np.ndarray, ...], back: bool = False) -> None:
        """Copy the state of the run to what the threads have of it, or `back`."""
        from ufm.kernels.share import copy_columns, copy_weights

        columns, d = self._columns, int(self._chain.table[0, 1])
        of_columns = columns.H, columns.m, columns.v
        for number, whole in enumerate(state[: 1 + self._step.buffers]):
            copy_columns(columns, d, whole, of_columns[number], back)
            for held in self._held[:1] if back else self._held:  # all have the same
                copy_weights(held.share, whole, held.state[number], back)

    def _call(
        self, functions: tuple[Any, ...], records: Any, rates: np.ndarray, start: int, stop: int, cursor: Any
    ) -> tuple[np.ndarray, float]:
        """Let all threads take the steps; the cursor after them, and what `_together` says."""
        meeting, tasks, cursors = self._meeting(), [], []
        for held in self._held:
            theta, m, v = held.state
            cursors.append(cursor.copy())
            tasks.append(
                partial(
                    self._kernel, *functions, held.chain, held.step, records, self._columns, held.share,
                    meeting,
                    theta, held.grad, m, v, rates, start, stop, cursors[-1],
                )
            )  # fmt: skip
        had = _together(tasks, meeting.arrived)
        return cursors[0], had

    def _share_out(self, threads: int) -> None:
        """Give each of so many threads its parts, or of fewer, if none has more parts for that."""
        from ufm.kernels.share import share_of

        parts = len(self._ends) - 1
        threads = -(-parts // -(-parts // threads))
        if len(self._held) == threads:
            return
        self._held = []
        for first, last in pairwise([parts * i // threads for i in range(threads + 1)]):
            own = share_of(self._problem, self._chain, self._step, self._columns, range(first, last))
            chain, step, share = own
            dtype, trained = step.coupled.dtype, step.coupled.size
            theta = np.zeros(share.blocks[:, 2].sum(), dtype)
            m, v, grad = (np.zeros(trained, dtype) for _ in range(3))
            self._held.append(_Held(chain, step, share, (theta, m, v), grad))

    def _meeting(self) -> Any:
        """Room for what the threads tell each other, and nobody there yet."""
        from ufm.kernels.contract import Meeting

        parts, problem = len(self._ends) - 1, self._problem
        weights = problem.size - (int(np.prod(problem.shapes["H"])) if "H" in problem.trained else 0)
        return Meeting(
            threads=len(self._held),
            arrived=np.zeros(1, np.int64),
            taken=np.zeros(parts, np.int64),
            said=np.zeros((2, parts, 3)),
            gradients=np.zeros((2, parts, weights), self._step.coupled.dtype),
        )


def _together(tasks: Sequence[Callable[[], None]], arrived: np.ndarray) -> float:
    """Call functions that meet each other: the first on this thread, each other on one of its own.

    Where one fails, the others wait no more: they go on through their steps, whose results nobody reads. The answer
    is the threads' processor time as a part of all that there was for them, 1 where it is too short to be told.
    """
    failed: list[BaseException] = []
    seconds: list[float] = []

    def call(task: Callable[[], None]) -> None:
        began = time.thread_time()
        try:
            task()
        except BaseException as error:
            failed.append(error)
            nobody_waits()
        seconds.append(time.thread_time() - began)

    def nobody_waits() -> None:
        arrived[0] = np.iinfo(np.int64).max // 2

    threads: list[Thread] = []
    clock = time.perf_counter()
    try:
        for task in tasks[1:]:
            thread = Thread(target=call, args=(task,), name="ufm")
            try:
                thread.start()
            except RuntimeError:
                raise _NoThreadError from None
            finally:
                if thread.ident is not None:  # it runs, whatever came after
                    threads.append(thread)
        call(tasks[0])
    except BaseException:
        nobody_waits()
        raise
    finally:
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    wall = time.perf_counter() - clock
    told = wall > max(TELLING, 10 * time.get_clock_info("thread_time").resolution)
    return sum(seconds) / (wall * len(tasks)) if told else 1.0
