"""Threads of our own beside those of BLAS: while ours work, a product has one."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def _pools() -> Any:
    """The BLAS libraries of this process, numpy's and scipy's; to find them takes longer than a step of a large run."""
    from threadpoolctl import ThreadpoolController

    from ufm.kernels import blas

    blas.module()  # scipy brings a BLAS of its own
    return ThreadpoolController().select(user_api="blas")


class _OneBlasThread:
    """BLAS at one thread while anybody in this process is inside: two threads may round a product differently.

    Who enters is told how many BLAS had before the first one came.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nobody is inside: so it is in the child of a fork, whose BLAS begins anew."""
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> int:
        with self._lock:
            if self._inside == 0:
                pools = _pools()
                counts = [pool["num_threads"] for pool in pools.info()]
                self._before: int = min((count for count in counts if count), default=1)
                self._limits = pools.limit(limits=1)
            self._inside += 1
            return self._before

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_blas_thread.forget)
