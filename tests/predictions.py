"""Short runs, one or more for every claim about runs, and what the claims say of them, in a few numbers each.

``python -m tests.predictions`` writes these numbers to ``tests/data/predictions.json``. They say nothing of what is
right, which the tests of each room judge; `tests.theory.test_predictions` says when an error model or a perturbed
statement has changed, and whoever means the change writes them anew and reads the difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ufm
from ufm.claims import Prediction, registry
from ufm.losses import CrossEntropy
from ufm.run import Run

RECORD = Path(__file__).with_name("data") / "predictions.json"
MOST = 4  # records that are written down, the first and the last among them
BELOW_EVERY_BOUND = -10.0  # an objective


def simplex(classes: int, width: int, per_class: int = 1) -> ufm.UFM:
    """H frozen at the simplex ETF, in its own coordinates."""
    features = np.zeros((width, classes * per_class))
    features[:classes] = np.repeat(ufm.simplex_etf(classes), per_class, axis=1)
    return ufm.UFM(classes, width, per_class, features=features)


def balanced(problem: Any) -> ufm.Given:
    """An aligned start of the squared error with as many samples in every class."""
    from ufm.theory.mse_flow import aligned_blocks

    small = 0.2 * np.random.default_rng(1).standard_normal((problem.classes, problem.widths[0]))
    return ufm.Given(**aligned_blocks(small, problem.class_sizes[0]))


def by_modes(problem: Any) -> ufm.Given:
    """A start of a regression, so far from an aligned one that round-off in finding that one does not matter."""
    from ufm.theory.regression import aligned_blocks, modes_of

    aligned = aligned_blocks(problem, modes_of(problem), np.full(3, 0.3), np.full(3, 0.2))
    return ufm.Given(**{name: np.asarray(block) + 5e-12 for name, block in aligned.items()})


SUM = ufm.MSE(reduction="sum")
SMOOTHED = CrossEntropy(smoothing=0.1, reduction="sum")
CLASSES = ufm.UFM(3, 4, 2)
ONE_LAYER, ONE_LAYER_SUM = ufm.UFM(3, 4, 2, loss="mse"), ufm.UFM(3, 4, 2, bias=True, loss=SUM)
TARGETS = ufm.correlated_targets([[4.0, 1.0, 0.5], [1.0, 2.0, -0.3], [0.5, -0.3, 1.0]], 6)
REGRESSION = ufm.RegressionUFM(TARGETS, 3, bias=True)
CHAIN = ufm.DUFM(3, (5, 4, 4), 3, 2, activation="identity", bias=True)
FALLING, GAUSSIAN, MODES = ufm.StepDecay(0.1), ufm.Gaussian(0.5), ufm.Spectral((0.3, 0.5, 0.6, 0.7))
COLLAPSE = ("zhu2021.global_optimum", "ufm.cross_entropy_gap", "ufm.cross_entropy_norms")
ANY_START = ("ufm.gap_bounds_intra", "zhao2026.prop2.1", "zhao2026.lemE.5", "ufm.row_sum_law")


@dataclass(frozen=True)
class Short:
    """A run of twelve steps that some claims are asked about.

    Parameters
    ----------
    claims : sequence of str
        Names of the claims.
    problem, optimizer, decay
        As for `ufm.simulate`.
    init : optional
        The start, by default Gaussian entries of size 1/2.
    every : int
        Steps between records.
    options : mapping of str to Any
        More arguments of `ufm.simulate`.
    """

    claims: Sequence[str]
    problem: Any
    optimizer: Any
    decay: Any = None
    init: Any = GAUSSIAN
    every: int = 4
    options: tuple[tuple[str, Any], ...] = ()

    def judged(self) -> Run:
        """The run with its trajectory."""
        return ufm.simulate(
            self.problem, self.optimizer, self.decay, init=self.init,
            **{"steps": 12, "seed": 1, "record": ufm.Every(self.every), **dict(self.options)},
        ).judged()  # fmt: skip


SINGLE = (("dtype", "float32"),)
RUNS = {
    "cross-entropy": Short((*COLLAPSE, *ANY_START), CLASSES, ufm.GD(FALLING), ufm.Coupled(W=0.02, H=0.01)),
    "smoothed sum with a bias": Short(
        ("ufm.balancedness", *COLLAPSE, "zhao2026.prop2.1", "zhao2026.thm3.2"),
        ufm.UFM(3, 4, 2, bias=True, loss=SMOOTHED), ufm.GD(0.05), ufm.Coupled(0.03), every=1,
    ),
    "batches in single precision": Short(
        (*ANY_START, "zhu2021.global_optimum"), CLASSES, ufm.Momentum(0.1, 0.9, nesterov=True),
        ufm.Mixed(0.03, 0.02), options=(*SINGLE, ("batch", 3)),
    ),
    "decoupled momentum": Short(
        ("zhao2026.thm3.1", "ufm.row_sum_law"), CLASSES, ufm.Momentum(FALLING, 0.9), ufm.Decoupled(W=0.02),
    ),
    "shrunk after the step": Short(
        ("ufm.row_sum_law",), CLASSES, ufm.Momentum(0.1, 0.9), ufm.Mixed(0.03, 0.02, "after"),
    ),
    "no decay": Short(("ufm.row_sum_law",), CLASSES, ufm.GD(0.1)),
    "no row sum": Short(
        ("ufm.row_sum_law",), CLASSES, ufm.GD(0.1), ufm.Coupled(0.02), ufm.Start(W=ufm.Zeros(), H=ufm.Gaussian(0.5)),
    ),
    "unequal classes": Short(
        ("hong2023.convex", "hong2023.merging", "zhao2026.lemE.5"),
        ufm.UFM(3, 4, (3, 1, 1)), ufm.Adam(0.05), ufm.Coupled(0.04),
    ),
    "unequal classes in single precision": Short(
        ("hong2023.convex", "hong2023.merging"),
        ufm.UFM(4, 4, (3, 3, 1, 1)), ufm.GD(0.05), ufm.Coupled(0.1), options=SINGLE,
    ),
    "deep cross-entropy": Short(
        ("ufm.balancedness", "ufm.row_sum_law"),
        ufm.DUFM(3, (5, 4, 4), 3, activation="identity", loss="ce"), ufm.GD(FALLING), ufm.Coupled(0.02), every=1,
    ),
    "squared error": Short(
        ("ufm.balancedness", "ufm.linear_mse_optimum"), ONE_LAYER, ufm.GD(0.1), ufm.Coupled(0.02), every=1,
    ),
    "sum of squares with a bias": Short(
        ("ufm.linear_mse_optimum", "ufm.mse_bias_optimum"), ONE_LAYER_SUM, ufm.Adam(0.05), ufm.Coupled(0.02),
    ),
    "deep linear in single precision": Short(
        ("ufm.balancedness", "ufm.linear_mse_optimum"), CHAIN, ufm.GD(0.1), ufm.Coupled(0.02), every=1, options=SINGLE,
    ),
    "two classes": Short(
        ("sukenik2023.binary", "ufm.product_bound"), ufm.DUFM(2, (5, 4, 4), 3, 2), ufm.GD(0.1), ufm.Coupled(0.01),
    ),
    "four classes in single precision": Short(
        ("ufm.product_bound",), ufm.DUFM(4, (5, 4, 4), 3, 2), ufm.GD(0.1), ufm.Coupled(0.01), options=SINGLE,
    ),
    "batch normalisation": Short(
        ("pan2023.optimum", "ufm.gap_bounds_intra", "zhao2026.thm3.2"),
        ufm.UFM(3, 4, 2, normalisation=ufm.BatchNorm(1e-5)), ufm.GD(0.1), ufm.Coupled(0.02),
    ),
    "batch normalisation in single precision": Short(
        ("pan2023.optimum",), ufm.UFM(3, 4, 2, normalisation=ufm.BatchNorm(1e-5)), ufm.GD(0.1), ufm.Coupled(0.02),
        options=SINGLE,
    ),
    "aligned": Short(
        ("ufm.aligned_recursion", "ufm.logistic_flow"), ONE_LAYER_SUM, ufm.GD(FALLING), init=balanced(ONE_LAYER_SUM),
    ),
    "aligned, averaged": Short(
        ("ufm.aligned_recursion", "ufm.logistic_flow"),
        ufm.UFM(4, 2, 3, bias=True, loss="mse"), ufm.GD(0.5), init=balanced(ufm.UFM(4, 2, 3, bias=True, loss="mse")),
    ),
    "regression by modes": Short(
        ("andriopoulos2024.minimum", "ufm.regression_modes"), REGRESSION, ufm.GD(FALLING),
        ufm.Coupled(W1=0.2, H=0.02), by_modes(REGRESSION),
    ),
    "coupled signs": Short(
        ("zhao2026.thm3.4", "ufm.symmetric_path"), simplex(4, 4), ufm.SignGD(0.1), ufm.Coupled(0.01), ufm.Zeros(),
        every=20, options=(("steps", 60),),
    ),
    "coupled signs in single precision": Short(
        ("zhao2026.thm3.4",), simplex(4, 6, 2), ufm.SignGD(ufm.StepDecay(0.1)), ufm.Coupled(0.01), ufm.Zeros(),
        every=20, options=(*SINGLE, ("steps", 60)),
    ),
    "decoupled signs": Short(
        ("zhao2026.thm3.3", "ufm.signgd_lock", "zhao2026.prop2.1"),
        simplex(4, 6, 2), ufm.SignGD(0.1), ufm.Decoupled(0.1), ufm.Zeros(),
    ),
    "locked signs": Short(
        ("ufm.signgd_lock",), simplex(4, 4), ufm.SignGD(FALLING), ufm.Decoupled(0.1),
        ufm.Given(W=np.eye(4) + np.arange(16).reshape(4, 4) / 160),
    ),
    "modes of cross-entropy": Short(
        ("ufm.spectral_recursion", "ufm.spectral_flow"),
        ufm.DUFM(4, 5, 2, 2, activation="identity", loss="ce"), ufm.GD(FALLING), ufm.Coupled(0.01), MODES,
    ),
    "modes of the sum of squares": Short(
        ("ufm.spectral_recursion", "ufm.spectral_flow"),
        ufm.UFM(4, 5, 2, loss=SUM), ufm.GD(0.02), ufm.Decoupled(0.01), MODES,
    ),
    "two values": Short(
        ("ufm.symmetric_path",), simplex(3, 3), ufm.Adam(0.05), ufm.Mixed(0.01, 0.02), ufm.Given(W=np.eye(3) - 0.3),
    ),
}  # fmt: skip


@cache
def run_of(name: str) -> Run:
    """One of the short runs."""
    return RUNS[name].judged()


def numbers(name: str, claim: str) -> dict[str, list[float | None] | float]:
    """What a claim says of a run: predictions, bounds and what its control moves, at up to `MOST` records."""
    run, asked = run_of(name), registry()[claim]
    assert asked.predict is not None
    assert asked.control is not None
    right, wrong = asked.predict(run), asked.control(run)
    found: dict[str, Any] = {
        "predicted": _folded(right.predicted),
        "moved": _folded(_apart(wrong) - _apart(right)),
        "bound": right.bound,
        "bound of the control": wrong.bound,
    }
    if right.nc0 is not None:
        found["nc0"] = right.nc0
    chosen = np.unique(np.linspace(0, len(right.bound) - 1, MOST).astype(int))
    found = {key: [_finite(values[i]) for i in chosen] for key, values in found.items()}
    if right.quantity.startswith("F, at least"):  # which shows only where the objective is below
        assert run.trajectory is not None
        fit = np.full_like(run.trajectory.fit, BELOW_EVERY_BOUND)
        lower = replace(run.trajectory, fit=fit).judged()
        found["least"] = float(asked.predict(lower).predicted[0])
        found["least of the control"] = float(asked.control(lower).predicted[0])
    return found


def _apart(prediction: Prediction) -> np.ndarray:
    """Predicted less observed values: a control may perturb either."""
    return np.asarray(prediction.predicted) - np.asarray(prediction.observed)


def _folded(values: np.ndarray) -> np.ndarray:
    """One number for each record, to which every entry adds with a weight of its own."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return flat @ (1.0 + np.arange(flat.shape[1]) % 7)


def _finite(value: float) -> float | None:
    """Numbers of a file, which knows no infinity."""
    return float(value) if np.isfinite(value) else None


def everything(select: Callable[[str, str], Any] = numbers) -> dict[str, dict[str, Any]]:
    """By run and claim."""
    return {name: {claim: select(name, claim) for claim in short.claims} for name, short in RUNS.items()}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(everything(), indent=1) + "\n", encoding="utf-8")
