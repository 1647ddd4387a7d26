"""What several proofs ask of expressions, and the factor by which their controls are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

WRONG = 1 + sp.Rational(1, 10**6)


def is_zero(*expressions: Any) -> bool:
    """Whether every expression vanishes identically."""
    return all(sp.simplify(expression) == 0 for expression in expressions)


def equal_powers(left: Any, right: Any) -> bool:
    """Whether two positive products of powers with symbolic exponents are equal, by their logarithms."""
    return bool(sp.simplify(sp.expand_log(sp.log(left) - sp.log(right), force=True)) == 0)


def squares(matrix: sp.Matrix) -> Any:
    """Sum of the squares of the entries, the squared Frobenius norm."""
    return sum(x**2 for x in matrix)


def one_hot(sizes: Sequence[int]) -> sp.Matrix:
    """Targets of classes of these sizes, one row for each class."""
    return sp.Matrix(
        [[int(k == own) for own, size in enumerate(sizes) for _ in range(size)] for k in range(len(sizes))]
    )
