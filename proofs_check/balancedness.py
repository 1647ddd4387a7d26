"""Proofs of the balancedness law: one step of gradient descent with free matrices of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sympy as sp

from proofs_check.algebra import WRONG
from proofs_check.proof import Proof
from ufm.theory import balancedness


class Matrix(NamedTuple):
    """A matrix of any size as an expression in symbols that do not commute, with its transpose."""

    value: Any
    transposed: Any

    @property
    def T(self) -> Matrix:
        """Transpose, under numpy's name."""
        return Matrix(self.transposed, self.value)

    def __matmul__(self, other: Matrix) -> Matrix:
        return Matrix(self.value * other.value, other.transposed * self.transposed)

    def __add__(self, other: Matrix) -> Matrix:  # type: ignore[override]
        return Matrix(self.value + other.value, self.transposed + other.transposed)

    def __sub__(self, other: Matrix) -> Matrix:
        return Matrix(self.value - other.value, self.transposed - other.transposed)

    def __rmul__(self, scalar: Any) -> Matrix:
        return Matrix(scalar * self.value, scalar * self.transposed)

    def vanishes(self) -> bool:
        """Whether it is 0 whatever its symbols are."""
        return bool(sp.expand(self.value) == 0 and sp.expand(self.transposed) == 0)


def free(name: str) -> Matrix:
    """A matrix about which nothing is known."""
    return Matrix(*sp.symbols(f"{name} {name}_t", commutative=False))


class Law(NamedTuple):
    """The law and the rule it is about, as the check reads them."""

    following: Callable[..., Any] = balancedness.next_imbalance
    second_decay: Callable[[Any], Any] = lambda lam: lam
    momentum: bool = False


def symbols(name: str, rows: int, columns: int) -> sp.Matrix:
    """A matrix of free symbols."""
    return sp.Matrix(rows, columns, sp.symbols(f"{name}:{rows * columns}"))


def zero(A: sp.Matrix) -> bool:
    """Whether every entry vanishes identically."""
    return bool(A.expand() == sp.zeros(*A.shape))


def one_step_obeys_the_law(law: Law) -> bool:
    """D' of the step is the law's, for free U, V and M: M may come from any loss, and any layers above and below."""
    lr, lam = sp.symbols("lr lam")
    U, V, M = free("U"), free("V"), free("M")
    by_U, by_V = M @ V.T, U.T @ M
    U_next = (1 - lr * lam) * U - lr * by_U
    V_next = (1 - lr * law.second_decay(lam)) * V - lr * by_V
    if law.momentum:  # a buffer of the gradient before
        U_next, V_next = U_next - lr * free("P"), V_next - lr * free("Q")
    expected = law.following(balancedness.imbalance(U, V), by_U, by_V, lr, lam)
    left: Matrix = balancedness.imbalance(U_next, V_next) - expected
    return left.vanishes()


def chain_gradients(middle: Callable[..., Any]) -> bool:
    """In Z = A U V X the gradients of any smooth fit by U and V are M V^T and U^T M with one M = A^T G X^T.

    fit = sum g_ij Z_ij with free coefficients: every fit is so to first order at a state, with G its derivative by Z.
    """
    A, U, V, X = symbols("a", 2, 2), symbols("u", 2, 2), symbols("v", 2, 2), symbols("x", 2, 2)
    G = symbols("g", 2, 2)
    Z = A * U * V * X
    fit = sp.expand(sum(g * z for g, z in zip(G, Z, strict=True)))
    M = middle(A, G, X)
    return zero(fit_gradient(fit, U) - M * V.T) and zero(fit_gradient(fit, V) - U.T * M)


def fit_gradient(fit: Any, B: sp.Matrix) -> sp.Matrix:
    """Derivative by every entry."""
    return B.applyfunc(lambda b: sp.diff(fit, b))


class Balance(NamedTuple):
    """What is claimed at critical points."""

    upper: Callable[[Any, Any], Any] = lambda lam_U, lam_V: lam_U
    lower: Callable[[Any, Any], Any] = lambda lam_U, lam_V: lam_V


def critical_points_are_balanced(balance: Balance) -> bool:
    """U^T (M V^T + lam_U U) - (U^T M + lam_V V) V^T = lam_U U^T U - lam_V V V^T: both brackets vanish there."""
    lam_U, lam_V = sp.symbols("lam_U lam_V", positive=True)
    U, V, M = free("U"), free("V"), free("M")
    brackets = U.T @ (M @ V.T + lam_U * U) - (U.T @ M + lam_V * V) @ V.T
    claimed = balance.upper(lam_U, lam_V) * (U.T @ U) - balance.lower(lam_U, lam_V) * (V @ V.T)
    left: Matrix = brackets - claimed
    return left.vanishes()


def perturbed(change: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """The law at other arguments."""
    return lambda *arguments: balancedness.next_imbalance(*change(*arguments))


PROOFS: tuple[Proof, ...] = (
    Proof(
        "ufm.balancedness",
        "one step, free U, V and M of any size",
        "proved",
        one_step_obeys_the_law,
        Law(),
        {
            "decay off by 1e-6": Law(perturbed(lambda D, u, v, lr, lam: (D, u, v, lr, lam * WRONG))),
            "rate off by 1e-6": Law(perturbed(lambda D, u, v, lr, lam: (D, u, v, lr * WRONG, lam))),
            "remainder dropped": Law(perturbed(lambda D, u, v, lr, lam: (D, 0 * u, 0 * v, lr, lam))),
            "decay of V off by 1e-6": Law(second_decay=lambda lam: lam * WRONG),
            "with momentum": Law(momentum=True),
        },
    ),
    Proof(
        "ufm.balancedness",
        "adjacent layers of a chain share one M, 2 x 2 matrices of symbols",
        "proved for K = 2",
        chain_gradients,
        lambda A, G, X: A.T * G * X.T,
        {
            "layers above left out": lambda A, G, X: G * X.T,
            "layers below left out": lambda A, G, X: A.T * G,
            "M off by 1e-6": lambda A, G, X: WRONG * A.T * G * X.T,
        },
    ),
    Proof(
        "ufm.balance_at_critical_points",
        "free U, V and M of any size",
        "proved",
        critical_points_are_balanced,
        Balance(),
        {
            "rates exchanged": Balance(lambda u, v: v, lambda u, v: u),
            "rate off by 1e-6": Balance(upper=lambda u, v: u * WRONG),
        },
    ),
)
