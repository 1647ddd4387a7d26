"""The main job: two models, every optimizer, and for each run the theorem that predicts it or why none does."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ufm.compare import Report, Row, judged
from ufm.decay import Coupled, Decay, Decoupled, Mixed
from ufm.initial import Gaussian, LinearDefault, SimplexETF, Start, Zeros
from ufm.metrics import nc0
from ufm.optimizers import GD, Adam, Momentum, SignGD, Signum
from ufm.problems import UFM
from ufm.record import LogSpaced
from ufm.schedules import StepDecay
from ufm.simulate import simulate
from ufm.stepping import collector_at_rest
from ufm.storage import write_atomically, write_picture
from ufm.trajectory import Trajectory


@dataclass(frozen=True)
class Setting:
    """What is minimised, and from where."""

    name: str
    problem: UFM
    init: Any


FREE = Setting(
    "free features",
    UFM(classes=10, width=16, per_class=5),
    Start(W=LinearDefault(), H=Gaussian(0.1)),
)
ETF = Setting(
    "features frozen at a simplex ETF (theorems 3.3, 3.4)",
    UFM(classes=10, width=10, features=SimplexETF()),
    Zeros(),
)
STEPS, QUICK_STEPS = 10_000, 2_000
LAM, LAM_SIGN = 5e-3, 5e-2  # total decay of the SGD family, decoupled decay of the sign and adaptive methods
LAW = "ufm.row_sum_law"  # its reason is shown where no claim applies


@dataclass(frozen=True)
class Case:
    """One run of the demo."""

    label: str
    optimizer: Any
    decay: Decay
    setting: Setting = ETF

    @property
    def file(self) -> str:
        """Name of the stored run."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()) + ".npz"


CASES = (
    Case("GD coupled", GD(0.1), Coupled(LAM), FREE),
    Case("GD decoupled", GD(0.1), Decoupled(LAM), FREE),
    Case("Momentum coupled", Momentum(0.1, 0.9), Coupled(LAM), FREE),
    Case("Momentum decoupled", Momentum(0.1, 0.9), Decoupled(LAM), FREE),
    Case("Momentum mixed", Momentum(0.1, 0.9), Mixed(coupled=LAM / 2, decoupled=LAM / 2), FREE),
    Case("Nesterov coupled", Momentum(0.1, 0.9, nesterov=True), Coupled(LAM), FREE),
    Case("Momentum step decay", Momentum(StepDecay(0.1), 0.9), Coupled(LAM), FREE),
    Case("SignGD, free features", SignGD(2e-4), Decoupled(LAM_SIGN), FREE),
    Case("AdamW, free features", Adam(1e-3), Decoupled(LAM_SIGN), FREE),
    Case("SignGD decoupled", SignGD(1e-2), Decoupled(LAM_SIGN)),
    Case("SignGD coupled", SignGD(1e-2), Coupled(LAM)),
    Case("SignGD step decay", SignGD(StepDecay(1e-2)), Coupled(LAM)),
    Case("Adam(0, 0, eps=0) decoupled", Adam(1e-2, beta1=0.0, beta2=0.0, eps=0.0), Decoupled(LAM_SIGN)),
    Case("Signum decoupled", Signum(1e-2, 0.9), Decoupled(LAM_SIGN)),
    Case("Signum coupled", Signum(1e-2, 0.9), Coupled(LAM)),
    Case("AdamW decoupled", Adam(1e-2), Decoupled(LAM_SIGN)),
    Case("Adam coupled", Adam(1e-2), Coupled(LAM)),
    Case("Adam mixed", Adam(1e-2), Mixed(coupled=LAM, decoupled=LAM_SIGN, shrink="after")),
)


@dataclass(frozen=True)
class Result:
    """One line of the table and one curve of the figure."""

    case: Case
    steps: np.ndarray
    alpha: np.ndarray
    relative: np.ndarray
    predicted: np.ndarray | None
    row: Row | None
    reason: str

    @property
    def label(self) -> str:
        """Name of the run."""
        return self.case.label

    @property
    def verdict(self) -> str:
        """Verdict of the claim shown."""
        return "no theorem" if self.row is None else self.row.verdict


def result_of(case: Case, trajectory: Trajectory, report: Report) -> Result:
    """What the table and the figure need of a run."""
    row = report.best
    alpha, predicted = nc0(trajectory), None
    squared = np.sum(trajectory["W"] ** 2, axis=(1, 2))
    if row is not None and row.prediction is not None:
        predicted = row.prediction.nc0
    return Result(
        case=case,
        steps=trajectory.steps,
        alpha=alpha,
        relative=np.divide(alpha, squared, out=np.full_like(alpha, np.nan), where=squared > 0),
        predicted=predicted,
        row=row,
        reason=report[LAW].reason if row is None else row.reason,
    )


COLUMNS = (
    "run",
    "optimizer",
    "decay",
    "alpha",
    "alpha/||W||^2",
    "claim",
    "predicted",
    "error/bound",
    "verdict",
)


def _decay_text(decay: Decay) -> str:
    if isinstance(decay, Mixed):
        return f"{_decay_text(decay.coupled)} + {_decay_text(decay.decoupled)}"  # type: ignore[arg-type]
    return f"{decay.rate:g} {type(decay).__name__.lower()}"


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    decay = _decay_text(result.case.decay)
    end = (f"{result.alpha[-1]:.3e}", f"{result.relative[-1]:.3e}")
    optimizer = repr(result.case.optimizer)
    if row is None:
        return (result.label, optimizer, decay, *end, "none", "", "", result.reason)
    predicted = "" if result.predicted is None else f"{result.predicted[-1]:.3e}"
    return (result.label, optimizer, decay, *end, row.name, predicted, f"{row.ratio:.2f}", row.verdict)


def table(results: Iterable[Result]) -> str:
    """The table as text; the last column holds the verdict, or the number of the note that says why none applies."""
    rows: list[tuple[str, ...]] = [(COLUMNS[0], *COLUMNS[2:])]
    notes: list[str] = []
    for result in results:
        label, _, *cells, last = _cells(result)  # the optimizer stands in table.csv: too wide for a terminal
        if result.row is None:
            if last not in notes:
                notes.append(last)
            last = f"[{notes.index(last) + 1}]"
        rows.append((label, *cells, last))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"[{i}] no theorem: {note}" for i, note in enumerate(notes, 1))])


FLOOR = (
    "The verdict compares the row sum m_t (theorems 3.3, 3.4 and the symmetric path: W_t) with a round-off bound, not "
    "alpha with alpha: an alpha below about 1e-27 is round-off of that sum."
)


def _write(folder: Path, results: list[Result]) -> None:
    """Table, curves and figure, each whole or not at all."""
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *(_cells(result) for result in results)])
    write_atomically(folder / "table.csv", text.getvalue().encode())
    curves: dict[str, np.ndarray] = {"steps": results[0].steps, "runs": np.array([r.label for r in results])}
    curves["alpha"] = np.array([r.alpha for r in results])
    curves["predicted"] = np.array(
        [np.full_like(r.alpha, np.nan) if r.predicted is None else r.predicted for r in results]
    )
    data = io.BytesIO()
    np.savez(data, **curves)  # type: ignore[arg-type]
    write_atomically(folder / "curves.npz", data.getvalue())
    with collector_at_rest():
        from ufm import plotting

        write_picture(folder / "demo.png", plotting.demo_figure(results, columns=6))


def main(out: Path, quick: bool = False, progress: bool = True, say: Callable[[str], Any] = print) -> int:
    """Simulate every case, print the table, write figure and data.

    Parameters
    ----------
    out : Path
        Folder for the figure, the table, the curves and the runs; made if need be.
    quick : bool
        2,000 steps instead of 10,000.
    progress : bool
        Show a progress bar.
    say : callable
        Where lines of text go.

    Returns
    -------
    int
        0 if no claim fails, else 1.

    Raises
    ------
    StorageError
        If the folder cannot be written.
    """
    from tqdm.auto import tqdm

    started = time.perf_counter()
    steps = QUICK_STEPS if quick else STEPS
    write_atomically(out / "README.txt", b"Written by `ufm demo`: one stored run per line of table.csv.\n")
    for setting in (FREE, ETF):
        sizes = f"K = {setting.problem.classes}, d = {setting.problem.width}, n = {setting.problem.per_class}"
        say(f"{setting.name}: {sizes}; {steps} steps from {setting.init!r}")
        say(f"  coupled    {setting.problem.formula(Coupled(LAM))}")
        say(f"  decoupled  {setting.problem.formula(Decoupled(LAM))}")
    say("alpha = ||W^T 1||_2^2 / K (NC0)\n")
    results, ok = [], True
    with tqdm(CASES, unit="run", disable=not progress, leave=False) as bar:
        for case in bar:
            bar.set_description(case.label)
            trajectory = simulate(
                case.setting.problem,
                case.optimizer,
                case.decay,
                steps=steps,
                init=case.setting.init,
                record=LogSpaced(100),
            )
            report = judged(trajectory)
            ok = ok and report.ok
            results.append(result_of(case, trajectory, report))
            trajectory.save(out / case.file)
    _write(out, results)
    say(table(results))
    say(FLOOR)
    say(f"\nfigure, table, curves and runs are in {out}/ ({time.perf_counter() - started:.1f} s)")
    return 0 if ok else 1
