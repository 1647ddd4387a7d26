"""What the figures of the DUFM show: closed forms from their own definitions, and what gradient descent finds."""

from types import ModuleType

import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

import figures
import ufm
from figures._dufm import last_losses, last_ranks, ordered_units, train
from ufm import plotting
from ufm.solutions import dnc, srg
from ufm.theory import deep_cross_entropy as entropy
from ufm.theory import strongly_regular_graph as graph


@pytest.fixture(scope="module")
def training() -> xarray.Dataset:
    return figures.load("dufm_training").compute(True)


@pytest.fixture(scope="module")
def landscape() -> xarray.Dataset:
    return figures.load("dufm_landscape").compute(True)


@pytest.fixture(scope="module")
def small_k() -> xarray.Dataset:
    return figures.load("dufm_small_k").compute(True)


@pytest.fixture(scope="module")
def deep() -> xarray.Dataset:
    return figures.load("dufm_deep").compute(True)


@pytest.fixture(scope="module")
def phases() -> xarray.Dataset:
    return figures.load("dufm_phase_diagram").compute(True)


# ------------------------------------------------------------------------------------------------ training


def test_training_approaches_the_losses_of_the_closed_forms(training) -> None:
    exact = training["exact_loss"].sel(solution=["DNC", "SRG"]).values
    np.testing.assert_allclose(
        exact, [0.15639731, 0.12749530], atol=5e-9
    )  # K = 10, L = 4, n = 10, in closed form
    end = training["loss"].isel(step=-1).values
    assert (exact[1] < end).all()
    assert (end < 1.15 * exact[0]).all()


def test_classes_collapse_in_every_layer_during_training(training) -> None:
    dnc1 = training["dnc1"].mean("seed")
    assert (dnc1.isel(step=-1) < 0.05 * dnc1.isel(step=0)).all()
    assert (dnc1.isel(step=-1).diff("layer") < 0).all()  # the last layer is first


def test_singular_values_are_those_of_the_two_solutions(training) -> None:
    exact = training["exact_singular"].sel(shown=3)
    assert np.ptp(exact.sel(solution="DNC").values) < 1e-12
    first, *others = exact.sel(solution="SRG").values
    # the incidence matrix of five vertices: sqrt(2(r-1)) once, sqrt(r-2) four times
    np.testing.assert_allclose(others[:4], first * np.sqrt(3 / 8), rtol=1e-12)
    assert max(others[4:]) < 1e-12


# ------------------------------------------------------------------------------------------------ landscape


def test_loss_ratios_are_those_of_explicit_states(landscape) -> None:
    np.testing.assert_allclose(landscape["explicit"], landscape["kneser"], rtol=1e-12)
    assert (landscape["best"] <= landscape["kneser"] + 1e-12).all()
    assert (landscape["kneser"].sel(depth=[4, 5]) < 1).all()
    three = landscape["kneser"].sel(depth=3)
    assert three.sel(vertices=4) > 1 > three.sel(vertices=5)


def test_rank_falls_with_decay_and_collapse_comes_with_width(landscape) -> None:
    ranks = landscape["decay_rank"].mean("seed")
    assert (ranks.diff("exponent") < 0).all()
    assert ranks.sel(classes=10).min() < 9  # of 10
    shares = (landscape["width_rank"] == 10).mean("seed").values
    assert shares[0] < 0.2 < 0.5 < shares[-1]


@pytest.mark.parametrize(
    ("successes", "low", "high"), [(0, 0.0, 1 / 17), (8, 0.3787, 0.6213), (16, 16 / 17, 1.0)]
)
def test_wilson_interval(successes, low, high) -> None:
    """Ends p with |p - share| = sqrt(p (1 - p)/runs)."""
    share, *ends = figures.load("dufm_landscape")._wilson(np.array([successes]), 16)
    np.testing.assert_allclose([end[0] for end in ends], [low, high], atol=1e-4)
    for end in ends:
        assert (end - share) ** 2 == pytest.approx(end * (1 - end) / 16, abs=1e-15)


# ------------------------------------------------------------------------------------------------ few classes


def test_few_classes_have_states_below_collapse(small_k) -> None:
    for K in (3, 4, 5):
        one = small_k.sel(classes=K)
        problem = ufm.DUFM(K, 12, 4)
        least = dnc(problem, ufm.Coupled(0.01)).loss
        assert one["collapsed"].sel(part="loss") == pytest.approx(least, rel=1e-14)
        best = int(np.argmin(one["losses"].values))
        assert one["losses"][best] < 0.992 * least
        assert one["ranks"][best] < K
        total, *terms = one["parts"].values
        np.testing.assert_allclose(sum(terms), total, rtol=1e-14)
        assert total[-1] == one["losses"][best]


def test_five_classes_fit_in_rank_three(small_k) -> None:
    """Far below the states of rank 4, which are at 0.979."""
    one = small_k.sel(classes=5)
    assert float(one["losses"].min() / one["collapsed"].sel(part="loss")) < 0.94
    M = one["means"].sel(shown=3).values
    singular = np.linalg.svd(M, compute_uv=False)
    assert (singular > 1e-2 * singular[0]).sum() == 3


def test_ordered_units_keeps_the_gram_matrix_and_drops_dead_units(rng) -> None:
    M = rng.standard_normal((6, 4))
    M[2] *= 1e-3
    found = ordered_units(M)
    alive = np.delete(M, 2, axis=0)
    np.testing.assert_allclose(found.T @ found, alive.T @ alive, rtol=1e-12)
    assert (found[-1] == 0).all()
    np.testing.assert_array_equal(ordered_units(M[::-1]), found)


# ------------------------------------------------------------------------------------------------ deep


def test_deep_chain_goes_far_below_collapse(deep) -> None:
    ratio = deep["loss"] / deep["dnc_loss"]
    kneser, best = (deep["exact_loss"] / deep["dnc_loss"]).values
    assert round(kneser, 4) == 0.6090
    proportional = graph.loss(6, 0.001, [0.001] * 7, variant="best", relaxed=False) / deep["dnc_loss"].item()
    assert round(proportional, 4) == 0.5882
    assert best < proportional
    assert best < float(ratio.min()) < 0.75
    M = deep["means"].sel(shown=6).values
    np.testing.assert_allclose(M.T @ M, deep["gram"], atol=1e-2 * float(deep["gram"].max()))
    np.testing.assert_allclose(
        np.linalg.svd(M, compute_uv=False)[:5], deep["singular"].sel(stage="pre")[:5], rtol=1e-3
    )
    assert sorted(deep["class"].values) == list(range(1, 16))


# ------------------------------------------------------------------------------------------------ phases


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return figures.load("dufm_phase_diagram")


def named(module: ModuleType, phase: xarray.DataArray) -> np.ndarray:
    return np.array(module.PHASES)[phase.values]


def test_squared_error_phases_are_the_theorems(phases, module) -> None:
    """DNC is optimal or not within the families by L and K alone, and gives way to zero at its closed limit."""
    for depth, first in ((3, 10), (4, 6), (6, 6)):
        one = phases.sel(mse_depth=depth)
        for K in one["classes"].values:
            names = set(named(module, one["mse_phase"].sel(classes=K))) - {"zero"}
            if first > K:
                assert names == {"DNC"}, (depth, K)
                ends = one["mse_decay"].values[named(module, one["mse_phase"].sel(classes=K)) == "DNC"]
                assert ends[-1] < one["mse_limit"].sel(classes=K) < ends[-1] * 1.1
            else:
                assert "DNC" not in names, (depth, K)
                assert ("one graph" in names) == (graph.vertices_of(int(K)) is not None), (depth, K)
        for r, limit in zip(one["vertices"].values, one["mse_graph_limit"].values, strict=True):
            here = named(module, one["mse_phase"].sel(classes=graph.classes_of(int(r)))) == "one graph"
            if here.any():  # but for r = 4 at L = 3, where DNC is lower
                ends = one["mse_decay"].values[here]
                assert ends[-1] < limit < 1.1 * ends[-1], (depth, r)
    shallow = phases["mse_phase_depths"].sel(depth=[1, 2])
    assert set(named(module, shallow).ravel()) == {"DNC", "zero"}


def test_losses_of_the_diagram_are_those_of_the_theory(phases) -> None:
    one = phases.sel(mse_depth=4, classes=10)
    for i in (0, 20, 40):
        lam = float(one["mse_decay"][i])
        rates = (lam, [lam] * 4)
        variants = [graph.loss(5, *rates, variant=v, relaxed=False) for v in graph.VARIANTS]
        collapsed = dnc(ufm.DUFM(10, 10, 4), ufm.Coupled(lam)).loss
        assert one["mse_ratio"][i] == pytest.approx(min(*variants, 0.5) / min(collapsed, 0.5), rel=1e-12)
    for depth in (2, 3, 6):
        for K in (3, 4, 5, 11):
            one = phases.sel(ce_depth=depth, classes=K)
            for i in (0, 25, 40):
                lam = float(one["ce_decay"][i])
                losses = [
                    entropy.loss(K, lam, [lam] * depth, 1, state) for state in entropy.STATES[: 1 + (K > 3)]
                ]
                expected = min(*losses, np.log(K)) / min(losses[0], np.log(K))
                assert one["ce_ratio"][i] == pytest.approx(expected, rel=2e-5), (depth, K, lam)


def test_several_blocks_are_better_than_one_graph_and_collapse(phases) -> None:
    """K = 20 is two graphs on 10 or one on 15 and the rest collapsed, whichever is lower, at weak decay."""
    one = phases.sel(mse_depth=4, classes=20).isel(point=0)
    lam = float(phases["mse_decay"][0])
    strength = 20 * lam
    spread = graph.block_spread(graph.graph_block(5), 4), graph.block_spread(graph.graph_block(6, "best"), 4)

    def part(size: int, D: float) -> float:
        x = 1 - ufm.theory.deep_collapse.shortfall(strength * D / size, 4)
        return size / 20 * (1 - x) * (1 + 4 * x) / 2

    collapsed = part(20, 20.0)
    options = [2 * part(10, spread[0]), part(15, spread[1]) + part(5, 5.0)]
    assert one["mse_ratio"].item() == pytest.approx(min(options) / collapsed, rel=1e-10)


def test_opposed_pairs_win_wherever_theorem_1_says_so(phases, module) -> None:
    for depth in (2, 3, 6):
        for K in phases["classes"].values:
            names = named(module, phases["ce_phase"].sel(ce_depth=depth, classes=K))
            if K > 3 and entropy.theorem_1(int(K), depth):
                assert "DNC" not in names, (depth, K)
            elif K <= 3:
                assert "opposed pairs" not in names, (depth, K)
            else:
                assert names[0] == "DNC", (depth, K)


# -------------------------------------------------------------------------------------- the published trends


def wide_runs(width: int, rate: float, seeds: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Rank of M_3 and objective at the end of runs with K = 10, L = 4."""
    runs = train(ufm.DUFM(10, width, 4), ufm.Coupled(rate), 0.5, 30_000, range(seeds))
    return last_ranks(runs)[:, 2], last_losses(runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "share", "rank", "runs"),
    [
        (15, 0.0, 5.9, 16), (20, 0.0, 6.3, 16), (25, 0.13, 7.0, 16), (30, 0.19, 7.7, 16), (35, 0.50, 8.8, 16),
        (40, 0.81, 9.7, 16), (50, 0.94, 9.8, 16), (64, 1.0, 10.0, 6),
    ],
)  # fmt: skip
def test_collapse_comes_with_width_as_first_measured(width, share, rank, runs) -> None:
    """An earlier program's runs (numpy, other seeds): within two standard errors of the difference."""
    ranks, _ = wide_runs(width, 0.004)
    pooled = ((ranks == 10).sum() + share * runs) / (64 + runs)
    error = np.sqrt(max(pooled * (1 - pooled), 1 / 64) * (1 / 64 + 1 / runs))
    assert abs((ranks == 10).mean() - share) < 2 * error + 0.005  # the rounding of the table
    spread = max(ranks.std(ddof=1), 0.25) * np.sqrt(1 / 64 + 1 / runs)
    assert abs(ranks.mean() - rank) < 2 * spread + 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "rank"), [(-10, 9.3), (-9, 8.8), (-8, 8.5), (-7, 7.9), (-6, 7.2)])
def test_rank_falls_with_decay_as_first_measured(exponent, rank) -> None:
    ranks, _ = wide_runs(30, 2.0**exponent)
    assert abs(ranks.mean() - rank) < 2 * ranks.std(ddof=1) * np.sqrt(1 / 64 + 1 / 10) + 0.05


@pytest.mark.slow
def test_gradient_descent_finds_the_srg_from_random_starts() -> None:
    """Three of the first 512 starts at width 25 reach it; a smaller step then takes them to the kinks."""
    problem, decay = ufm.DUFM(10, 25, 4), ufm.Coupled(0.004)
    lr = ufm.StepDecay(0.5, at=(35_000,))
    runs = train(problem, decay, lr, 40_000, range(512))
    exact = srg(problem, decay)
    excess = last_losses(runs) - exact.loss
    reached = excess < 1e-4
    assert excess.min() > 0
    assert 1 <= reached.sum() <= 10
    assert (last_ranks(runs)[reached] == 5).all()
    found = ufm.metrics.classify_solution(
        problem, runs[int(np.argmin(excess))].state(-1), decay, solutions=[exact]
    )
    assert found.name == exact.name


# -------------------------------------------------------------------------------------------- drawing pieces


def test_spread_curve_is_mean_and_deviation_on_the_scale_of_the_axis() -> None:
    steps, runs = np.array([1, 10]), np.array([[1.0, 10.0], [100.0, 10.0]])
    ax = Figure().subplots()
    dots, band = plotting.spread_curve(ax, steps, runs)
    np.testing.assert_allclose(dots.get_ydata(), [50.5, 10.0])
    assert band.get_datalim(ax.transData).y1 == pytest.approx(50.5 + 99 / np.sqrt(2))
    ax = Figure().subplots()
    ax.set_yscale("log")
    runs = np.concatenate([runs, [[10.0, 0.0]]])
    dots, _ = plotting.spread_curve(ax, steps, runs)
    np.testing.assert_allclose(dots.get_ydata(), [10.0])  # the record with a zero is left out


def test_error_bars_and_signed_matrix() -> None:
    ax = Figure().subplots()
    plotting.error_bars(
        ax, np.array([1.0]), np.array([2.0]), np.array([[0.5], [1.0]]), colour="red", label="runs"
    )
    [bars] = ax.containers[0].lines[2]
    np.testing.assert_allclose(bars.get_segments()[0], [[1.0, 1.5], [1.0, 3.0]])
    image = plotting.signed_matrix(Figure().subplots(), np.array([[2.0, -4.0]]), "M")
    np.testing.assert_allclose(image.get_array(), [[0.5, -1.0]])
    assert image.get_clim() == (-1, 1)
    assert plotting.subscript(120) == "₁₂₀"
