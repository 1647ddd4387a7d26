"""56 published values of NC0 of a real network, what the row-sum law predicts for them, and the difference."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure

from ufm import plotting
from ufm.theory import published_row_sum as published
from ufm.theory.row_sum import PAPER


def compute(quick: bool) -> xarray.Dataset:
    """Printed and predicted final ||W^T 1||_2 for every momentum and decay; `quick` changes nothing here."""
    cells = published.published_heatmap()
    predicted = published.predicted_heatmap()
    control = published.predicted_heatmap(decoupled=True)
    axes = ("momentum", "decay")
    data = xarray.Dataset(
        {
            "printed": (axes, cells.printed),
            "predicted": (axes, predicted),
            "difference": (axes, predicted - cells.printed),
            "agrees": (axes, _agrees(predicted, cells.printed).astype(np.int8)),
            "informative": ("decay", (cells.decay > 0).astype(np.int8)),
            "control_decoupled": (axes, control),
        },
        {"momentum": cells.momentum, "decay": cells.decay},
    )
    informative = cells.decay > 0
    data.attrs = {
        "caption": _caption(data, int(_agrees(control, cells.printed)[:, informative].sum())),
        "source": f"{PAPER}, figure 5 (left) for the printed values, figure 22 for the start",
        "settings": (
            f"start {published.START}, lr {published.HEATMAP_LR}, {published.EPOCHS} epochs of "
            f"{published.STEPS_PER_EPOCH} steps, lr times {published.FACTOR} at epochs {published.MILESTONES}, "
            "coupled decay"
        ),
    }
    return data


def _agrees(predicted: np.ndarray, printed: np.ndarray) -> np.ndarray:
    """Which cells are equal once the prediction is rounded to the two printed decimals."""
    equal: np.ndarray = np.round(predicted, 2) == printed
    return equal


def _caption(data: xarray.Dataset, control: int) -> str:
    agrees, informative = data["agrees"].values, data["informative"].values.astype(bool)
    first, second = published.MILESTONES
    return (
        "Final ||W^T 1||_2 of a ResNet9 on FashionMNIST trained by SGD with coupled weight decay: left, the "
        f"{agrees.size} values printed by Zhao et al. (figure 5, left); middle, what the row-sum law predicts from "
        "momentum, decay and learning rates alone; right, prediction minus print in thousandths, where rounding "
        f"to two decimals allows 5. Start value read off the paper: {published.START}. Learning rate "
        f"{published.HEATMAP_LR}, {published.EPOCHS} epochs of {published.STEPS_PER_EPOCH} steps, divided by "
        f"{1 / published.FACTOR:g} at epochs {first} and {second}. {agrees.sum()} of {agrees.size} cells agree to "
        f"two decimals; {agrees[:, informative].sum()} of the {agrees[:, informative].size} with decay, which "
        f"alone are informative. Control: decoupled decay in the law would agree in {control} of those."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Three heat maps side by side."""
    figure = Figure(figsize=(7.6, 2.75), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    agrees = data["agrees"].values
    high = float(max(data["printed"].max(), data["predicted"].max()))
    panels = (
        (left, data["printed"].values, "printed (real network)", ".2f", "cividis", 0.0, high),
        (middle, data["predicted"].values, "predicted (closed form)", ".2f", "cividis", 0.0, high),
        (
            right,
            1e3 * data["difference"].values,
            "difference in 10⁻³ (rounding: ±5)",
            "+.1f",
            "RdBu_r",
            -10.0,
            10.0,
        ),
    )
    for ax, values, title, form, cmap, low, top in panels:
        plotting.heatmap(
            ax,
            values,
            data["momentum"].values,
            data["decay"].values,
            form=form,
            cmap=cmap,
            low=low,
            high=top,
            row_label=plotting.LABELS["momentum"] if ax is left else None,
            column_label=plotting.LABELS["decay"],
            size=6.0,
        )
        ax.set_title(title)
    figure.suptitle(
        f"final {plotting.LABELS['norm']} of a ResNet9 on FashionMNIST (Zhao et al., figure 5): "
        f"{agrees.sum()} of {agrees.size} cells agree to two decimals",
        fontsize=9,
    )
    return figure
