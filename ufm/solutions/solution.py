"""What an explicit solution is: named blocks of one state with the objective that a closed form gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.errors import invalid
from ufm.initial import Given
from ufm.problems import Blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ufm.problems import Problem

RESOLVED = 1e-12  # relative: to this, closed forms and the objective of their matrices agree


@dataclass(frozen=True, eq=False)
class Solution:
    """A stationary state of an objective, written down.

    Parameters
    ----------
    name : str
        Which solution, for example ``"DNC"``.
    blocks : mapping of str to ndarray
        Every block of the problem by name, of its shape in ``problem.shapes``, read-only; ``W`` is the last layer.
    loss : float
        Objective by the closed form, coupled decay included.
    rank : int
        Rank of the class means of the last hidden pre-activation H_L, or of the logits for one layer.
    optimum : bool
        Whether no state has a smaller objective.

    Examples
    --------
    >>> import ufm
    >>> from ufm.solutions import dnc
    >>> problem, decay = ufm.DUFM(classes=3, width=4, depth=3), ufm.Coupled(0.01)
    >>> found = dnc(problem, decay)
    >>> found["W2"].shape, abs(problem.value(found.blocks, decay) - found.loss) < 1e-15
    ((4, 4), True)
    """

    name: str
    blocks: Mapping[str, NDArray[np.float64]]
    loss: float
    rank: int
    optimum: bool = False

    def __getitem__(self, block: str) -> NDArray[np.float64]:
        return self.blocks[block]

    @property
    def start(self) -> Given:
        """The state as the start of a run."""
        return Given(**self.blocks)


def check_problem(where: str, problem: Any) -> None:
    """Raise InvalidProblemError unless a builder of solutions was given a problem."""
    from ufm.problems import Problem

    if not isinstance(problem, Problem):
        raise invalid(f"{where}.problem", problem, "a problem such as DUFM(classes=3, width=4, depth=3)")


def solution(
    name: str, problem: Problem, arrays: Mapping[str, Any], loss: float, rank: int, *, optimum: bool = False
) -> Solution:
    """Build a `Solution` of a problem from its arrays, which become read-only copies."""
    blocks = {block: np.array(arrays[block], dtype=np.float64) for block in problem.blocks}
    for block in blocks.values():
        block.setflags(write=False)
    return Solution(name, Blocks(blocks, problem.last), float(loss), int(rank), optimum)
