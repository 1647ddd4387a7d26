"""What the processor does at best in this process: products by the BLAS that the kernels call, and exponentials."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from ufm.kernels.contract import OPTIONS
from ufm.kernels.exponential import exp
from ufm.kernels.product import product
from ufm.kernels.vectors import WIDTH, first, load, store

from .cases import Case

SQUARE = 512  # rows of the matrices of which the dgemm rate is that of
NUMBERS = 1024  # exponentials at once: they stay in the first cache


@numba.njit(**OPTIONS)
def products(A, B, C, dA, dB, rows, inner, columns, times):
    """`times` times C = A B, dA = C B^T and dB = A^T C: the products of a layer in a step, with its matrices flat."""
    for _ in range(times):
        product(A, 0, 0, B, 0, 0, C, 0, rows, inner, columns)
        product(C, 0, 0, B, 0, 1, dA, 0, rows, columns, inner)
        product(A, 0, 1, C, 0, 0, dB, 0, inner, rows, columns)


def _layer(rows: int, inner: int, columns: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    A, B, C = rng.random(rows * inner), rng.random(inner * columns), rng.random(rows * columns)
    return A, B, C, A.copy(), B.copy()


def square_products(times: int) -> None:
    """`times` products of SQUARE x SQUARE matrices."""
    A, B, C, _, _ = _layer(SQUARE, SQUARE, SQUARE)
    square(A, B, C, times)


@numba.njit(**OPTIONS)
def square(A, B, C, times):
    """`times` times C = A B of flat SQUARE x SQUARE matrices."""
    for _ in range(times):
        product(A, 0, 0, B, 0, 0, C, 0, SQUARE, SQUARE, SQUARE)


def products_of(case: Case) -> Callable[[int], None]:
    """The products of steps of a single run and nothing else, by BLAS."""
    p = case.problem
    top, hidden = (p.classes, p.width, p.samples), (p.width, p.width, p.samples)
    last, below = _layer(*top), _layer(*hidden)

    def run(steps):
        products(*last, *top, steps)
        products(*below, *hidden, steps * (p.depth - 1))

    return run


@numba.njit(**OPTIONS)
def exponentials(x, y, times):
    """`times` times the exponentials of x into y, by the kernels' own function."""
    for _ in range(times):
        for i in range(0, x.size, WIDTH):
            m = first(x.size - i)
            store(y, i, m, exp(load(x, i, m)))


def exponentials_of(times: int) -> None:
    """`times` times NUMBERS exponentials."""
    x = -np.random.default_rng(0).random(NUMBERS)
    exponentials(x, np.empty_like(x), times)
