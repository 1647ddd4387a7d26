"""Which closed-form solution has the least loss, over decay, classes and depth: ReLU with MSE, linear with CE."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ufm import plotting
from ufm.theory import deep_collapse as collapse
from ufm.theory import deep_cross_entropy as entropy
from ufm.theory import strongly_regular_graph as graph

LOSSES = ("mse", "ce")
PHASES = ("zero", "DNC", "one graph", "several blocks", "opposed pairs")
SHADES = ("#d9d9d9", "#56B4E9", "#D55E00", "#E69F00", "#009E73")
DEPTHS = {"mse": (3, 4, 6), "ce": (2, 3, 6)}  # of the panels over K
CLASSES, ALL_DEPTHS = np.arange(2, 46), np.arange(1, 9)
VERTICES = tuple(range(4, 11))  # of graphs on up to 45 classes
FIXED_CLASSES = 10  # of the panels over L
DECAYS = {"mse": (1e-3, 0.5), "ce": (1e-3, 1.0)}
POINTS, QUICK_POINTS = 240, 80
SCALES = np.geomspace(1e-3, 60.0, 3_000)  # of the logits, to follow the losses of cross-entropy
SAME = 1e-12  # losses that differ by less are equal, and the simpler solution is named


def compute(quick: bool) -> xarray.Dataset:
    """Phase and least loss at every decay, K and L, and where DNC ceases to beat zero; fewer decays if quick."""
    count = QUICK_POINTS if quick else POINTS
    decay = {loss: np.geomspace(*DECAYS[loss], count) for loss in LOSSES}
    winner = {"mse": _squared_error, "ce": _cross_entropy}
    limit = {"mse": _squared_error_limit, "ce": _cross_entropy_limit}
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for loss in LOSSES:
        over_classes = [[winner[loss](int(K), L, decay[loss]) for K in CLASSES] for L in DEPTHS[loss]]
        over_depths = [winner[loss](FIXED_CLASSES, int(L), decay[loss]) for L in ALL_DEPTHS]
        variables[f"{loss}_decay"] = (("point",), decay[loss])
        for i, name in enumerate(("phase", "ratio")):
            kept = np.array([[pair[i] for pair in row] for row in over_classes])
            variables[f"{loss}_{name}"] = ((f"{loss}_depth", "classes", "point"), kept)
            kept = np.array([pair[i] for pair in over_depths])
            variables[f"{loss}_{name}_depths"] = (("depth", "point"), kept)
        edges = np.array([[limit[loss](int(K), L) for K in CLASSES] for L in DEPTHS[loss]])
        variables[f"{loss}_limit"] = ((f"{loss}_depth", "classes"), edges)
        edges = np.array([limit[loss](FIXED_CLASSES, int(L)) for L in ALL_DEPTHS])
        variables[f"{loss}_limit_depths"] = (("depth",), edges)
    sizes = [[_graph_limit(r, L) for r in VERTICES] for L in DEPTHS["mse"]]
    variables["mse_graph_limit"] = (("mse_depth", "vertices"), np.array(sizes))
    data = xarray.Dataset(
        variables,
        {
            "vertices": list(VERTICES),
            "classes": CLASSES.astype(np.int32),
            "depth": ALL_DEPTHS.astype(np.int32),
            **{f"{loss}_depth": list(DEPTHS[loss]) for loss in LOSSES},
        },
    )
    data.attrs = {
        "caption": _caption(data),
        "source": "closed forms of this package; the states are those of arXiv 2405.14468 (squared error, recalled and "
        "derived) and arXiv 2410.23169v2 (cross-entropy)",
        "settings": f"n = 1, all decays equal; squared error {DECAYS['mse']}, cross-entropy {DECAYS['ce']}, {count} "
        "decays",
    }
    return data


def _squared_error(K: int, depth: int, decay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase and least loss over that of DNC or zero at every decay: classes are shared out among the best blocks.

    Blocks decouple, so the least loss of m of the K classes follows from that of fewer: the last block is one class
    by itself (collapsed, or zero), or a graph in the cheapest of its variants.
    """
    alone = {1: _block(graph.collapsed_block(1), K, depth, decay)}
    for r in range(4, K + 1) if depth >= 3 else ():
        if graph.classes_of(r) <= K:
            alone[graph.classes_of(r)] = _block(_cheapest(r, depth), K, depth, decay)
    least = [np.zeros_like(decay)]
    graphs = [np.zeros((2, len(decay)), int)]  # number of graphs, and of classes in them
    for m in range(1, K + 1):
        value, held = least[m - 1] + alone[1], graphs[m - 1].copy()
        for size in (size for size in alone if 1 < size <= m):
            other = least[m - size] + alone[size]
            better = other < value - SAME
            value = np.where(better, other, value)
            held = np.where(better, graphs[m - size] + np.array([[1], [size]]), held)
        least.append(value)
        graphs.append(held)
    number, inside = graphs[K]
    phase = np.select(
        [least[K] >= 0.5 - SAME, number == 0, (number == 1) & (inside == K)],
        [PHASES.index("zero"), PHASES.index("DNC"), PHASES.index("one graph")],
        PHASES.index("several blocks"),
    )
    return phase.astype(np.int32), least[K] / (K * alone[1])


def _block(block: graph.Block, K: int, depth: int, decay: np.ndarray) -> np.ndarray:
    """Part of the loss that a block takes at best, zero included; output a multiple of the targets."""
    missing = collapse.shortfall(graph.block_strength(block, K, decay, depth), depth)
    share = block.classes / K
    return np.asarray(share * np.minimum(0.5, collapse.stationary_loss(1 - missing, depth, missing)))


def _squared_error_limit(K: int, depth: int) -> float:
    """Decay at which DNC and zero have the same loss."""
    return float(collapse.zero_limit(depth) / K)


def _cheapest(r: int, depth: int) -> graph.Block:
    """The variant of least loss, at every decay, of a graph on r vertices."""
    variants = [graph.graph_block(r, variant) for variant in graph.VARIANTS]
    return min(variants, key=lambda block: float(graph.block_spread(block, depth)))


def _graph_limit(r: int, depth: int) -> float:
    """Decay at which one graph on all classes and zero have the same loss."""
    return float(collapse.zero_limit(depth) / graph.block_spread(_cheapest(r, depth), depth))


def _cross_entropy(K: int, depth: int, decay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase and least loss over that of DNC or zero at every decay; K <= 3 has no two pairs."""
    losses = [np.full_like(decay, np.log(K))]
    losses += [
        np.interp(decay, *_branch(K, depth, state)[::-1], right=np.inf)
        for state in entropy.STATES[: 1 if K <= 3 else 2]
    ]
    table = np.array(losses)
    place = np.argmin(table, axis=0)
    phase = np.array([PHASES.index(name) for name in ("zero", "DNC", "opposed pairs")])[place]
    return phase.astype(np.int32), table.min(axis=0) / table[:2].min(axis=0)


def _branch(K: int, depth: int, state: str) -> tuple[np.ndarray, np.ndarray]:
    """Loss and decay along the larger critical scales, the decay increasing: the minimum of the pattern."""
    odd = K % 2 == 1
    rates = entropy.critical_decay(SCALES, K, depth, state, odd=odd)
    upper = np.arange(len(SCALES)) >= np.argmax(rates)
    scale, rates = SCALES[upper][::-1], rates[upper][::-1]
    return entropy.objective(scale, K, depth, rates, state, odd=odd), rates


def _cross_entropy_limit(K: int, depth: int) -> float:
    """Decay at which DNC and zero have the same loss, or beyond which there is none."""
    losses, rates = _branch(K, depth, "dnc")
    return float(np.interp(np.log(K), losses, rates))


def _caption(data: xarray.Dataset) -> str:
    least = {loss: float(data[f"{loss}_ratio"].min()) for loss in LOSSES}
    return (
        "The closed-form solution of least loss, all decays lambda, n = 1. Top, squared error with ReLU: zero, neural "
        "collapse (DNC), one graph state (SRG and its variants: edges, Kneser, best design) on all classes, or the "
        "best division into several blocks, graphs and collapsed classes; each state at its best scales with output a "
        "multiple of the targets. At L <= 2 there are no graph states, and DNC is optimal (recalled). Bottom, "
        "cross-entropy with linear layers: zero, DNC, or classes opposed in pairs (odd K: one class left over). Black "
        "line: where DNC and zero have the same loss; dots: where one graph and zero do. Fourth column: over depth, "
        f"K = {FIXED_CLASSES}. Only these families are compared: gradient descent finds states below DNC for K = 3, 4, "
        "5 at L = 4 (figure dufm_small_k), and deep cross-entropy has states of rank 2 and mixtures, left out. Least "
        f"loss over the better of DNC and zero shown: squared error {least['mse']:.3f}, cross-entropy "
        f"{least['ce']:.3f}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """One row for each loss: three depths over decay and K, and one K over decay and depth."""
    figure = Figure(figsize=(9.8, 5.0), layout="constrained")
    grid = figure.subplots(2, 4)
    names = {"mse": "MSE, ReLU", "ce": "CE, linear"}
    for row, loss in zip(grid, LOSSES, strict=True):
        decay = data[f"{loss}_decay"].values
        for ax, depth in zip(row, data[f"{loss}_depth"].values, strict=False):
            one = data.sel({f"{loss}_depth": depth})
            _cells(ax, decay, one["classes"].values, one[f"{loss}_phase"].values, one[f"{loss}_limit"].values)
            ax.set_title(f"{names[loss]}, L = {depth}", loc="left")
            if loss == "mse":
                _graph_limits(ax, one)
        row[0].set_ylabel("classes K")
        _cells(
            row[3],
            decay,
            data["depth"].values,
            data[f"{loss}_phase_depths"].values,
            data[f"{loss}_limit_depths"].values,
        )
        row[3].set_title(f"{names[loss]}, K = {FIXED_CLASSES}", loc="left")
        row[3].set_ylabel("depth L")
    for ax in grid[1]:
        ax.set_xlabel(plotting.LABELS["decay"])
    handles: list[Artist] = [
        Patch(color=shade, label=phase) for phase, shade in zip(PHASES, SHADES, strict=True)
    ]
    handles += grid[0, 0].get_lines()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7.5)
    return figure


def _graph_limits(ax: Axes, one: xarray.Dataset) -> None:
    """Dots where a graph on all classes and zero have the same loss."""
    sizes = [graph.classes_of(int(r)) for r in one["vertices"].values]
    ax.plot(
        one["mse_graph_limit"].values, sizes, "o", color="black", markersize=2.8, markerfacecolor="white",
        markeredgewidth=0.7, label="one graph = zero",
    )  # fmt: skip


def _cells(ax: Axes, decay: np.ndarray, rows: np.ndarray, phase: np.ndarray, limit: np.ndarray) -> None:
    """Phases as colours, one row of cells for each whole number, and the line where DNC and zero are equal."""
    colours = ListedColormap(list(SHADES))
    norm = BoundaryNorm(np.arange(len(PHASES) + 1) - 0.5, len(PHASES))
    half = (decay[1] / decay[0]) ** 0.5
    columns = np.concatenate([decay[:1] / half, decay * half])
    edges = np.concatenate([rows - 0.5, rows[-1:] + 0.5])
    ax.pcolormesh(columns, edges, phase, cmap=colours, norm=norm, rasterized=True)
    ax.step(
        np.repeat(limit, 2), np.stack([edges[:-1], edges[1:]], axis=1).ravel(), color="black", linewidth=0.9,
        label="DNC = zero",
    )  # fmt: skip
    plotting.log_axis(ax, "x", decay[0], decay[-1], ticks=4)
