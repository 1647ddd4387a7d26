"""Low-rank states of the ReLU DUFM: loss over that of DNC, rank found against decay, share of DNC against width."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ufm
from figures._dufm import PAPER, START, last_losses, last_ranks, train
from ufm import plotting
from ufm.solutions import dnc, srg
from ufm.theory import strongly_regular_graph as graph

DECAY, LR, DEPTH, CLASSES = 0.004, 0.5, 4, 10
DEPTHS, VERTICES = (3, 4, 5), (4, 5, 6, 7, 8, 9)  # r = 10 at L = 5: DNC is zero
RANK_CLASSES, RANK_WIDTH = (10, 15), 30
STEPS, QUICK_STEPS = 30_000, 3_000
SEEDS, QUICK_SEEDS = 64, 16
EXPONENTS, QUICK_EXPONENTS = (-10, -9, -8, -7, -6), (-10, -8, -6)
WIDTHS, QUICK_WIDTHS = (15, 20, 25, 30, 35, 40, 50, 64), (15, 20, 25, 30)
LOOKS = (("green", "s"), ("blue", "o"), ("red", "^"))


def compute(quick: bool) -> xarray.Dataset:
    """Ratios of closed forms and of explicit states; ranks at the end of every run; fewer runs, steps if quick."""
    steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if quick else (STEPS, SEEDS)
    exponents = QUICK_EXPONENTS if quick else EXPONENTS
    widths = QUICK_WIDTHS if quick else WIDTHS
    by_decay = [
        [_runs(classes, RANK_WIDTH, 2.0**e, steps, seeds) for e in exponents] for classes in RANK_CLASSES
    ]
    by_width = [_runs(CLASSES, width, DECAY, steps, seeds) for width in widths]
    data = xarray.Dataset(
        {
            **_ratios(),
            "decay_rank": (("classes", "exponent", "seed"), _stacked(by_decay, "ranks")),
            "decay_loss": (("classes", "exponent", "seed"), _stacked(by_decay, "losses")),
            "width_rank": (("width", "seed"), _stacked([by_width], "ranks")[0]),
            "width_loss": (("width", "seed"), _stacked([by_width], "losses")[0]),
            "dnc_loss": ((), dnc(_problem(CLASSES, CLASSES), ufm.Coupled(DECAY)).loss),
            "srg_loss": ((), srg(_problem(CLASSES, CLASSES), ufm.Coupled(DECAY)).loss),
        },
        {
            "depth": list(DEPTHS),
            "vertices": list(VERTICES),
            "classes": list(RANK_CLASSES),
            "exponent": list(exponents),
            "width": list(widths),
            "seed": np.arange(seeds),
        },
    )
    data.attrs = {
        "caption": _caption(data, steps),
        "source": f"simulation by this package and closed forms; after figure 3 of {PAPER}, of which the caption was "
        "read",
        "settings": f"L = {DEPTH}, {ufm.GD(LR)!r}, {START}, n = 1, {seeds} seeds, {steps} steps; by decay: width "
        f"{RANK_WIDTH}; by width: K = {CLASSES}, decay {DECAY:g}",
    }
    return data


def _problem(classes: int, width: int, depth: int = DEPTH) -> ufm.DUFM:
    return ufm.DUFM(classes, width, depth)


def _ratios() -> dict[str, tuple[tuple[str, str], np.ndarray]]:
    """Loss of SRG states over that of DNC at one decay: closed forms, and explicit states by the kernels."""
    decay, axes = ufm.Coupled(DECAY), ("depth", "vertices")
    found = {name: np.zeros((len(DEPTHS), len(VERTICES))) for name in ("kneser", "best", "explicit")}
    for i, depth in enumerate(DEPTHS):
        for j, r in enumerate(VERTICES):
            K = graph.classes_of(r)
            problem = _problem(K, K, depth)
            collapsed, state = dnc(problem, decay), srg(problem, decay)
            values = [problem.value(one.blocks, decay) for one in (state, collapsed)]
            found["kneser"][i, j] = state.loss / collapsed.loss
            found["best"][i, j] = graph.loss(r, DECAY, [DECAY] * depth, variant="best") / collapsed.loss
            found["explicit"][i, j] = values[0] / values[1]
    return {name: (axes, values) for name, values in found.items()}


def _runs(classes: int, width: int, rate: float, steps: int, seeds: int) -> dict[str, np.ndarray]:
    """Rank of M_3 and objective at the end of every run."""
    runs = train(_problem(classes, width), ufm.Coupled(rate), LR, steps, range(seeds))
    return {"ranks": last_ranks(runs)[:, DEPTH - 2], "losses": last_losses(runs)}


def _stacked(table: list[list[dict[str, np.ndarray]]], name: str) -> np.ndarray:
    return np.stack([np.stack([cell[name] for cell in row]) for row in table])


def _caption(data: xarray.Dataset, steps: int) -> str:
    best = float(data["width_loss"].min() / data["dnc_loss"])
    return (
        f"(a) Loss of the SRG over that of neural collapse, K = r(r-1)/2, all decays {DECAY:g}, n = 1: closed form of "
        "the Kneser variant (solid) and of the best last two layers known (dashed), and explicit Kneser states by the "
        "simulator (markers); beyond these r collapse itself shrinks to zero for L = 5. "
        f"(b) Rank of the class means M_3 (before the ReLU, singular values above a hundredth of the largest) at "
        f"L = {DEPTH}, width {RANK_WIDTH} over the decay: mean and standard error. The paper's caption gives K = 10 or "
        f"K = 15, two readings differ, so both are shown. (c) Share of runs in which M_3 has rank K = {CLASSES}, that "
        "is, neural collapse, over the width, with 68 % Wilson intervals. The caption there states 5 runs and leaves "
        f"open n, start, steps and both grids; here n = 1, learning rate {LR:g}, {START}, {data.sizes['seed']} runs of "
        f"{steps} steps each. Best loss over that of collapse in (c): {best:.4f}, the SRG has "
        f"{float(data['srg_loss'] / data['dnc_loss']):.4f}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Three panels: ratio over r, rank over decay, share of DNC over width."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_ratios(left, data)
    _draw_ranks(middle, data)
    _draw_shares(right, data)
    figure.suptitle(
        "ReLU DUFM, squared error: low-rank states against deep neural collapse (DNC); "
        f"{data.sizes['seed']} runs for each point in (b) and (c)",
        fontsize=9,
    )
    return figure


def _draw_ratios(ax: Axes, data: xarray.Dataset) -> None:
    r = data["vertices"].values
    ax.axhline(1.0, color=plotting.QUIET, linewidth=0.8, zorder=0)
    ax.annotate("DNC", (r[-1], 1.0), (0, 2), textcoords="offset points", ha="right", color=plotting.QUIET)
    for depth, (colour, marker) in zip(data["depth"].values, LOOKS, strict=True):
        one, shade = data.sel(depth=depth), plotting.COLOURS[colour]
        ax.plot(r, one["kneser"].values, "-", color=shade, linewidth=0.9)
        ax.plot(r, one["best"].values, "--", color=shade, linewidth=0.9)
        ax.plot(r, one["explicit"].values, marker, color=shade, markerfacecolor="none", label=f"L = {depth}")
    ax.plot([], [], "-", color=plotting.PREDICTION, linewidth=0.9, label="Kneser")
    ax.plot([], [], "--", color=plotting.PREDICTION, linewidth=0.9, label="best design")
    ax.set_ylim(0.47, 1.1)
    ax.set_xlabel("vertices r,  K = r(r − 1)/2")
    ax.set_ylabel("loss of SRG / loss of DNC")
    ax.set_title(f"(a) closed forms, λ = {DECAY:g}", loc="left")
    ax.legend(fontsize=6.5, ncols=2, loc="lower left", columnspacing=1.0)


def _draw_ranks(ax: Axes, data: xarray.Dataset) -> None:
    x = data["exponent"].values.astype(float)
    for i, (K, (colour, marker)) in enumerate(zip(data["classes"].values, LOOKS[1:], strict=True)):
        ranks = data["decay_rank"].sel(classes=K).values
        error = ranks.std(axis=1, ddof=1) / np.sqrt(ranks.shape[1])
        shade = plotting.COLOURS[colour]
        shift = 0.06 * (2 * i - 1)  # so that bars do not cover each other
        plotting.error_bars(
            ax, x + shift, ranks.mean(axis=1), error, colour=shade, marker=marker, label=f"K = {K}"
        )
    ax.set_xlabel("log₂ λ")
    ax.set_ylabel("rank of M₃, mean and standard error")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_title(f"(b) L = {DEPTH}, width {RANK_WIDTH}", loc="left")
    ax.legend(fontsize=6.5)


def _draw_shares(ax: Axes, data: xarray.Dataset) -> None:
    widths = data["width"].values.astype(float)
    collapsed = (data["width_rank"] == CLASSES).values
    share, low, high = _wilson(collapsed.sum(axis=1), collapsed.shape[1])
    plotting.error_bars(
        ax,
        widths,
        share,
        np.stack([share - low, high - share]),
        colour=plotting.COLOURS["blue"],
        label="runs",
    )
    ax.set_ylim(-0.03, 1.05)
    ax.set_xlabel("width d")
    ax.set_ylabel("share of DNC, 68 % interval")
    ax.set_title(f"(c) L = {DEPTH}, K = {CLASSES}, λ = {DECAY:g}", loc="left")


def _wilson(successes: np.ndarray, runs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of successes with the Wilson interval of one standard error, which holds it and stays in [0, 1]."""
    share = successes / runs
    middle = (share + 0.5 / runs) / (1 + 1 / runs)
    half = np.sqrt(share * (1 - share) / runs + 0.25 / runs**2) / (1 + 1 / runs)
    return share, np.minimum(middle - half, share), np.maximum(middle + half, share)
