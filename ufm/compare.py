"""A trajectory held against every claim that applies to it: error, bound, verdict, or why none applies.

It is also held against the solutions of its objective in closed form: which it has reached, who is lower, and how far
above the global minimum it ended where that is known or bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.claims import ROUND_OFF, Claim, Prediction, registry
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.problems import Problem, RegressionUFM
from ufm.run import Run
from ufm.trajectory import Trajectory

if TYPE_CHECKING:
    from ufm.metrics import Classification
    from ufm.solutions.solution import Solution

VERDICTS = ("holds", "fails", "inconclusive", "not applicable")
MOST_CLASSES = 16  # above, the best relabelling of the classes would take longer than the other rows together
REACHED = (
    1e-2  # relative distance within which an optimum is called reached, as by `ufm.metrics.classify_solution`
)


@dataclass(frozen=True)
class Row:
    """One claim's judgement of a run.

    Parameters
    ----------
    claim : Claim
        What was claimed.
    verdict : {"holds", "fails", "not applicable", "inconclusive"}
        Inconclusive: the run cannot refuse the perturbed statement either, because it is too short, nothing
        decays, or round-off has grown too large; or its last record has no bound.
    reason : str
        One sentence; for a claim that does not apply, the hypothesis that fails. It says how many records were
        judged where these are not all.
    error, bound : float
        Error and bound at the record where their ratio is worst; nan where the claim does not apply.
    ratio : float
        Largest error/bound over the records.
    control : float
        The same ratio for the perturbed statement: how clearly this run refuses a wrong prediction.
    prediction : Prediction, optional
        The numbers behind it.
    """

    claim: Claim
    verdict: str
    reason: str
    error: float = np.nan
    bound: float = np.nan
    ratio: float = np.nan
    control: float = np.nan
    prediction: Prediction | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name of the claim."""
        return self.claim.name

    def __str__(self) -> str:
        return f"{self.name} {self.verdict}: {self.reason}"


@dataclass(frozen=True)
class KnownSolution:
    """A solution in closed form beside the end of a run.

    Parameters
    ----------
    name : str
        Which one.
    loss : float
        Its objective, decay included.
    difference : float
        Final objective of the run minus `loss`.
    distance : float
        Between the two states, up to symmetries, see `ufm.metrics.classify_solution` (for a regression see
        `RegressionState`); nan above 16 classes, where no relabelling is sought.
    rank : int
        Of its class means before the last activation.
    optimum : bool
        Whether no state has a smaller objective.
    """

    name: str
    loss: float
    difference: float
    distance: float
    rank: int
    optimum: bool = False

    @property
    def lower(self) -> str:
        """Who has the smaller objective: "run", "solution", or "" where they agree to 1e-12."""
        from ufm.solutions.solution import RESOLVED

        if abs(self.difference) <= RESOLVED * self.loss:
            return ""
        return "run" if self.difference < 0 else "solution"


@dataclass(frozen=True)
class RegressionState:
    """Last record of a regression: its outputs beside those of the optimum, and how far regression collapse went.

    Parameters
    ----------
    name, reason : str
        "regression optimum" if the outputs are within 1e-2 of it, relative to its own; else "rank r".
    loss : float
        Objective, decay included.
    distance : float
        ||Z - Z*||_F/||Z*||_F of the outputs, which rotations of the features do not change; over ||Y||_F where Z* = 0.
    nrc1, nrc2, nrc3 : float
        See `ufm.metrics.nrc1`, `nrc2` and `nrc3`, the last at the gamma that fits best.
    """

    name: str
    reason: str
    loss: float
    distance: float
    nrc1: float
    nrc2: float
    nrc3: float

    @property
    def collapse(self) -> str:
        """The three numbers of regression collapse, in one sentence without a full stop."""
        return f"NRC1 {self.nrc1:.2g}, NRC2 {self.nrc2:.2g}, NRC3 {self.nrc3:.2g} (0 in regression collapse)"

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Ending:
    """The last record of a run, and the solutions of its objective in closed form.

    Parameters
    ----------
    classification : Classification or RegressionState
        Which solution the state is, with the evidence, from `ufm.metrics.classify_solution`; for a regression its
        outputs beside the optimum's.
    rows : tuple of KnownSolution
        Lowest loss first; a state that two formulas give is listed once.
    bound : float
        No state has a smaller objective, by duality at the last record; nan for two layers or more, frozen blocks and
        decay that leaves W or H out.
    """

    classification: Classification | RegressionState
    rows: tuple[KnownSolution, ...]
    bound: float = np.nan

    @property
    def name(self) -> str:
        """What was reached: the name of a solution, "zero", "DNC" or "rank r"."""
        return self.classification.name

    @property
    def optimum(self) -> KnownSolution | None:
        """The global minimum, where it is known in closed form."""
        return next((row for row in self.rows if row.optimum), None)

    @property
    def gap(self) -> float:
        """Largest amount by which the run can have ended above the global minimum; nan where nothing is known."""
        if self.optimum is not None:
            return max(self.optimum.difference, 0.0)
        return max(self.classification.loss - self.bound, 0.0) if np.isfinite(self.bound) else np.nan

    @property
    def verdict(self) -> str:
        """How far the run ended above the global minimum, and whether neural collapse holds, in one sentence."""
        loss = self.classification.loss
        if (best := self.optimum) is not None:
            above = _above(best, "the global minimum")
            away = f", at a distance of {best.distance:.2g} from it" if np.isfinite(best.distance) else ""
            found = f"{above}{away} ({best.name})"
        elif np.isfinite(self.bound):
            found = f"at most {max(loss - self.bound, 0.0):.2g} above the global minimum, by duality"
        else:
            found = f"{_above(self.rows[0], self.rows[0].name)}, the lowest solution known in closed form"
        return f"{found}; {self.classification.collapse}"

    def __getitem__(self, name: str) -> KnownSolution:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name}; solutions are {', '.join(row.name for row in self.rows)}")

    def __iter__(self) -> Iterator[KnownSolution]:
        return iter(self.rows)

    def __str__(self) -> str:
        width = max(len("solution"), *(len(row.name) for row in self.rows))
        lines = [f"{'solution':{width}s}  {'loss':>11s}  {'run - loss':>10s}  lower     distance  rank"]
        for row in self.rows:
            distance = f"{row.distance:8.2g}" if np.isfinite(row.distance) else f"{'':8s}"
            mark = "  <- reached" if row.name == self.name else ""
            lines.append(
                f"{row.name:{width}s}  {row.loss:11.7g}  {row.difference:+10.2e}  {row.lower:8s}  {distance}"
                f"  {row.rank:4d}{mark}"
            )
        reached = f"the run ends at loss {self.classification.loss:.7g}, {self.classification}"
        return "\n".join([*lines, reached, f"it is {self.verdict}"])


def _above(row: KnownSolution, name: str) -> str:
    """A run's final objective beside that of a solution, in words."""
    if not row.lower:
        return f"at {name} to round-off"
    return f"{abs(row.difference):.2g} {'above' if row.difference > 0 else 'below'} {name}"


@dataclass(frozen=True)
class Report:
    """Judgement of a run by every claim about runs.

    ``report["zhao2026.thm3.2"]`` is one `Row`; `ok` is False as soon as one claim fails. `ending` says which solution
    the run has reached; None where no closed form is known, as with decoupled decay or none.
    """

    rows: tuple[Row, ...]
    ending: Ending | None = None

    @property
    def ok(self) -> bool:
        """Whether no claim fails."""
        return all(row.verdict != "fails" for row in self.rows)

    @property
    def best(self) -> Row | None:
        """The most specific claim that applies and predicts a final value of NC0, if any."""
        judged = [row for row in self.rows if row.prediction is not None and row.prediction.nc0 is not None]
        return max(judged, key=lambda row: row.claim.rank, default=None)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name}; claims are {', '.join(row.name for row in self.rows)}")

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        counts = Counter(row.verdict for row in self.rows)
        found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        return f"<Report: {found}; print it for the table>"

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        lines = [
            f"{'claim':{width}s}  {'verdict':14s}  {'error':>9s}  {'bound':>9s}  {'control':>9s}  reason"
        ]
        for row in sorted(self.rows, key=lambda row: row.verdict == "not applicable"):
            numbers = "  ".join(
                f"{value:9.2e}" if np.isfinite(value) else f"{'':9s}"
                for value in (row.error, row.bound, row.control)
            )
            lines.append(f"{row.name:{width}s}  {row.verdict:14s}  {numbers}  {row.reason}")
        return "\n".join(lines if self.ending is None else [*lines, "", str(self.ending)])


def judge(claim: Claim, run: Run) -> Row:
    """Hold a run with its records against one claim about runs."""
    assert claim.applies is not None
    assert claim.predict is not None
    reason = claim.applies(run)
    if reason is not None:
        return Row(claim, "not applicable", reason)
    try:
        prediction = claim.predict(run)
        control = claim.control(run).ratio if claim.control is not None and len(prediction.bound) else np.nan
    except InvalidProblemError as refusal:
        return Row(claim, "inconclusive", f"the prediction cannot be evaluated: {refusal}")
    if not len(prediction.bound):
        return Row(claim, "inconclusive", f"{prediction.quantity} is not defined at any record")
    worst = int(np.argmax(prediction.ratios))
    error, bound, ratio = float(prediction.error[worst]), float(prediction.bound[worst]), prediction.ratio
    bounded = "the round-off bound" if prediction.allowance == ROUND_OFF else prediction.allowance
    if ratio > 1:
        verdict, reason = "fails", f"{prediction.quantity} is off by {ratio:.3g} times {prediction.allowance}"
    elif len(prediction.judged) > 1 and not prediction.judged[1:].any():
        verdict, reason = "inconclusive", "round-off may have taken over before the second record"
    elif not prediction.judged[-1]:
        verdict = "inconclusive"
        reason = f"{prediction.quantity} is right to {ratio:.2g} of {bounded} until round-off takes over"
    elif control <= 1:
        verdict = "inconclusive"
        reason = (
            f"{prediction.quantity.rstrip(',')}: this run cannot tell the claim from its perturbed statement"
            f" ({control:.2g} of {bounded})"
        )
    else:
        verdict, reason = "holds", f"{prediction.quantity} is right to {ratio:.2g} of {bounded}"
    return Row(
        claim, verdict, reason + _share_judged(prediction, run), error, bound, ratio, control, prediction
    )


def _share_judged(prediction: Prediction, run: Run) -> str:
    """How many records were judged, unless all were."""
    assert run.trajectory is not None
    count, total = int(prediction.judged.sum()), len(run.trajectory)
    return "" if count == total else f"; {count} of {total} records were judged"


def _ending(trajectory: Trajectory) -> Ending | None:
    """The solutions in closed form of a run's objective, beside its last record; None where there are none."""
    problem, decay = trajectory.problem, trajectory.run.decay
    if decay is None or not len(trajectory) or trajectory.status.name == "diverged":
        return None
    from ufm.fenchel import lower_bound
    from ufm.metrics import classify_solution
    from ufm.solutions import known

    found = known(problem, decay)
    if not found:
        return None
    reached: Classification | RegressionState
    if isinstance(problem, RegressionUFM):
        reached = _regression_state(trajectory, found[0])
        distances = {found[0].name: reached.distance}
    else:
        reached = classify_solution(trajectory, solutions=found if problem.classes <= MOST_CLASSES else ())
        distances = {one.solution: one.distance for one in reached.distances}
    rows = [
        KnownSolution(
            one.name,
            one.loss,
            reached.loss - one.loss,
            distances.get(one.name, np.nan),
            one.rank,
            one.optimum,
        )
        for one in found
    ]
    try:
        bound = lower_bound(problem, decay, trajectory.state(len(trajectory) - 1))
    except (InvalidProblemError, IncompatibleError):  # the objective has no convex bound
        bound = np.nan
    return Ending(reached, tuple(sorted(rows, key=lambda row: row.loss)), bound)


def _shift(problem: Problem, blocks: Mapping[str, Any]) -> Any:
    """The bias as a column, 0 without one."""
    return blocks["b"][:, None] if problem.bias else 0.0


def _regression_state(trajectory: Trajectory, best: Solution) -> RegressionState:
    """The last record of a regression beside its optimum."""
    from ufm.metrics import nrc1, nrc2, nrc3

    problem, end = trajectory.problem, trajectory.state(-1)
    assert isinstance(problem, RegressionUFM)
    Z, optimal = (blocks["W"] @ blocks["H"] + _shift(problem, blocks) for blocks in (end, best.blocks))
    norms = (np.linalg.norm(optimal), np.linalg.norm(problem.targets.array), 1.0)
    distance = float(np.linalg.norm(Z - optimal) / next(norm for norm in norms if norm > 0))
    loss = problem.value(end, trajectory.run.decay)
    if distance <= REACHED:
        name = best.name
        reason = (
            f"the outputs are {distance:.2g} from its own and the loss exceeds its by {loss - best.loss:.2g}"
        )
    else:
        values = np.linalg.svd(end["W"] @ end["H"], compute_uv=False)
        name = f"rank {int((values > REACHED * values[0]).sum())}"
        reason = f"the outputs are {distance:.2g} of their norm from those of the {best.name}"
    collapse = [float(metric(trajectory)[-1]) for metric in (nrc1, nrc2, nrc3)]
    return RegressionState(name, reason, loss, distance, *collapse)


def compare(trajectory: Trajectory) -> Report:
    """Find which claims apply to a run, and for each whether it holds, how exactly, or why it does not apply.

    Parameters
    ----------
    trajectory : Trajectory
        A simulated run.

    Returns
    -------
    Report
        One row for each claim about runs; errors are judged against an error model, not a relative tolerance. Also
        the `Ending`: solutions in closed form, the one reached, whose loss is lower, how far the global minimum is.

    Raises
    ------
    InvalidProblemError
        For anything that is not a trajectory.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate(ufm.UFM(classes=3, width=4), ufm.GD(0.1), ufm.Coupled(0.01), steps=200)
    >>> ufm.compare(run)["zhao2026.thm3.2"].verdict
    'holds'
    >>> problem, decay = ufm.DUFM(classes=2, width=4, depth=2), ufm.Coupled(0.01)
    >>> run = ufm.simulate(problem, ufm.GD(0.5), decay, steps=5000, init=ufm.Gaussian(0.5))
    >>> ending = ufm.compare(run).ending
    >>> ending.name, ending["DNC"].difference < 1e-10, ending["zero"].lower
    ('DNC', True, 'run')
    """
    if not isinstance(trajectory, Trajectory):
        raise invalid("compare.trajectory", trajectory, "a Trajectory, as simulate and load return it")
    return replace(judged(trajectory), ending=_ending(trajectory))


def judged(trajectory: Trajectory) -> Report:
    """The rows of `compare` alone, for who does not read the ending, which takes longer than they do."""
    run = trajectory.judged()
    return Report(tuple(judge(claim, run) for claim in registry().values() if claim.applies is not None))
