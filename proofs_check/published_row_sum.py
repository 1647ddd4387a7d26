"""Published numbers held against the row-sum law, to the printed decimals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proofs_check.proof import Proof
from ufm.theory.published_row_sum import (
    START,
    heatmap_growth,
    largest_start,
    predicted_heatmap,
    published_heatmap,
    row_sum_window,
    start_window,
    table_2_change,
)


def heatmap_matches(settings: Mapping[str, Any]) -> bool:
    """All 56 cells round to what is printed, 49 of them different from the start."""
    printed = published_heatmap().printed
    informative = int((published_heatmap().decay > 0).sum()) * printed.shape[0]
    return bool(
        informative == 49 and printed.size == 56 and (predicted_heatmap(**settings).round(2) == printed).all()
    )


def some_start_fits(settings: Mapping[str, Any]) -> bool:
    """There is an interval of starts for which every cell prints right, and figure 22's lies in it."""
    settings = dict(settings)
    power = settings.pop("power", 1)
    low, high = start_window(heatmap_growth(**settings) ** power, power)
    return low < START < high


def some_head_fits(form: Mapping[str, Any]) -> bool:
    """Some head of 10 classes in PyTorch's default range starts so that every cell prints right in this form."""
    low, high = row_sum_window(**form)
    return low <= min(high, largest_start())


def table_2_matches(settings: Mapping[str, Any]) -> bool:
    """The change of SGDW rounds to the printed -68.9 %."""
    return round(table_2_change(**settings), 1) == -68.9


PROOFS = (
    Proof(
        "zhao2026.fig5",
        "56 printed cells from one start, 1.7542",
        "matches print",
        heatmap_matches,
        {},
        {
            "squared norm": {"squared": True},
            "1/p in front (p = 512)": {"scale": 1 / 512},
            "decoupled decay": {"decoupled": True},
            "468 steps per epoch": {"steps_per_epoch": 468},
        },
    ),
    Proof(
        "zhao2026.fig5",
        "window of admissible starts",
        "matches print",
        some_start_fits,
        {},
        {
            "squared norm": {"power": 2},
            "decoupled decay": {"decoupled": True},
            "468 steps": {"steps_per_epoch": 468},
        },
    ),
    Proof(
        "zhao2026.eq12.erratum",
        "figure 5 shows ||W^T 1||_2",
        "matches print",
        some_head_fits,
        {},
        {
            "eq. 12 as printed, p = 512": {"prefactor": 1 / 512},
            "eq. 12 as printed, p = 6, wider is worse": {"prefactor": 1 / 6},
            "alpha of the theorems": {"power": 2, "prefactor": 1 / 10},
            "squared norm": {"power": 2},
        },
    ),
    Proof(
        "zhao2026.table2",
        "SGDW: -68.9 %",
        "matches print",
        table_2_matches,
        {},
        {
            "squared norm": {"squared": True},
            "coupled decay": {"coupled": True},
            "468 steps per epoch": {"steps_per_epoch": 468},
        },
    ),
)
