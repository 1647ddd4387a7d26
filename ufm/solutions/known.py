"""Every solution in closed form that a problem has: where a builder joins this list, runs are held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ufm.decay import per_block
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.solutions.collapsed import dnc, linear_optimum, zero
from ufm.solutions.etf import fixed_simplex, merged, polygon, simplex
from ufm.solutions.graph import srg
from ufm.solutions.imbalance import imbalanced_optimum
from ufm.solutions.mse_bias import biased_optimum
from ufm.solutions.normalised import normalised_simplex
from ufm.solutions.pairs import low_rank
from ufm.solutions.regression import regression_optimum
from ufm.solutions.solution import RESOLVED, Solution, check_problem

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem

MOST_MERGED = 6  # classes up to which saddles are listed for every way of merging them
Builder = Callable[["Problem", "Decay"], Solution]

# of two names for one state the first is kept
BUILDERS: tuple[Builder, ...] = (
    simplex, fixed_simplex, normalised_simplex, imbalanced_optimum, regression_optimum, dnc, srg,
    partial(srg, variant="identity"), low_rank, polygon, linear_optimum, biased_optimum, zero,
)  # fmt: skip


def known(problem: Problem, decay: Decay) -> tuple[Solution, ...]:
    """Solutions in closed form of an objective, a state with two formulas once; merged-class saddles up to 6 classes.

    Parameters
    ----------
    problem : UFM or DUFM
        Of any depth.
    decay : Coupled
        Its penalty is part of the objective.

    Returns
    -------
    tuple of Solution
        In the order of `BUILDERS`; empty where none is known, and without decay, where minima lie at infinity or come
        in families of any scale.

    Raises
    ------
    InvalidProblemError
        For what is no problem.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.UFM(classes=4, width=4), ufm.Coupled(0.01)
    >>> [found.name for found in known(problem, decay)]
    ['simplex ETF', 'low rank', 'zero', 'merged 3+1', 'merged 2+2', 'merged 2+1+1']
    """
    check_problem("known", problem)
    if not any(per_block(decay, problem)[0].values()):
        return ()
    found: list[Solution] = []
    for build in (*BUILDERS, *_mergers(problem)):
        try:
            one = build(problem, decay)
        except (InvalidProblemError, IncompatibleError):  # the problem has no such solution
            continue
        for i, other in enumerate(found):
            if one.rank == other.rank and abs(one.loss - other.loss) <= RESOLVED * abs(other.loss):
                found[i] = replace(other, optimum=other.optimum or one.optimum)
                break
        else:
            found.append(one)
    return tuple(found)


def _mergers(problem: Problem) -> Iterator[Builder]:
    """One builder for every way to merge classes into at least two groups, up to renumbering."""
    if problem.depth > 1 or problem.classes > MOST_MERGED:
        return
    for sizes in partitions(problem.classes):
        if 2 <= len(sizes) < problem.classes:
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            groups = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
            yield partial(merged, groups=groups)


def partitions(total: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Ways to write a number as a sum, parts in falling order.

    Examples
    --------
    >>> list(partitions(3))
    [(3,), (2, 1), (1, 1, 1)]
    """
    if total == 0:
        yield ()
    for part in range(min(total, total if largest is None else largest), 0, -1):
        for rest in partitions(total - part, part):
            yield (part, *rest)
