"""Cost of a step against K at d = K, n = 1, with the time of its products and exponentials alone."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from threadpoolctl import threadpool_limits

import ufm
from ufm import ensemble

from . import bounds
from .cases import Case
from .systems import Runner, ours
from .timing import interleaved

CURVE = (4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256)
RUNS = 32  # of an ensemble: two batches of lanes

# largest weight matrix that goes into lanes: as chosen, and so that one family serves every size
FAMILIES = {"ensemble": ensemble.LARGEST_IN_LANES, "lanes": 2**62, "BLAS": 0}


def forced(run: Runner, largest: int) -> Runner:
    """`run` with another limit between the families."""

    def with_limit(steps):
        with mock.patch.object(ensemble, "LARGEST_IN_LANES", largest):
            return run(steps)

    return with_limit


def worst_choice(rows: Sequence[dict[str, float]]) -> tuple[float, float]:
    """How many times the better family's time the chosen one needs at worst, and the K where."""
    return max((row["ensemble"] / min(row["lanes"], row["BLAS"]), row["K"]) for row in rows)


def measure_curve(sizes: Sequence[int], seconds: float, repeats: int) -> list[dict[str, float]]:
    """CPU microseconds per step and run at each K, on one BLAS thread."""
    rows = []
    with threadpool_limits(1):
        for K in sizes:
            one = Case("", ufm.UFM(K, K), 1, 0)
            systems = {"one run": ours(one), "dgemm": bounds.square_products, "exp": bounds.exponentials_of}
            many = ours(Case("", one.problem, RUNS, 0))
            systems |= {name: forced(many, largest) for name, largest in FAMILIES.items()}
            found = interleaved(systems, seconds, repeats)
            times = {name: median(time["cpu"]) for name, time in found.items()}
            times["dgemm"] *= one.flops / (2 * bounds.SQUARE**3)
            times["exp"] *= K * K / bounds.NUMBERS
            for name in FAMILIES:
                times[name] /= RUNS
            rows.append({"K": K, **times})
            print(
                f"K = {K}: " + ", ".join(f"{name} {value:.3g} us" for name, value in times.items()),
                flush=True,
            )
    return rows


def write_curve(rows: Sequence[dict[str, float]], path: Path) -> None:
    """One line for each K."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


STYLES: dict[str, dict[str, Any]] = {
    "one run": {"color": "C0", "marker": "o"},
    "lanes": {"color": "C2", "marker": "^", "linewidth": 0.8},
    "BLAS": {"color": "C3", "marker": "v", "linewidth": 0.8},
    "ensemble": {"color": "C1", "marker": "s", "linewidth": 2.5, "alpha": 0.6},
    "dgemm": {"color": "0.2", "linestyle": "--"},
    "exp": {"color": "0.6", "linestyle": ":"},
}
WORDS = {
    "ensemble": "ensemble, per run",
    "lanes": "ensemble, lanes at every K",
    "BLAS": "ensemble, BLAS at every K",
    "dgemm": f"the three products at the dgemm rate (n = {bounds.SQUARE})",
    "exp": "the exponentials at the kernels' rate",
}


def draw_curve(rows: Sequence[dict[str, float]], path: Path) -> None:
    """The curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    K = [row["K"] for row in rows]
    for name, style in STYLES.items():
        if name in rows[0]:
            axes.loglog(K, [row[name] for row in rows], label=WORDS.get(name, name), markersize=4, **style)
    axes.set_xticks([4, 10, 32, 100, 256], ["4", "10", "32", "100", "256"])
    axes.minorticks_off()
    axes.set_xlabel("K (d = K, n = 1)")
    axes.set_ylabel("CPU time of a step of one run [us]")
    axes.set_title("Gradient descent, cross-entropy, one BLAS thread", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
