"""The three phases of SignGD with coupled decay, its limit cycle, and what a step-wise decay of the rate does to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import row_sum
from ufm.theory import signgd_coupled as theory

CLASSES, LR, LAM = 10, 1e-2, 5e-3
STEPS, ZOOM = 700, 40  # the zoom shows the last of the steps
MANY, QUICK_MANY = 10**6, 10**3  # classes of the second column, for the sum over samples
MANY_LAM_CLASSES = 0.05  # lam K there, so that softmax saturates
MANY_FIRST_FLIP = 17  # its steps up to the first flip
SLOW, FAST = (0.1, 2000), (0.5, 100)  # factor and steps of a stage: slow enough for alpha -> 0, and too fast
DECAYED_STEPS = 20_000
RECORDED = 7  # every so many steps; even periods of the limit cycle would show one of its points only


def compute(quick: bool) -> xarray.Dataset:
    """The pair (a, b) along runs at constant and at decaying rates, the K x K matrix beside one of them."""
    many = QUICK_MANY if quick else MANY
    data = xarray.Dataset({**_few_classes(), **_many_classes(many), **_decayed()})
    marks = theory.marks(LR, LAM, CLASSES)
    data.attrs = {
        "classes": CLASSES,
        "first_flip": marks.first_flip,
        "phase_2_end": marks.phase_2_end,
        "a_end": marks.a_end,
        "b_end": marks.b_end,
        "width": marks.width,
        "peak": marks.peak,
        "lr": LR,
        "many_classes": many,
        "caption": _caption(data, marks, many),
        "source": f"simulation by this package; {row_sum.PAPER}, theorem 3.4, marks derived here",
        "settings": (
            f"UFM(classes=K, width=K, features=SimplexETF()), Zeros() start, SignGD(lr), Coupled(lam); K = {CLASSES}, "
            f"lam = {LAM:g}, lr = {LR:g} or StepDecay from it; K = {many}, lam = {_many_lam(many):g}, "
            f"reduction='sum', lr = x1/{MANY_FIRST_FLIP - 0.5:g}; the matrix by simulate, the pair by "
            "simulate_symmetric"
        ),
    }
    return data


def _few_classes() -> dict[str, Any]:
    matrix = ufm.simulate(
        ufm.UFM(classes=CLASSES, width=CLASSES, features=ufm.SimplexETF()),
        ufm.SignGD(LR), ufm.Coupled(LAM), steps=STEPS, init=ufm.Zeros(),
    )  # fmt: skip
    pair = ufm.simulate_symmetric(CLASSES, ufm.SignGD(LR), ufm.Coupled(LAM), steps=STEPS)
    W = matrix["W"]
    mirrored = np.stack([pair.weights(i) for i in range(len(pair))])
    return {
        "step": ("record", pair.steps),
        "a": ("record", pair.a),
        "b": ("record", pair.b),
        "matrix_a": ("record", W[:, 0, 0]),
        "matrix_b": ("record", -W[:, 0, 1]),
        "matrix_alpha": ("record", ufm.metrics.nc0(matrix)),
        "alpha": ("record", pair.alpha),
        "matrix_difference": ("record", np.abs(W - mirrored).max(axis=(1, 2))),
    }


def _many_lam(classes: int) -> float:
    return MANY_LAM_CLASSES / classes


def _many_classes(classes: int) -> dict[str, Any]:
    """One run from the first step into the limit cycle; marks in its own units."""
    lam = _many_lam(classes)
    lr = float(theory.first_balance(lam, classes, 1.0)) / (MANY_FIRST_FLIP - 0.5)
    marks = theory.marks(lr, lam, classes, 1.0)
    pair = ufm.simulate_symmetric(
        classes, ufm.SignGD(lr), ufm.Coupled(lam), steps=int(1.7 * marks.phase_2_end), record=ufm.LogSpaced(600),
        reduction="sum",
    )  # fmt: skip
    return {
        "many_step": ("many_record", pair.steps),
        "many_a": ("many_record", pair.a),
        "many_b": ("many_record", pair.b),
        "many_alpha": ("many_record", pair.alpha),
        "many_marks": (
            "many_mark",
            [marks.first_flip, marks.phase_2_end, marks.a_end, marks.b_end, marks.peak],
        ),
    }


def _decayed() -> dict[str, Any]:
    """alpha under two step-wise decays and the bound on it; one falls slowly enough, one does not."""
    found: dict[str, Any] = {}
    for name, (factor, stage) in {"slow": SLOW, "fast": FAST}.items():
        schedule = ufm.StepDecay(LR, at=range(stage, DECAYED_STEPS, stage), factor=factor)
        pair = ufm.simulate_symmetric(
            CLASSES, ufm.SignGD(schedule), ufm.Coupled(LAM), steps=DECAYED_STEPS, record=ufm.Every(RECORDED)
        )
        bound = theory.envelope(schedule.rates(DECAYED_STEPS), LAM, CLASSES)[pair.steps]
        found["decayed_step"] = ("decayed_record", pair.steps)
        found[f"{name}_alpha"] = ("decayed_record", pair.alpha)
        found[f"{name}_bound"] = ("decayed_record", bound**2)
    return found


def _caption(data: xarray.Dataset, marks: theory.Marks, many: int) -> str:
    a, b, alpha = (data[name].values for name in ("a", "b", "alpha"))
    flip = int(np.argmax(np.diff(b) <= 0))
    turn = int(np.argmax(np.diff(a) <= 0))
    cycle = float(np.abs(a - (CLASSES - 1) * b)[-ZOOM:].max()) / LR
    late = data["decayed_step"] >= DECAYED_STEPS - SLOW[1]
    slow, fast = (float(data[f"{name}_alpha"].where(late).max()) for name in ("slow", "fast"))
    many_peak, many_law = float(data["many_alpha"].max()), float(data["many_marks"][-1])
    beyond = int((data["slow_alpha"] > data["slow_bound"] * (1 + 1e-9)).sum())
    return (
        f"SignGD with coupled decay from W = 0, W_t = (a + b) I - b J, K = {CLASSES}, lambda = {LAM:g}, eta = {LR:g}; "
        "black, blue and red, the recursion of a and b; light dots, the K x K matrix, which differs by at most "
        f"{float(data['matrix_difference'].max()):.1g}. Phase 1: a = b up to the first flip at step {flip} "
        f"(predicted ceil(x1/eta) = {marks.first_flip}), where alpha peaks at {alpha[flip]:.4f} (predicted "
        f"{marks.peak:.4f}). Phase 2: b hovers while a grows, up to step {turn} (predicted near a*/eta = "
        f"{marks.phase_2_end:.1f}). Phase 3: limit cycle around a* = {marks.a_end:.5f}, b* = {marks.b_end:.6f}, "
        f"|a - (K-1) b| <= {cycle:.2f} eta over the last {ZOOM} steps (proved bound {marks.width:.2f} eta), alpha from "
        f"{alpha[-ZOOM:].min():.0e}, which the axis leaves out, to {alpha[-ZOOM:].max():.2g}. Lower "
        f"left: the same for K = {many}, loss summed over samples, lambda = {_many_lam(many):g}, alpha at most "
        f"{many_peak:.4g} (predicted peak {many_law:.4g}). Lower right: with eta divided by {1 / SLOW[0]:g} every "
        f"{SLOW[1]} steps alpha is at most {slow:.1e} in the last {SLOW[1]} of {DECAYED_STEPS} steps, and above the "
        f"proved bound at {beyond} of {data.sizes['decayed_record']} records; control: with eta halved every "
        f"{FAST[1]} steps, too fast to get there, it is {fast:.1f}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Rows: few classes with the limit cycle, many classes with the decayed rates; columns: a and b, alpha, detail."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    grid = figure.subplots(2, 3)
    ends = data.attrs["first_flip"], data.attrs["phase_2_end"]
    names = "step", "a", "b", "alpha"
    few, many = ({name: data[prefix + name].values for name in names} for prefix in ("", "many_"))
    matrix = {name: data["matrix_" + name].values for name in names[1:]}
    many_flip, many_turn, many_a, many_b, many_peak = data["many_marks"].values

    _pair(grid[0, 0], few, ends, (data.attrs["a_end"], data.attrs["b_end"]), matrix)
    _alpha(grid[0, 1], few, ends, data.attrs["peak"], data.attrs["lr"] ** 2, matrix)
    _cycle(grid[0, 2], data)
    for ax in grid[1, :2]:
        ax.set(xscale="log", yscale="log")
    _pair(grid[1, 0], many, (many_flip, many_turn), (many_a, many_b))
    _alpha(grid[1, 1], many, (many_flip, many_turn), many_peak, 1e-5 * many_peak)
    _decay(grid[1, 2], data)
    for row, classes in zip(grid, (data.attrs["classes"], data.attrs["many_classes"]), strict=True):
        row[0].set_title(f"K = {_count(classes)}: W = (a + b)I − bJ", loc="left")
        row[1].set_title(f"K = {_count(classes)}: NC0", loc="left")
    return figure


def _count(classes: int) -> str:
    power = round(np.log10(classes))
    return f"10{'⁰¹²³⁴⁵⁶⁷⁸⁹'[power]}" if classes >= 1000 and 10**power == classes else f"{classes}"


def _pair(
    ax: Axes, run: dict[str, Any], ends: tuple[float, float], centre: tuple[float, float], matrix: Any = None
) -> None:
    """a and b over steps, their limits dotted."""
    positive = run["step"] > 0
    for name, colour, level in zip("ab", ("blue", "red"), centre, strict=True):
        if matrix is not None:
            every = slice(0, None, 25)
            ax.plot(
                run["step"][every], matrix[name][every], "o", color=plotting.COLOURS["sky"], markeredgewidth=0,
                label="K × K matrix" if name == "b" else None,
            )  # fmt: skip
        ax.plot(run["step"][positive], run[name][positive], color=plotting.COLOURS[colour], label=name)
        ax.axhline(level, color=plotting.COLOURS[colour], linestyle=":", linewidth=0.8, label=f"{name}*")
    plotting.phases(ax, ends, float(run["step"][-1]))
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.82)}
    if ax.get_yscale() == "linear":
        place = {"loc": "center right", "bbox_to_anchor": (1.0, 0.48)}
    ax.legend(handlelength=1.4, **place)
    ax.set_ylabel("a, b")
    ax.set_ylim(top=1.2 * centre[0] if ax.get_yscale() == "linear" else 50 * centre[0])


def _alpha(
    ax: Axes, run: dict[str, Any], ends: tuple[float, float], peak: float, lowest: float, matrix: Any = None
) -> None:
    """alpha over steps on a logarithmic ordinate from `lowest` on, the peak marked."""
    positive = run["step"] > 0
    if matrix is not None:
        every = slice(4, None, 17)
        ax.plot(
            run["step"][every], matrix["alpha"][every], "o", color=plotting.COLOURS["sky"], markeredgewidth=0,
            label="K × K matrix",
        )  # fmt: skip
    ax.plot(
        run["step"][positive], run["alpha"][positive], ".", color=plotting.COLOURS["black"], markersize=2.0,
        markeredgewidth=0, label="recursion",
    )  # fmt: skip
    ax.plot(ends[0], peak, "v", color=plotting.COLOURS["red"], label="predicted peak")
    ax.set_yscale("log")
    ax.set_ylabel(plotting.LABELS["alpha"])
    ax.set_ylim(lowest, 30 * peak)  # the limit cycle passes through 0
    ax.legend(loc="lower left", markerscale=1.5)
    plotting.phases(ax, ends, float(run["step"][-1]))


def _cycle(ax: Axes, data: xarray.Dataset) -> None:
    """The last steps of a - (K-1) b in units of eta, inside the proved width."""
    last = slice(-ZOOM, None)
    step, lr, K = data["step"].values[last], data.attrs["lr"], data.attrs["classes"]
    for prefix, style in (("matrix_", "o"), ("", "-")):
        difference = (data[prefix + "a"].values - (K - 1) * data[prefix + "b"].values)[last] / lr
        colour = plotting.COLOURS["sky" if prefix else "black"]
        ax.plot(step, difference, style, color=colour, markeredgewidth=0, linewidth=0.8)
    for sign in (-1, 1):
        ax.axhline(sign * data.attrs["width"], color=plotting.COLOURS["red"], linestyle="--", linewidth=0.9)
    ax.set(xlabel=plotting.LABELS["step"], ylabel="(a − (K−1)b) / η")
    ax.set_title(f"limit cycle, proved bound ±{data.attrs['width']:.1f}", loc="left")


def _decay(ax: Axes, data: xarray.Dataset) -> None:
    """alpha under two step-wise decays, and the bound on the one that vanishes."""
    step = data["decayed_step"].values
    curves = (("slow", "blue", SLOW), ("fast", "orange", FAST))
    for name, colour, (factor, stage) in curves:
        ax.plot(
            step, data[f"{name}_alpha"].values, ".", color=plotting.COLOURS[colour], markersize=2.5,
            markeredgewidth=0, label=f"η/{1 / factor:g} every {stage:,} steps",
        )  # fmt: skip
    ax.plot(
        step, data["slow_bound"], "--", color=plotting.COLOURS["red"], linewidth=0.9, label="proved bound"
    )
    ax.set(yscale="log", xlabel=plotting.LABELS["step"], ylabel=plotting.LABELS["alpha"])
    ax.set_ylim(
        float(data["slow_bound"][-1]) / 1e6, 10 * float(data["slow_bound"][0])
    )  # cycles pass through 0
    ax.set_title(f"K = {data.attrs['classes']}: step-wise decay of η", loc="left")
    ax.legend(loc="lower left", markerscale=1.5)
