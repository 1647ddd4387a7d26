"""Shards handed to an executor, and their results as they come."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager

from ufm.checks import whole
from ufm.errors import IncompatibleError, LostWorkerError, invalid
from ufm.sweeps.shards import Arrays, Shard, compute


def count(workers: int | None) -> int:
    """Number of threads asked for; by default the cores that this process may use."""
    if workers is not None:
        return whole("sweep.workers", workers)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computed(
    shards: Sequence[Shard], executor: Executor | None, workers: int | None, kept: str
) -> Iterator[tuple[Shard, Arrays]]:
    """Compute shards and give each with its results as soon as it is finished, in any order.

    Parameters
    ----------
    shards : sequence of Shard
        What is computed.
    executor : Executor, optional
        What computes it; by default threads of this process.
    workers : int, optional
        Number of these threads.
    kept : str
        What is said to have become of finished shards when a worker is lost.

    Raises
    ------
    LostWorkerError
        If a worker of the executor dies.
    IncompatibleError
        If a shard cannot be sent to another process.
    """
    with _ready(executor, workers) as ready:
        if isinstance(ready, ProcessPoolExecutor) and shards:
            _check_can_be_sent(shards[0])
        waiting: dict[Future[Arrays], Shard] = {}
        try:
            for shard in shards:
                waiting[ready.submit(compute, shard)] = shard
            for future in as_completed(list(waiting)):
                arrays = future.result()
                yield waiting.pop(future), arrays
        except BaseException as error:
            for future in waiting:
                future.cancel()
            # distributed has exceptions of its own for workers that died
            if isinstance(error, BrokenExecutor | CancelledError) or "distributed" in type(error).__module__:
                raise LostWorkerError(
                    f"a worker was lost ({type(error).__name__}) with {len(waiting)} of {len(shards)} shards to do; "
                    f"{kept}."
                ) from error
            raise


@contextmanager
def _ready(executor: Executor | None, workers: int | None) -> Iterator[Executor]:
    if executor is None:
        with ThreadPoolExecutor(count(workers), "ufm-sweep") as own:
            yield own
        return
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise invalid(
            "sweep.executor",
            executor,
            "a concurrent.futures.Executor, such as ProcessPoolExecutor() or Client(...).get_executor(pure=False)",
        )
    if workers is not None:
        raise IncompatibleError(
            f"sweep.workers is {workers}; allowed: None, as the executor has its own workers."
        )
    yield executor


def _check_can_be_sent(shard: Shard) -> None:
    try:
        pickle.dumps(shard)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise IncompatibleError(
            f"the sweep cannot be sent to another process ({error}); allowed: functions at the top level of a module, "
            "or threads."
        ) from None
