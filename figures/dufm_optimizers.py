"""Which solution of the DUFM every optimizer reaches, with coupled and decoupled decay, at L = 2, 3, 4."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

import ufm
from ufm import plotting
from ufm.claims import registry
from ufm.compare import judge
from ufm.ensemble import ensemble
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.metrics import classify_solution, nc0
from ufm.run import Run
from ufm.schedules import rates
from ufm.solutions import Solution, dnc, low_rank, srg

CLASSES, WIDTH, PER_CLASS = 10, 25, 2
LAM = 0.008
GAINS = {"relu": 2.0, "identity": 1.0}  # a layer's weights start at the variance gain/width, H at 1/width
QUICKER = 40  # times fewer steps
SEEDS, QUICK_SEEDS = 16, 1
DEPTHS = (2, 3, 4)
MODELS = {
    "MSE, ReLU": ("mse", "relu"),
    "CE, linear": ("ce", "identity"),
    "CE, ReLU": ("ce", "relu"),
    "MSE, linear": ("mse", "identity"),
}
QUICK_MODELS = ("MSE, ReLU", "CE, linear")
OPTIMIZERS: dict[str, tuple[Any, int]] = {  # with the number of steps
    "GD": (ufm.GD(ufm.Cosine(1.0)), 10_000),
    "momentum": (ufm.Momentum(ufm.Cosine(0.1), 0.9), 10_000),
    "SignGD": (ufm.SignGD(ufm.Cosine(0.004)), 5000),
    "Signum": (ufm.Signum(ufm.Cosine(0.004), 0.9), 5000),
    "Adam": (ufm.Adam(ufm.Cosine(0.008)), 5000),
}
DECAYS = ("coupled", "decoupled")
TOLERANCE = 0.05  # distance at which a state counts as a solution
LAW, VERDICTS = "ufm.row_sum_law", ("not applicable", "holds", "inconclusive", "fails")
REACHED = ("DNC", "SRG, kneser", "low rank", *(f"rank {r}" for r in range(CLASSES, 0, -1)), "zero")
KNOWN = {"DNC": "blue", "SRG, kneser": "green", "low rank": "orange", "zero": "black"}
NAMES = {"low rank": "opposed pairs", "SRG, kneser": "SRG"}


def compute(quick: bool) -> xarray.Dataset:
    """The end of every run: what was reached, objective, ranks, DNC1 to DNC3 and NC0 of the last layer."""
    models = QUICK_MODELS if quick else tuple(MODELS)
    seeds, fewer = (QUICK_SEEDS, QUICKER) if quick else (SEEDS, 1)
    shape = {
        "model": models, "depth": DEPTHS, "optimizer": tuple(OPTIMIZERS), "decay": DECAYS,
        "seed": tuple(range(seeds)),
    }  # fmt: skip
    sizes = tuple(map(len, shape.values()))
    measured = ("ratio", "rank", "dnc1", "dnc2", "dnc3", "nc0", "nc0_law", "reached")
    found = {name: np.zeros(sizes) for name in measured}
    known = np.zeros((len(models), len(DEPTHS), len(KNOWN) - 1))
    for (i, model), (j, depth) in product(enumerate(models), enumerate(DEPTHS)):
        loss, activation = MODELS[model]
        problem = ufm.DUFM(CLASSES, WIDTH, depth, PER_CLASS, activation=activation, loss=loss)
        solutions, start = _solutions(problem), _start(activation)
        known[i, j] = [solutions[n].loss if n in solutions else 0.0 for n in KNOWN if n != "zero"]
        for k, (name, (optimizer, all_steps)) in enumerate(OPTIMIZERS.items()):
            steps = all_steps // fewer
            runs = [
                Run(problem, optimizer, decay, start, steps, seed, ufm.At([0, steps // 20]))
                for decay in (ufm.Coupled(LAM), ufm.Decoupled(_shrink(name)))
                for seed in range(seeds)
            ]
            for at, trajectory in enumerate(ensemble(runs)):
                place = (i, j, k, *divmod(at, seeds))
                for quantity, value in _end(trajectory, solutions).items():
                    found[quantity][place] = value
    data = xarray.Dataset(
        {
            **{name: (tuple(shape), values) for name, values in found.items()},
            "counts": (
                (*tuple(shape)[:-1], "solution"),
                np.stack([(found["reached"] == i).sum(axis=-1) for i in range(len(REACHED))], axis=-1),
            ),
            "known": (("model", "depth", "closed_form"), known / known[..., :1]),
        },
        {
            **{name: list(values) for name, values in shape.items()},
            "solution": list(REACHED),
            "closed_form": [name for name in KNOWN if name != "zero"],
        },
    )
    data["reached"] = data["reached"].astype(np.int32)
    data.attrs = {
        "caption": _caption(data),
        "source": "simulation by this package; closed forms of ufm.solutions, states named by ufm.metrics",
        "settings": (
            f"K = {CLASSES}, n = {PER_CLASS}, width {WIDTH}, coupled decay {LAM:g}, seeds 0 to {seeds - 1}; "
            + "; ".join(
                f"{optimizer!r}, {steps // fewer} steps, decoupled decay {_shrink(name):g}"
                for name, (optimizer, steps) in OPTIMIZERS.items()
            )
            + f"; start {', '.join(f'{name} {_start(name)!r}' for name in GAINS)}; a solution is reached within the "
            f"distance {TOLERANCE:g}; dnc1 to dnc3 are those of the last hidden layer, -1 where all class means are 0; "
            "nc0_law: 0 the law does not apply, 1 it holds, 2 inconclusive, 3 it fails"
        ),
    }
    return data


def _start(activation: str) -> Any:
    """Start at which signals keep their size from layer to layer."""
    return ufm.Start(ufm.Gaussian((GAINS[activation] / WIDTH) ** 0.5), H=ufm.Gaussian(WIDTH**-0.5))


def _shrink(name: str) -> float:
    """Decoupled rate at which all optimizers shrink the state by the same factor over a whole run; LAM for GD.

    For momentum that is LAM/(1 - beta), at which its fixed points are the critical points of the objective.
    """
    own, GD = (float(rates(one.lr, steps).sum()) for one, steps in (OPTIMIZERS[name], OPTIMIZERS["GD"]))
    return LAM * GD / own


def _solutions(problem: ufm.DUFM) -> dict[str, Solution]:
    """Closed forms of a problem by name."""
    found = {}
    for build in (dnc, srg, low_rank):
        try:
            solution = build(problem, ufm.Coupled(LAM))
        except (InvalidProblemError, IncompatibleError):
            continue
        found[solution.name] = solution
    return found


def _end(trajectory: ufm.Trajectory, solutions: dict[str, Solution]) -> dict[str, float]:
    """What the last record is, the decay LAM being part of the objective whatever the run's own was."""
    state = classify_solution(
        trajectory.problem,
        trajectory.state(len(trajectory) - 1),
        ufm.Coupled(LAM),
        solutions=tuple(solutions.values()),
        tolerance=TOLERANCE,
    )
    row = judge(registry()[LAW], trajectory.judged())
    metrics = {
        name: float(np.nan_to_num(getattr(state, name)[-1], nan=-1.0)) for name in ("dnc1", "dnc2", "dnc3")
    }
    return {
        "ratio": state.loss / solutions["DNC"].loss,
        "rank": state.rank,
        "nc0": float(nc0(trajectory)[-1]),
        "nc0_law": VERDICTS.index(row.verdict),
        "reached": REACHED.index(state.name),
        **metrics,
    }


def _tally(data: xarray.Dataset) -> str:
    """Counts of reached solutions, most frequent first, ranks without a name together."""
    total = data["counts"].sum([d for d in data["counts"].dims if d != "solution"]).values
    named = {NAMES.get(n, n): int(c) for n, c in zip(REACHED, total, strict=True) if n in KNOWN}
    named["other"] = int(total.sum()) - sum(named.values())
    parts = sorted(((c, n) for n, c in named.items() if c), reverse=True)
    return ", ".join(f"{n} {c}" for c, n in parts)


def _caption(data: xarray.Dataset) -> str:
    coupled = "; ".join(
        f"{model}, L = {depth}: {_tally(data.sel(model=model, depth=depth, decay='coupled'))}"
        for model in data["model"].values.tolist()
        for depth in DEPTHS
    )
    ratio = data["ratio"].median("seed")
    GD, adaptive = (
        ratio.sel(optimizer=chosen, decay="decoupled") / ratio.sel(optimizer=chosen, decay="coupled")
        for chosen in (["GD", "momentum"], ["SignGD", "Signum", "Adam"])
    )
    law = data["nc0_law"].values
    return (
        f"Ends of {data['ratio'].size} runs on the DUFM with K = {CLASSES}, n = {PER_CLASS}, width {WIDTH}: bars count "
        "the solutions reached, points are the objective F over that of deep neural collapse (DNC), one for each seed; "
        f"vertical lines are the closed forms. F holds the coupled decay {LAM:g} for every run. In general a decoupled "
        "run minimises no fixed objective. Under GD, and under momentum at the rate lambda/(1 - beta) chosen here, its "
        "fixed points are still the critical points of F; the sign and adaptive methods have others, F is a mere "
        "yardstick for them, and frames at any scale count as DNC. Their decoupled rate shrinks the state by the same "
        "factor over the run as that of GD. Reached under "
        f"coupled decay, {coupled}. Median F, decoupled over coupled: GD and momentum {float(GD.min()):.3f} to "
        f"{float(GD.max()):.3f}, sign and adaptive methods {float(adaptive.min()):.2f} to {float(adaptive.max()):.2f}. "
        f"The row-sum law of NC0 was judged in {int((law > 0).sum())} runs (cross-entropy, GD and momentum) and holds "
        f"in {int((law == 1).sum())}. Steps fall to 0 along half a cosine."
    )


def draw(data: xarray.Dataset) -> Figure:
    """One row for each model, and for each depth counts beside objectives."""
    models = data["model"].values.tolist()
    figure = Figure(figsize=(9.8, 0.9 + 2.1 * len(models)), layout="constrained")
    grid = figure.subplots(
        len(models), 2 * len(DEPTHS), squeeze=False, width_ratios=[1.0, 2.0] * len(DEPTHS), sharey=True
    )
    figure.get_layout_engine().set(w_pad=0.02, wspace=0.01)  # type: ignore[union-attr, call-arg]
    rows = [f"{name}, {kind}" for name in data["optimizer"].values for kind in DECAYS]
    for axes, model in zip(grid, models, strict=True):
        for j, depth in enumerate(DEPTHS):
            bars, points = axes[2 * j], axes[2 * j + 1]
            one = data.sel(model=model, depth=depth)
            _bars(bars, one)
            _points(points, one)
            bars.set_title(f"{model}, L = {depth}", loc="left")
        places = _places(len(rows) // 2)
        axes[0].set_yticks(places, rows, fontsize=6.5)
        axes[0].set_ylim(places[-1] + 0.6, -0.6)
    for j in range(len(DEPTHS)):
        grid[-1, 2 * j].set_xlabel("runs")
        grid[-1, 2 * j + 1].set_xlabel("F / F of DNC")
    seen = data["counts"].sum([d for d in data["counts"].dims if d != "solution"]).values > 0
    patches = [
        Patch(color=_colour(name), label=NAMES.get(name, name))
        for name, once in zip(REACHED, seen, strict=True)
        if once or name in data["closed_form"]
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=7)
    return figure


def _places(optimizers: int) -> np.ndarray:
    """Ordinates of the rows: the two decays of an optimizer close together."""
    return np.ravel([(2.5 * i, 2.5 * i + 1.0) for i in range(optimizers)])


def _colour(name: str) -> Any:
    """Colour of a solution; of a rank without a name, from purple (low) to light grey (full)."""
    if name in KNOWN:
        return plotting.COLOURS[KNOWN[name]]
    low, high = np.array([0.50, 0.15, 0.50]), np.array([0.86, 0.86, 0.86])
    share = (int(name.removeprefix("rank ")) - 1) / (CLASSES - 1)
    return tuple(low + share * (high - low))


def _bars(ax: Axes, one: xarray.Dataset) -> None:
    """How many runs of each optimizer and decay reached what."""
    counts = one["counts"].values.reshape(-1, len(REACHED))
    places, left = _places(len(counts) // 2), np.zeros(len(counts))
    for name, column in zip(REACHED, counts.T, strict=True):
        ax.barh(places, column, left=left, height=0.9, color=_colour(name), linewidth=0)
        left += column
    ax.set_xlim(0, left.max())
    ax.set_xticks([0, int(left.max())])
    ax.tick_params(axis="y", length=0)


def _points(ax: Axes, one: xarray.Dataset) -> None:
    """Objective of every run over that of DNC, in the colour of what was reached; lines at the closed forms."""
    ratios, reached = (one[name].values.reshape(-1, one.sizes["seed"]) for name in ("ratio", "reached"))
    for name, level in zip(one["closed_form"].values.tolist(), one["known"].values, strict=True):
        if level > 0:
            ax.axvline(level, color=_colour(name), linewidth=0.9, zorder=0)
    for place, values, codes in zip(_places(len(ratios) // 2), ratios, reached, strict=True):
        jitter = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else 0.0
        colours = [_colour(REACHED[code]) for code in codes]
        ax.scatter(values, place + jitter, s=8, c=colours, edgecolors="black", linewidths=0.2)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(axis="y", length=0)
