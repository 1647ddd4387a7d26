r"""Published numbers of real networks that the row-sum law predicts: figure 5 and table 2 of Zhao et al.

Both (arXiv 2602.16642v3, read in full) are trained with SGD, momentum and weight decay, batch 128, 200 epochs,
rate / 10 at epochs 66 and 133. The law of `ufm.theory.row_sum` knows neither the network nor the data; it needs the
start ||W_0^T 1||_2 (read off figure 22: 1.7542) and the steps per epoch, ceil(60000/128) = 469. What is plotted is
||W^T 1||_2 = |g_t| ||W_0^T 1||_2, neither alpha nor (1/p) of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from ufm.claims import Claim, Source
from ufm.theory.row_sum import PAPER, growth

START = 1.7542  # ||W_0^T 1||_2 in figure 22
EPOCHS = 200
STEPS_PER_EPOCH = 469  # ceil(60000/128)
MILESTONES = (66, 133)
FACTOR = 0.1
HEATMAP_LR = 0.001
HEATMAP_CLASSES = 10
TABLE_2 = {"lr": 0.0679, "momentum": 0.9, "decay": 5e-4, "printed percent": -68.9}


@dataclass(frozen=True)
class Heatmap:
    """Printed final ||W^T 1||_2 by momentum (rows) and coupled decay (columns).

    Parameters
    ----------
    momentum : ndarray, shape (rows,)
        Momentum beta.
    decay : ndarray, shape (columns,)
        Coupled decay rate.
    printed : ndarray, shape (rows, columns)
        Values to two decimals.

    Examples
    --------
    >>> published_heatmap().printed.shape
    (7, 8)
    """

    momentum: np.ndarray
    decay: np.ndarray
    printed: np.ndarray


@cache
def published_heatmap() -> Heatmap:
    """Figure 5 (left) of Zhao et al.: ResNet9 on FashionMNIST, SGD with coupled decay, lr 0.001.

    Examples
    --------
    >>> published_heatmap().printed.shape
    (7, 8)
    """
    text = files("ufm.published").joinpath("nc0_heatmap_resnet9_fashionmnist.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]
    table = np.array(rows[1:], dtype=float)
    arrays = (table[:, 0], np.array(rows[0][1:], dtype=float), table[:, 1:])
    for array in arrays:
        array.setflags(write=False)
    return Heatmap(*arrays)


def epoch_rates(
    lr: float,
    epochs: int = EPOCHS,
    steps_per_epoch: int = STEPS_PER_EPOCH,
    milestones: tuple[int, ...] = MILESTONES,
    factor: float = FACTOR,
) -> np.ndarray:
    """Learning rate of every step, multiplied by `factor` after each milestone epoch, shape (steps,).

    Parameters
    ----------
    lr : float
        Learning rate before the first milestone.
    epochs, steps_per_epoch : int
        Length of the training.
    milestones : tuple of int
        Epochs after which the rate falls.
    factor : float
        What it is multiplied by.

    Returns
    -------
    ndarray, shape (steps,)

    Examples
    --------
    >>> epoch_rates(1.0, epochs=3, steps_per_epoch=2, milestones=(1, 2), factor=0.5).tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    passed = np.searchsorted(milestones, np.arange(epochs), side="right")
    return np.repeat(lr * factor ** passed.astype(float), steps_per_epoch)


def heatmap_growth(decoupled: bool = False, steps_per_epoch: int = STEPS_PER_EPOCH) -> np.ndarray:
    """|g_t| at the end of training for every cell of figure 5, shape (7, 8).

    Parameters
    ----------
    decoupled : bool
        Control: decoupled decay instead of coupled.
    steps_per_epoch : int
        469 for batch 128.

    Returns
    -------
    ndarray, shape (7, 8)

    Examples
    --------
    >>> round(float(heatmap_growth()[0, -1]), 6)
    0.841935
    """
    cells = published_heatmap()
    schedule = epoch_rates(HEATMAP_LR, steps_per_epoch=steps_per_epoch)
    lam, beta = cells.decay[None, :], cells.momentum[:, None]
    lam_c, lam_d = (0.0, lam) if decoupled else (lam, 0.0)
    factor = growth(len(schedule), beta=beta, coupled=lam_c, decoupled=lam_d, schedule=schedule)
    size: np.ndarray = np.abs(factor)
    return size


def predicted_heatmap(
    start: float = START,
    squared: bool = False,
    scale: float = 1.0,
    decoupled: bool = False,
    steps_per_epoch: int = STEPS_PER_EPOCH,
) -> np.ndarray:
    """What figure 5 (left) should print, unrounded, shape (7, 8).

    Parameters
    ----------
    start : float
        ||W_0^T 1||_2.
    squared : bool
        Control: the squared norm instead of the norm.
    scale : float
        Control: a factor such as 1/p in front.
    decoupled, steps_per_epoch
        As in `heatmap_growth`.

    Returns
    -------
    ndarray, shape (7, 8)

    Examples
    --------
    >>> bool((predicted_heatmap().round(2) == published_heatmap().printed).all())
    True
    """
    norm = start * heatmap_growth(decoupled, steps_per_epoch)
    return scale * (norm**2 if squared else norm)


def start_window(shape: np.ndarray, power: int = 1) -> tuple[float, float]:
    """Interval of starts for which start^power * shape prints like figure 5; empty where low > high.

    Parameters
    ----------
    shape : ndarray, shape (7, 8)
        Prediction at start 1, > 0.
    power : int
        1 for the norm, 2 for its square.

    Returns
    -------
    low, high : float
        Every cell printed p needs p - 0.005 <= start^power * shape <= p + 0.005.

    Examples
    --------
    >>> low, high = start_window(heatmap_growth())
    >>> bool(low < START < high)
    True
    """
    printed = published_heatmap().printed
    low = np.max(np.maximum(printed - 0.005, 0.0) / shape)
    high = np.min((printed + 0.005) / shape)
    return float(low ** (1 / power)), float(high ** (1 / power))


def row_sum_window(power: int = 1, prefactor: float = 1.0) -> tuple[float, float]:
    """Interval of ||W_0^T 1||_2 for which prefactor ||W^T 1||_2^power prints like figure 5.

    Parameters
    ----------
    power : int
        1 for the norm, 2 for its square.
    prefactor : float
        Factor in front, > 0: 1/p in eq. 12, 1/K in the theorems.

    Returns
    -------
    low, high : float
        Empty where low > high.

    Examples
    --------
    >>> low, high = row_sum_window(prefactor=1 / 512)
    >>> round(low), round(high)
    (897, 898)
    """
    return start_window(prefactor * heatmap_growth() ** power, power)


def largest_start(classes: int = HEATMAP_CLASSES) -> float:
    """Largest ||W_0^T 1||_2 of a head as PyTorch's Linear starts it, at every width p.

    Its entries lie in [-1/sqrt(p), 1/sqrt(p)], so a column adds to at most K/sqrt(p), and p columns have norm K.

    Parameters
    ----------
    classes : int
        K.

    Returns
    -------
    float

    Examples
    --------
    >>> largest_start(10)
    10.0
    """
    return float(classes)


def table_2_change(
    squared: bool = False, coupled: bool = False, steps_per_epoch: int = STEPS_PER_EPOCH
) -> float:
    """Relative change of ||W^T 1||_2 over training for SGDW in table 2, in percent.

    Parameters
    ----------
    squared, coupled, steps_per_epoch
        Controls: the squared norm, coupled decay, another number of steps.

    Returns
    -------
    float

    Examples
    --------
    >>> round(table_2_change(), 1)
    -68.9
    """
    schedule = epoch_rates(TABLE_2["lr"], steps_per_epoch=steps_per_epoch)
    lam, beta = TABLE_2["decay"], TABLE_2["momentum"]
    lam_c, lam_d = (lam, 0.0) if coupled else (0.0, lam)
    g = abs(float(growth(len(schedule), beta=beta, coupled=lam_c, decoupled=lam_d, schedule=schedule)))
    return 100.0 * ((g**2 if squared else g) - 1.0)


CLAIMS = (
    Claim(
        name="zhao2026.fig5",
        statement=(
            "Figure 5 (left): all 56 printed values of final ||W^T 1||_2, 49 of them informative, from the "
            "row-sum law and one start value."
        ),
        source=Source(PAPER, "figure 5 left, start from figure 22", "read in full"),
        room="published_row_sum",
        figure="nc0_heatmap",
        layers={"published": "56 of 56 cells to the two printed decimals"},
    ),
    Claim(
        name="zhao2026.table2",
        statement="Table 2, SGDW: ||W^T 1||_2 changes by -68.9 %.",
        source=Source(PAPER, "table 2, row SGDW", "read in full"),
        room="published_row_sum",
        figure="nc0_heatmap",
        layers={"published": "to the printed decimal"},
    ),
    Claim(
        name="zhao2026.eq12.erratum",
        statement=(
            "Eq. 12 prints NC0 = (1/p) ||W^T 1||_2, the theorems (1/K) ||W^T 1||_2^2; figure 5 (left) shows neither "
            "but ||W^T 1||_2: no start prints its 56 cells with a square, and with 1/p the start would be "
            "||W_0^T 1||_2 >= 1.7526 p, more than the K = 10 that a head in PyTorch's default range can have at any "
            "width p >= 6 (p = 512 in the public code). Prefactors of other equations are no part of this."
        ),
        source=Source(PAPER, "eq. 12 against figure 5 left", "read in full"),
        room="published_row_sum",
        figure="nc0_heatmap",
        layers={
            "published": "all 56 cells without prefactor and square; none of the printed forms has a start"
        },
    ),
)
