"""Tables of what was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from .timing import ratio


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def text(cells, fill=" "):
        return "| " + " | ".join(cell.ljust(w, fill) for cell, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([text(lines[0]), text([""] * len(head), "-"), *map(text, lines[1:])])


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def peers_of(row: Mapping[str, Any]) -> list[str]:
    """Systems that are compared with ours."""
    return [name for name in row["systems"] if name != "ufm"]


def best(row: Mapping[str, Any], kind: str = "wall") -> tuple[str, float]:
    """The fastest peer and how many times our time it needs."""
    own = row["systems"]["ufm"][kind]
    ratios = {name: ratio(row["systems"][name][kind], own) for name in peers_of(row)}
    name = min(ratios, key=ratios.__getitem__)
    return name, ratios[name]


def share(row: Mapping[str, Any], of: str, kind: str = "wall") -> float | None:
    """Part of our time that the products of a step would take at the rate of a bound; None if not measured."""
    bound = row["bounds"].get(of)
    return ratio(bound[kind], row["systems"]["ufm"][kind]) if bound else None


def line(row: Mapping[str, Any]) -> str:
    """One row in short: our time of a step and run, and ratios by wall and by CPU time."""
    own = row["systems"]["ufm"]
    parts = [f"{row['title']}: {number(median(own['wall']) / row['runs'])} us"]
    for name in peers_of(row):
        wall, cpu = (ratio(row["systems"][name][kind], own[kind]) for kind in ("wall", "cpu"))
        parts.append(f"{name} {wall:.2f} x (CPU {cpu:.2f} x)")
    return ", ".join(parts + [f"{name} left out: {why}" for name, why in row["missing"].items()])


def left_out(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which peers are missing and why."""
    reasons = dict.fromkeys(
        f"{name} is left out: {why}" for row in rows for name, why in row["missing"].items()
    )
    return "\n".join(reasons)


def comparison(rows: Sequence[Mapping[str, Any]], kind: str = "wall") -> str:
    """Times of a step and ratios of peers, for `kind` wall or cpu."""
    peers = list(dict.fromkeys(name for row in rows for name in peers_of(row)))
    head = [
        "case",
        "ours, us per step and run",
        *peers,
        "goal",
        "share of dgemm",
        "of own products",
    ]
    lines = []
    for row in rows:
        own = row["systems"]["ufm"][kind]
        cells = [
            f"{ratio(row['systems'][name][kind], own):.2f} x" if name in row["systems"] else ""
            for name in peers
        ]
        shares = [share(row, of, kind) for of in ("dgemm", "products")]
        lines.append(
            [
                row["title"],
                number(median(own) / row["runs"]),
                *cells,
                f"{row['goal']:g} x",
            ]
            + ["" if part is None else f"{part:.2f}" for part in shares]
        )
    return table(head, lines)


README = {"JAX": ("jax",), "JAX, gradient by hand": ("jax-hand",), "PyTorch": ("torch", "torch-compile")}


def for_readme(rows: Sequence[Mapping[str, Any]]) -> str:
    """Time of a step, and how many times it the peers take, by wall time."""
    lines = []
    for row in rows:
        own = row["systems"]["ufm"]["wall"]
        ratios = {name: ratio(row["systems"][name]["wall"], own) for name in peers_of(row)}
        found = ([ratios[name] for name in names if name in ratios] for names in README.values())
        cells = [f"{min(values):.1f} x" if values else "" for values in found]
        lines.append([row["title"], f"{number(median(own) / row['runs'])} us", *cells])
    return table(["case", "a step of a run", *README], lines)


def compiling(found: Mapping[str, Mapping[str, float]], titles: Mapping[str, str]) -> str:
    """CPU seconds of compiling and loading kernels."""
    words = {
        "one run": "one run, none compiled",
        "ensemble": "ensemble, those of one run compiled",
        "whole": "ensemble, none compiled",
        "warm": "all compiled",
    }
    rows = [
        [titles[name], *(f"{times[kind]:.2f} s" if kind in times else "" for kind in words)]
        for name, times in found.items()
    ]
    return table(["CPU time of a first call beyond a second", *words.values()], rows)


def memory(found: Mapping[str, float]) -> str:
    """Peak above what was resident before, beside the records."""
    million = 1e6
    return (
        f"{found['steps']:,} steps with records of {found['records'] / million:.2f} MB raised the peak of resident "
        f"memory by {found['peak above'] / million:.2f} MB."
    )


def starting(found: Mapping[str, float]) -> str:
    """Seconds of whole processes."""
    return table(["process", "wall"], [[name, f"{value:.2f} s"] for name, value in found.items()])


def curve(rows: Sequence[Mapping[str, float]]) -> str:
    """CPU microseconds per step and run against K."""
    return table(list(rows[0]), [[number(value) for value in row.values()] for row in rows])
