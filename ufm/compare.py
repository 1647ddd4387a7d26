"""A trajectory held against every claim that applies to it: error, bound, verdict, or why none applies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ufm.claims import Claim, Prediction, registry
from ufm.errors import InvalidProblemError, invalid
from ufm.run import Run
from ufm.trajectory import Trajectory


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
    prediction: Prediction | None = None

    @property
    def name(self) -> str:
        """Name of the claim."""
        return self.claim.name


@dataclass(frozen=True)
class Report:
    """Judgement of a run by every claim about runs.

    ``report["zhao2026.thm3.2"]`` is one `Row`; `ok` is False as soon as one claim fails.
    """

    rows: tuple[Row, ...]

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
        return "\n".join(lines)


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
    if ratio > 1:
        verdict, reason = "fails", f"{prediction.quantity} is off by {ratio:.3g} times what round-off can do"
    elif len(prediction.judged) > 1 and not prediction.judged[1:].any():
        verdict, reason = "inconclusive", "round-off may have taken over before the second record"
    elif not prediction.judged[-1]:
        verdict = "inconclusive"
        reason = (
            f"{prediction.quantity} is right to {ratio:.2g} of the round-off bound until round-off takes over"
        )
    elif control <= 1:
        verdict = "inconclusive"
        reason = (
            f"{prediction.quantity}: this run cannot tell the claim from its perturbed statement"
            f" ({control:.2g} of the round-off bound)"
        )
    else:
        verdict, reason = "holds", f"{prediction.quantity} is right to {ratio:.2g} of the round-off bound"
    return Row(
        claim, verdict, reason + _share_judged(prediction, run), error, bound, ratio, control, prediction
    )


def _share_judged(prediction: Prediction, run: Run) -> str:
    """How many records were judged, unless all were."""
    assert run.trajectory is not None
    count, total = int(prediction.judged.sum()), len(run.trajectory)
    return "" if count == total else f"; {count} of {total} records were judged"


def compare(trajectory: Trajectory) -> Report:
    """Find which claims apply to a run, and for each whether it holds, how exactly, or why it does not apply.

    Parameters
    ----------
    trajectory : Trajectory
        A simulated run.

    Returns
    -------
    Report
        One row for each claim about runs; errors are judged against an error model, not a relative tolerance.

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
    """
    if not isinstance(trajectory, Trajectory):
        raise invalid("compare.trajectory", trajectory, "a Trajectory, as simulate and load return it")
    run = trajectory.judged()
    return Report(tuple(judge(claim, run) for claim in registry().values() if claim.applies is not None))
