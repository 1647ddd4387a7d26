"""Where weight decay acts, and how: added to the gradient (coupled) or shrinking the block (decoupled).

A coupled rate lam on block B adds lam/2 ||B||_F^2 to the objective (whole matrix, no 1/N). A decoupled
rate multiplies the block by 1 - lr lam before the step, with the gradient taken at the unshrunk block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ufm.checks import choice, real
from ufm.errors import IncompatibleError, invalid

if TYPE_CHECKING:
    from ufm.problems import Problem


@dataclass(frozen=True, init=False, repr=False)
class _BlockRates:
    """One rate for every trained block, or rates by block name (others get 0)."""

    rate: float | None
    blocks: tuple[tuple[str, float], ...]

    def __init__(self, /, rate: float | None = None, **blocks: float) -> None:
        name = type(self).__name__
        if (rate is None) == (not blocks):
            raise invalid(f"{name}", {"rate": rate, **blocks}, "one rate, or rates by block name, not both")
        if rate is not None:
            rate = real(f"{name}.rate", rate, 0.0)
        object.__setattr__(self, "rate", rate)
        named = tuple((block, real(f"{name}.{block}", value, 0.0)) for block, value in sorted(blocks.items()))
        object.__setattr__(self, "blocks", named)

    def __repr__(self) -> str:
        inside = repr(self.rate) if self.rate is not None else ", ".join(f"{b}={v!r}" for b, v in self.blocks)
        return f"{type(self).__name__}({inside})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.rate, self.blocks)


def _rebuild(
    kind: type[_BlockRates], rate: float | None, blocks: tuple[tuple[str, float], ...]
) -> _BlockRates:
    return kind(rate) if rate is not None else kind(**dict(blocks))


class Coupled(_BlockRates):
    """Weight decay as part of the objective: lam/2 ||B||_F^2, so lam B joins the gradient.

    Parameters
    ----------
    rate : float, optional
        The rate of every trained block, b included.
    **blocks : float
        Or rates by block name (``H``, ``W1`` ..., ``b``; ``W`` is the last layer); others get 0.

    Raises
    ------
    InvalidProblemError
        For a negative or non-finite rate.

    Examples
    --------
    >>> Coupled(5e-4)
    Coupled(0.0005)
    >>> Coupled(W=5e-4, H=1e-5)
    Coupled(H=1e-05, W=0.0005)
    """


class Decoupled(_BlockRates):
    """Weight decay outside the gradient: the block is multiplied by 1 - lr lam at every step.

    Parameters are those of `Coupled`.

    Parameters
    ----------
    rate, **blocks
        As for `Coupled`.

    Examples
    --------
    >>> Decoupled(W=0.1)
    Decoupled(W=0.1)
    """


@dataclass(frozen=True)
class Mixed:
    """Coupled and decoupled decay together.

    Parameters
    ----------
    coupled : Coupled or float
        The part in the objective.
    decoupled : Decoupled or float
        The part that shrinks.
    shrink : {"before", "after"}
        Whether the shrink comes before the step (PyTorch's AdamW) or after it (the order of the
        public code of Zhao et al., arXiv 2602.16642).

    Raises
    ------
    InvalidProblemError
        For a negative rate, or another order.

    Examples
    --------
    >>> Mixed(coupled=1e-4, decoupled=4e-4)
    Mixed(coupled=Coupled(0.0001), decoupled=Decoupled(0.0004), shrink='before')
    """

    coupled: Coupled | float
    decoupled: Decoupled | float
    shrink: str = "before"

    def __post_init__(self) -> None:
        if not isinstance(self.coupled, Coupled):
            object.__setattr__(self, "coupled", Coupled(real("Mixed.coupled", self.coupled, 0.0)))
        if not isinstance(self.decoupled, Decoupled):
            object.__setattr__(self, "decoupled", Decoupled(real("Mixed.decoupled", self.decoupled, 0.0)))
        choice("Mixed.shrink", self.shrink, ("before", "after"))


Decay = Coupled | Decoupled | Mixed


def _resolve(rates: _BlockRates | None, problem: Problem) -> dict[str, float]:
    found = dict.fromkeys(problem.trained, 0.0)
    if rates is None:
        return found
    if rates.rate is not None:
        return dict.fromkeys(problem.trained, rates.rate)
    kind = type(rates).__name__
    given: dict[str, float] = {}
    for block, value in rates.blocks:
        name = problem.last if block == "W" else block
        if name not in found:
            raise IncompatibleError(
                f"{kind}.{block} is {value}; allowed: trained blocks, {', '.join(found)}."
            )
        if name in given:
            raise IncompatibleError(
                f"{kind}.{block} is {value}, but block {name} has a rate already; allowed: one for each block."
            )
        given[name] = value
    return {**found, **given}


def per_block(decay: Decay | None, problem: Problem) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Coupled and decoupled rate of every trained block.

    Returns
    -------
    coupled, decoupled : mapping of str to float
        Rates by block name, 0 where there is none.

    Raises
    ------
    IncompatibleError
        For a rate on a block that is not trained or does not exist: it would be ignored.
    """
    if decay is None:
        return _resolve(None, problem), _resolve(None, problem)
    if isinstance(decay, Mixed):
        return _resolve(decay.coupled, problem), _resolve(decay.decoupled, problem)  # type: ignore[arg-type]
    if isinstance(decay, Coupled):
        return _resolve(decay, problem), _resolve(None, problem)
    if isinstance(decay, Decoupled):
        return _resolve(None, problem), _resolve(decay, problem)
    raise IncompatibleError(
        f"decay is {decay!r}; allowed: None, Coupled, Decoupled or Mixed, such as Coupled(5e-4)."
    )


def shrinks_after(decay: Decay | None) -> bool:
    """Whether the decoupled shrink follows the step instead of preceding it."""
    return isinstance(decay, Mixed) and decay.shrink == "after"
