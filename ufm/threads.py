"""Threads of our own beside those of BLAS: while ours work, a product has one."""

from __future__ import annotations

import threading


class _OneBlasThread:
    """BLAS at one thread while anybody in this process is inside: two threads may round a product differently.

    Who enters is told how many BLAS had before the first one came.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> int:
        from threadpoolctl import ThreadpoolController

        from ufm.kernels import blas

        with self._lock:
            if self._inside == 0:
                blas.module()  # scipy brings a BLAS of its own
                pools = ThreadpoolController().select(user_api="blas")
                self._before = min((pool["num_threads"] for pool in pools.info()), default=1)
                self._limits = pools.limit(limits=1)
            self._inside += 1
            return self._before

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


one_blas_thread = _OneBlasThread()
