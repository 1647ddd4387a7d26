"""The published heatmap and table from the closed form, with their controls."""

import numpy as np
import pytest

from ufm.theory import published_row_sum as published


def test_the_table_is_the_printed_one() -> None:
    cells = published.published_heatmap()
    assert cells.printed.shape == (7, 8)
    assert list(cells.momentum) == [0, 0.5, 0.7, 0.9, 0.95, 0.97, 0.98]
    assert list(cells.decay) == [0, 2.5e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3]
    assert (cells.printed[:, 0] == 1.75).all()
    assert cells.printed[3, 5] == 1.24
    assert cells.printed[-1, -1] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        cells.printed[0, 0] = 1.0


def test_all_56_cells_49_of_them_informative() -> None:
    right = published.predicted_heatmap().round(2) == published.published_heatmap().printed
    assert right.sum() == 56
    assert right[:, 1:].sum() == 49


@pytest.mark.parametrize(
    "control", [{"squared": True}, {"scale": 1 / 512}, {"decoupled": True}, {"steps_per_epoch": 468}]
)
def test_controls_miss_cells(control) -> None:
    right = published.predicted_heatmap(**control).round(2) == published.published_heatmap().printed
    assert right[:, 1:].sum() < 49


def test_window_of_starts() -> None:
    low, high = published.start_window(published.heatmap_growth())
    assert (low, high) == pytest.approx((1.75268386, 1.75430871), abs=1e-8)
    printed = published.published_heatmap().printed
    for start, inside in ((low + 1e-9, True), (high - 1e-9, True), (low - 1e-9, False), (high + 1e-9, False)):
        assert (published.predicted_heatmap(start).round(2) == printed).all() == inside
    for shape, power in ((published.heatmap_growth() ** 2, 2), (published.heatmap_growth(decoupled=True), 1)):
        low, high = published.start_window(shape, power)
        assert low > high
    # PyTorch's default head, K = 10: E ||W^T 1||^2 = K/3; figure 22's 1.7542 is an ordinary draw
    assert abs(published.START / np.sqrt(10 / 3) - 1) < 0.05


def test_with_the_printed_prefactor_no_default_head_starts_high_enough() -> None:
    """Eq. 12: the window of ||W_0^T 1||_2 grows like p, the norm of a head in PyTorch's default range does not."""
    bound = published.largest_start()
    assert bound == published.HEATMAP_CLASSES == 10
    fits = [published.row_sum_window(prefactor=1 / p)[0] <= bound for p in range(1, 1025)]
    assert fits == [p <= 5 for p in range(1, 1025)]
    low, high = published.row_sum_window()
    assert published.row_sum_window(prefactor=1 / 512) == pytest.approx((512 * low, 512 * high), rel=1e-14)
    for prefactor in (1.0, 1 / 10, 1 / 512, 1e-3, 1e3):  # a square is refused whatever stands in front
        low, high = published.row_sum_window(2, prefactor)
        assert low > 10 * high


def test_largest_start_is_reached_and_not_exceeded(rng) -> None:
    for p in (1, 6, 512):
        extreme = np.full((10, p), 1 / np.sqrt(p))
        assert np.linalg.norm(extreme.sum(axis=0)) == pytest.approx(published.largest_start(), rel=1e-14)
        drawn = rng.uniform(-1, 1, (10, p)) / np.sqrt(p)
        assert np.linalg.norm(drawn.sum(axis=0)) < published.largest_start()


def test_what_the_heatmap_alone_does_not_decide() -> None:
    """468 steps per epoch miss cells at figure 22's start but fit some other start; 470 fit at 1.7542 too."""
    low, high = published.start_window(published.heatmap_growth(steps_per_epoch=468))
    assert low < high < published.START
    low, high = published.start_window(published.heatmap_growth(steps_per_epoch=470))
    assert low < published.START < high


def test_table_2() -> None:
    assert round(published.table_2_change(), 1) == -68.9
    assert published.table_2_change() == pytest.approx(-100 * (1 - np.exp(-1.16824)), abs=0.02)
    for control in ({"squared": True}, {"coupled": True}, {"steps_per_epoch": 468}):
        assert round(published.table_2_change(**control), 1) != -68.9


def test_rates_of_the_papers_schedule() -> None:
    rates = published.epoch_rates(0.001)
    assert rates.shape == (200 * 469,)
    assert rates[66 * 469 - 1] == 0.001
    assert rates[66 * 469] == pytest.approx(1e-4, rel=1e-12)
    assert rates[133 * 469] == pytest.approx(1e-5, rel=1e-12)


def test_controls_are_the_statements_they_name() -> None:
    """Squared is the square and scale a factor: a control that were something else would show nothing."""
    norm = published.predicted_heatmap()
    assert published.predicted_heatmap(squared=True) == pytest.approx(norm**2, rel=1e-15)
    assert published.predicted_heatmap(scale=1 / 512) == pytest.approx(norm / 512, rel=1e-15)
    kept = 1 + published.table_2_change() / 100
    assert 1 + published.table_2_change(squared=True) / 100 == pytest.approx(kept**2, rel=1e-14)
