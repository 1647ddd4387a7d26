"""One large run on several threads: its samples are cut into parts, which the threads share out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ufm.losses import UserLoss
from ufm.problems import Problem
from ufm.run import Run
from ufm.threads import one_blas_thread

COLUMNS, MOST_PARTS = 256, 64
# Two threads against one as the parts are and as BLAS divides single products, in steps of the same time:
# K = 10, d = 64, n = 50 1.4 and 1.0; K = 20, d = 64, n = 20 1.8 and 1.1; K = 100, d = 128, n = 10 1.7 and 1.5;
# K = 100, d = 512, n = 10 1.5 and 1.5. A meeting costs a microsecond where both have a processor of their own.
LEAST_WORK = 500_000  # multiplications of a step


def ends_of_parts(problem: Problem) -> np.ndarray:
    """Where the parts end: samples of part p are ends[p] ... ends[p+1] - 1.

    Parts are a power of two, lest one of two or four threads has more to do, and few enough that their gradients by
    the weights, which are added up at every step, have no more numbers than H.
    """
    d, samples = problem.shapes["H"]
    weights = sum(int(np.prod(shape)) for name, shape in problem.shapes.items() if name != "H")
    parts = 1
    while samples > COLUMNS * parts and 2 * parts * weights <= d * samples and parts < MOST_PARTS:
        parts *= 2
    return np.arange(parts + 1) * samples // parts


def runs_in_parts(run: Run) -> bool:
    """Whether the samples of a run are shared out among threads; it depends on that run alone.

    That is for full batches, losses of ours, chains without normalisation, and rules that act on each coordinate by
    itself. The count of undecided signs looks at a whole state, so that methods that do not depend on the gradient's
    scale stay outside.
    """
    from ufm.kernels.updates import in_lanes

    problem, optimizer = run.problem, run.optimizer
    layers = [problem.shapes[f"W{layer}"] for layer in range(1, problem.depth + 1)]
    return (
        in_lanes(optimizer)
        and not optimizer.scale_free
        and not isinstance(problem.loss, UserLoss)
        and problem.normalisation is None
        and not run.in_batches
        and 3 * problem.samples * sum(rows * columns for rows, columns in layers) >= LEAST_WORK
        and len(ends_of_parts(problem)) > 2
    )


class _Thread(NamedTuple):
    """What one thread works with."""

    chain: Any
    step: Any
    share: Any
    state: tuple[np.ndarray, np.ndarray, np.ndarray]  # theta, m, v
    grad: np.ndarray


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

        self._kernel = contract.compiled(parts.run, "parts", run.dtype)
        self._problem, self._chain, self._step = run.problem, chain, step
        self._most = 1 if meeting.ALONE else threads
        self._ends = ends_of_parts(run.problem)
        self._threads: list[_Thread] = []

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
        """Steps start ... stop - 1 of theta, m and v by head, value and update, as `ufm.kernels.loop.run`."""
        from ufm.kernels.contract import FINE
        from ufm.kernels.loop import AT, WHY
        from ufm.kernels.share import copy_share

        with one_blas_thread as allowed:
            self._share_out(min(allowed if self._most is None else self._most, len(self._ends) - 1))
            before = cursor.copy()
            taken = self._taken(functions, records, state, rates, start, stop, cursor)
            if cursor[WHY] != FINE:  # H has gone on from where the run ends
                stop, cursor[:] = cursor[AT], before
                taken = self._taken(functions, records, state, rates, start, stop, cursor)
        for thread, whole, own in taken:
            copy_share(thread.chain, thread.share, whole, own, back=True)

    def _taken(
        self,
        functions: tuple[Any, ...],
        records: Any,
        state: tuple[np.ndarray, ...],
        rates: np.ndarray,
        start: int,
        stop: int,
        cursor: np.ndarray,
    ) -> list[tuple[_Thread, np.ndarray, np.ndarray]]:
        """Take the steps on copies of the state: each thread, each of the vectors, and what it has of it then."""
        from ufm.kernels.share import copy_share

        meeting, copies, tasks, cursors = self._meeting(), [], [], []
        for thread in self._threads:
            for whole, own in zip(state[: 1 + self._step.buffers], thread.state, strict=False):
                copy_share(thread.chain, thread.share, whole, own, back=False)
                copies.append((thread, whole, own))
            theta, m, v = thread.state
            cursors.append(cursor.copy())
            tasks.append(
                partial(
                    self._kernel, *functions, thread.chain, thread.step, records, thread.share, meeting,
                    theta, thread.grad, m, v, rates, start, stop, cursors[-1],
                )
            )  # fmt: skip
        _together(tasks, meeting.arrived)
        cursor[:] = cursors[0]
        return copies

    def _share_out(self, threads: int) -> None:
        """Give each thread its parts, as many to each as can be."""
        from ufm.kernels.share import share_of

        if len(self._threads) == threads:
            return
        self._threads, parts = [], len(self._ends) - 1
        for first, last in pairwise([parts * i // threads for i in range(threads + 1)]):
            ends = self._ends[first : last + 1]
            chain, step, share = share_of(self._problem, self._chain, self._step, ends, first)
            dtype, trained = step.coupled.dtype, step.coupled.size
            theta = np.zeros(int(np.prod(chain.table[0, 1:])) + share.blocks[:, 2].sum(), dtype)
            m, v, grad = (np.zeros(trained, dtype) for _ in range(3))
            self._threads.append(_Thread(chain, step, share, (theta, m, v), grad))

    def _meeting(self) -> Any:
        """Room for what the threads tell each other, and nobody there yet."""
        from ufm.kernels.contract import Meeting

        parts, problem = len(self._ends) - 1, self._problem
        weights = problem.size - (int(np.prod(problem.shapes["H"])) if "H" in problem.trained else 0)
        return Meeting(
            threads=len(self._threads),
            arrived=np.zeros(1, np.int64),
            said=np.zeros((2, parts, 3)),
            gradients=np.zeros((2, parts, weights), self._step.coupled.dtype),
        )


def _together(tasks: Sequence[Callable[[], None]], arrived: np.ndarray) -> None:
    """Call functions that meet each other, each on a thread of its own; where one fails, the others wait no more."""
    if len(tasks) == 1:
        tasks[0]()
        return
    with ThreadPoolExecutor(len(tasks), "ufm") as pool:
        try:
            ended, _ = wait([pool.submit(task) for task in tasks], return_when=FIRST_EXCEPTION)
            for task in ended:
                task.result()
        except BaseException:
            arrived[0] = np.iinfo(np.int64).max // 2
            raise
