"""What a claim is, and the registry that collects the claims of `ufm.theory`.

A claim is a published or derived statement with its hypotheses, a prediction that a run can be
held against, and a perturbed prediction (the control) that the same judgement must refuse.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ufm.run import Run

ROUND_OFF = "what round-off can do"


@dataclass(frozen=True)
class Source:
    """Where a statement comes from, and whether its text was read.

    Parameters
    ----------
    paper : str
        Paper and version, for example ``"Zhao et al., arXiv 2602.16642v3"``.
    place : str
        Number of the statement in it, for example ``"theorem 3.2"``.
    access : str
        ``"read in full"``, ``"recalled"``, ``"derived here"``, or what else the text was known from.

    Examples
    --------
    >>> print(Source("Zhao et al., arXiv 2602.16642v3", "theorem 3.2", "read in full"))
    Zhao et al., arXiv 2602.16642v3, theorem 3.2 (read in full)
    """

    paper: str
    place: str
    access: str

    def __str__(self) -> str:
        return f"{self.paper}, {self.place} ({self.access})"


@dataclass(frozen=True)
class Prediction:
    """Predicted and observed values of one quantity with the error that round-off may cause.

    Parameters
    ----------
    quantity : str
        What is compared, as a formula in words.
    predicted, observed : ndarray, shape (records, ...)
        Values at the recorded steps.
    bound : ndarray, shape (records,)
        Largest absolute error that the error model allows at each record; infinite where the model says nothing any
        more, and such a record is not judged.
    nc0 : ndarray, shape (records,), optional
        Predicted alpha = ||W^T 1||^2/K, for claims that predict it; tables show its last value.
    allowance : str
        What the bound is made of, for a sentence such as "off by 3 times what round-off can do".

    Examples
    --------
    >>> found = Prediction("alpha", np.array([1.0, 0.5]), np.array([1.0, 0.75]), np.array([0.1, 0.125]))
    >>> found.error.tolist(), found.ratios.tolist()
    ([0.0, 0.25], [0.0, 2.0])
    """

    quantity: str
    predicted: np.ndarray
    observed: np.ndarray
    bound: np.ndarray
    nc0: np.ndarray | None = None
    allowance: str = ROUND_OFF

    @property
    def error(self) -> np.ndarray:
        """Largest absolute deviation at each record, shape (records,)."""
        if not len(self.bound):
            return np.zeros(0)
        with np.errstate(invalid="ignore"):  # both infinite, at a record that is not judged
            difference = np.abs(np.asarray(self.observed) - np.asarray(self.predicted))
        largest: np.ndarray = difference.reshape(len(self.bound), -1).max(axis=1)
        return largest

    @property
    def judged(self) -> np.ndarray:
        """Whether each record is judged, which takes a bound below infinity, shape (records,)."""
        return ~np.isposinf(self.bound)

    @property
    def ratios(self) -> np.ndarray:
        """Error in units of its bound at each record, 0 where it is not judged, shape (records,)."""
        error = self.error
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = np.where((error == 0) | ~self.judged, 0.0, error / self.bound)
        return np.where(np.isnan(quotient), np.inf, quotient)

    @property
    def ratio(self) -> float:
        """Largest of the `ratios`; up to 1 the claim holds, nan where there is no record."""
        return float(self.ratios.max()) if len(self.bound) else float("nan")


@dataclass(frozen=True)
class Claim:
    """A statement about a run, with its hypotheses and its control.

    Parameters
    ----------
    name : str
        Unique, for example ``"zhao2026.thm3.2"``.
    statement : str
        One sentence with the formula.
    source : Source
        Paper, place and whether it was read.
    room : str
        Name of the module in `ufm.theory`, `proofs_check` and `tests.theory` that holds it.
    figure : str, optional
        Name of the figure that shows it.
    layers : mapping of str to str
        Status by layer: ``symbolic``, ``simulation``, ``published``, with the tolerance reached.
    applies : callable, optional
        ``applies(run)`` is None, or the sentence that says which hypothesis fails. None for a
        statement about formulas alone.
    predict : callable, optional
        ``predict(run) -> Prediction`` for a run with a trajectory.
    control : callable, optional
        ``control(run) -> Prediction``: the perturbed statement that must be refused.
    rank : int
        Among claims that apply, tables show the one of highest rank (the most specific).

    Examples
    --------
    >>> claim = registry()["zhao2026.thm3.2"]
    >>> claim.room, claim.source.place
    ('row_sum', 'theorem 3.2, rate in closed form and necessity derived here')
    """

    name: str
    statement: str
    source: Source
    room: str
    figure: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict, hash=False)
    applies: Callable[[Run], str | None] | None = None
    predict: Callable[[Run], Prediction] | None = None
    control: Callable[[Run], Prediction] | None = None
    rank: int = 0


@lru_cache(maxsize=1)
def registry() -> Mapping[str, Claim]:
    """All claims by name, collected from the ``CLAIMS`` tuple of every room of `ufm.theory`."""
    import ufm.theory

    found: dict[str, Claim] = {}
    for name in ufm.theory.__all__:
        for claim in importlib.import_module(f"ufm.theory.{name}").CLAIMS:
            if claim.name in found:
                raise RuntimeError(f"two claims are named {claim.name}")
            found[claim.name] = claim
    return found


def applicable(
    problem: Any, optimizer: Any, decay: Any = None, init: Any = None, *, steps: int | None = None
) -> Mapping[str, str | None]:
    """Which claims about runs apply, without running: None, or the hypothesis that fails, by claim name.

    Parameters
    ----------
    problem, optimizer, decay, init
        As for `ufm.simulate`.
    steps : int, optional
        Length of the run, where a hypothesis depends on it.

    Returns
    -------
    mapping of str to str or None

    Examples
    --------
    >>> import ufm
    >>> ufm.claims.applicable(ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(0.01))["zhao2026.thm3.2"] is None
    True
    """
    run = Run(problem, optimizer, decay, init, steps)
    return {name: claim.applies(run) for name, claim in registry().items() if claim.applies is not None}


def matching(words: str) -> dict[str, Claim]:
    """Claims with all of these words in name, statement, source, room or figure, letters large or small.

    Parameters
    ----------
    words : str
        Words with spaces between them.

    Returns
    -------
    dict of str to Claim
        By name.

    Examples
    --------
    >>> "andriopoulos2024.minimum" in matching("regression"), list(matching("hong2023 merging"))
    (True, ['hong2023.merging'])
    """
    wanted = words.lower().split()
    return {name: claim for name, claim in registry().items() if all(word in _text(claim) for word in wanted)}


def _text(claim: Claim) -> str:
    """What a search looks at."""
    parts = (claim.name, claim.statement, str(claim.source), claim.room, claim.figure or "")
    return " ".join(parts).replace("_", " ").lower() + " " + claim.name


def table(width: int = 110, claims: Mapping[str, Claim] | None = None) -> str:
    """Claims, by default all, with statement, source and status by layer, as text of this width.

    Parameters
    ----------
    width : int
        Of the text, in characters.
    claims : mapping of str to Claim, optional
        Which ones, such as those of `matching`.

    Returns
    -------
    str

    Examples
    --------
    >>> import ufm
    >>> "zhao2026.thm3.2" in ufm.claims.table()
    True
    """
    lines = []
    shown = registry() if claims is None else claims
    for name, claim in shown.items():
        layers = "; ".join(f"{layer}: {status}" for layer, status in claim.layers.items())
        lines.append(name)
        for text in (claim.statement, str(claim.source), layers):
            lines += textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="      ")
    return "\n".join([*lines, f"{len(shown)} claim{'s' if len(shown) != 1 else ''}"])
