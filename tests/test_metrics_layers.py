"""Metrics of every layer against loops and the metrics of single layers; which solution a state is."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from dufm_states import collapse, graph

import ufm
from ufm import metrics
from ufm.errors import InvalidProblemError
from ufm.metrics import inputs, layers
from ufm.metrics.classification import relabel

PROBLEM = ufm.DUFM(3, width=(4, 5, 6), depth=3, per_class=(2, 4, 3), bias=True)
DECAY = ufm.Coupled(0.01)


@pytest.fixture(scope="module")
def run():
    return ufm.simulate(PROBLEM, ufm.GD(0.1), DECAY, steps=6, init=ufm.Gaussian(0.7), seed=3)


def chain(state, depth: int, relu: bool = True):
    """H_l and s(H_l) for l = 1 ... L."""
    X, found = state["H"], [(state["H"], state["H"])]
    for layer in range(1, depth):
        A = state[f"W{layer}"] @ X
        X = np.maximum(A, 0) if relu else A
        found.append((A, X))
    return found


def means(A, labels):
    return np.array([A[:, labels == k].mean(axis=1) for k in range(labels.max() + 1)]).T


# ------------------------------------------------------------------------------------------ metrics


def test_behind_the_activation_dnc1_is_nc1_of_every_layer(run):
    for form in ("pinv", "quotient"):
        found = metrics.dnc1(run, form=form)
        assert found.shape == (7, 3)
        for layer in (1, 2, 3):
            np.testing.assert_array_equal(found[:, layer - 1], metrics.nc1(run, form=form, layer=layer))
    for layer in (1, 2, 3):
        np.testing.assert_array_equal(
            metrics.dnc1(run, form="cdnv")[:, layer - 1], metrics.cdnv(run, layer=layer)
        )


@pytest.mark.parametrize("stage", ["pre", "post"])
def test_every_metric_is_what_a_loop_finds(run, stage):
    state, labels = run.state(4), PROBLEM.labels
    for layer, pair in enumerate(chain(state, 3)):
        A = pair[stage == "post"]
        M = means(A, labels)
        np.testing.assert_allclose(metrics.layer_means(run, stage=stage)[layer][4], M, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(
            metrics.layer_grams(run, stage=stage)[4, layer], M.T @ M, rtol=1e-12, atol=1e-14
        )
        s = np.linalg.svd(M, compute_uv=False)
        np.testing.assert_allclose(metrics.layer_spectra(run, stage=stage)[4, layer], s, rtol=1e-12)
        for tolerance in (1e-10, 0.3, 0.9):
            ranks = metrics.layer_ranks(run, stage=stage, tolerance=tolerance)
            assert ranks[4, layer] == np.sum(s > tolerance * s[0])
        G = M.T @ M
        frame = np.linalg.norm(G / np.linalg.norm(G) - np.eye(3) / np.sqrt(3))
        assert metrics.dnc2(run, stage=stage)[4, layer] == pytest.approx(frame, rel=1e-12)
        deviations, centred = A - M[:, labels], M - M.mean(axis=1, keepdims=True)
        within, between = deviations @ deviations.T / labels.size, centred @ centred.T / 3
        product = within @ np.linalg.pinv(between, rcond=1e-12)
        found = {form: metrics.dnc1(run, form=form, stage=stage)[4, layer] for form in layers.DNC1_FORMS}
        assert found["pinv"] == pytest.approx(np.trace(product) / 3, rel=1e-9)
        assert found["frobenius"] == pytest.approx(np.linalg.norm(product) ** 2, rel=1e-9)
        assert found["quotient"] == pytest.approx(np.trace(within) / np.trace(between), rel=1e-11)


def test_dnc3_is_what_a_loop_finds(run):
    state = run.state(5)
    for layer, (_, X) in enumerate(chain(state, 3)):
        M, W = means(X, PROBLEM.labels), state[f"W{layer + 1}"]
        away = 0.0
        for w in W:
            best = np.inf
            for mu in M.T:
                if np.any(mu):
                    best = min(best, np.sum((w - (w @ mu) / (mu @ mu) * mu) ** 2))
            away += best
        assert metrics.dnc3(run)[5, layer] == pytest.approx(np.sqrt(away) / np.linalg.norm(W), rel=1e-11)


def test_a_state_has_the_values_of_its_record(run):
    for metric in metrics.layered():
        many, one = metric(run), metric.function(PROBLEM, run.state(2), **dict(metric.options))
        for a, b in zip(many, one, strict=True) if isinstance(many, tuple) else [(many, one)]:
            np.testing.assert_allclose(a[2], b, rtol=1e-12, atol=1e-14)


def test_records_in_blocks_have_the_values_of_all_at_once(run, monkeypatch):
    whole = [metric(run) for metric in metrics.layered()]
    monkeypatch.setattr(layers, "BLOCK", 120)  # two records
    for metric, values in zip(metrics.layered(), whole, strict=True):
        again = metric(run)
        for a, b in zip(again, values, strict=True) if isinstance(values, tuple) else [(again, values)]:
            np.testing.assert_array_equal(a, b)
    assert inputs.BLOCK > 120


def test_a_narrow_layer_has_zeros_beyond_its_width():
    problem = ufm.DUFM(4, width=(2, 3), depth=2)
    state = {"H": np.ones((2, 4)), "W1": np.ones((3, 2)), "W2": np.zeros((4, 3))}
    found = metrics.layer_spectra(problem, state)
    assert found.shape == (2, 4)
    assert (found[:, 0] > 1).all()
    assert np.abs(found[:, 1:]).max() < 1e-14
    assert metrics.layer_ranks(problem, state).tolist() == [1, 1]


def test_linear_chains_have_one_stage(rng):
    problem = ufm.DUFM(3, width=4, depth=3, activation="identity")
    state = {name: rng.standard_normal(shape) for name, shape in problem.shapes.items()}
    np.testing.assert_array_equal(
        metrics.layer_grams(problem, state, stage="pre"), metrics.layer_grams(problem, state, stage="post")
    )
    M = state["W2"] @ state["W1"] @ state["H"]
    np.testing.assert_allclose(metrics.layer_grams(problem, state)[2], M.T @ M, rtol=1e-12)


def test_collapse_has_dnc1_to_dnc3_at_every_layer_and_the_graph_has_not():
    state, _ = collapse(4, 3, 0.01, 6, n=2)
    problem = ufm.DUFM(4, width=6, depth=3, per_class=2)
    assert np.abs(metrics.dnc1(problem, state)).max() < 1e-28
    assert metrics.dnc2(problem, state).max() < 1e-15
    assert metrics.dnc3(problem, state).max() < 1e-15
    assert metrics.layer_ranks(problem, state, tolerance=1e-10).tolist() == [4, 4, 4]
    state, _ = graph(5, 4, 0.004, 12)
    problem = ufm.DUFM(10, width=12, depth=4)
    assert metrics.layer_ranks(problem, state, tolerance=1e-10).tolist() == [5, 5, 5, 5]
    assert metrics.layer_ranks(problem, state, tolerance=1e-10, stage="post").tolist() == [5, 5, 5, 10]
    assert metrics.dnc2(problem, state).min() > 0.1


def test_states_that_are_zero_or_not_finite_are_nan_without_a_warning():
    zero = {name: np.zeros(shape) for name, shape in PROBLEM.shapes.items()}
    assert metrics.layer_ranks(PROBLEM, zero).tolist() == [0, 0, 0]
    assert (metrics.layer_spectra(PROBLEM, zero) == 0).all()
    for metric in (metrics.dnc1, metrics.dnc2, metrics.dnc3):
        assert np.isnan(metric(PROBLEM, zero)).all()
    blocks = {name: np.full((1, *shape), np.nan) for name, shape in PROBLEM.shapes.items()}
    diverged = SimpleNamespaceRun(blocks)
    for metric in metrics.layered():
        values = metric(diverged)
        assert all(np.isnan(value).all() for value in values)


class SimpleNamespaceRun(SimpleNamespace):
    """What the metrics read of a trajectory."""

    def __init__(self, blocks):
        super().__init__(problem=PROBLEM, blocks=blocks, features=None)

    def __len__(self):
        return 1


# ------------------------------------------------------------------------------------------ classification


def solutions(L: int = 4, width: int = 12):
    """Stand-ins of explicit solutions, from the states written by hand."""
    problem = ufm.DUFM(10, width=width, depth=L)
    found = [("DNC", collapse(10, L, 0.004, width)), ("SRG", graph(5, L, 0.004, width))]
    found.append(("identity", graph(5, L, 0.004, width, "identity")))
    zero = {name: np.zeros(shape) for name, shape in problem.shapes.items()}
    found.append(("zero", (zero, 0.5)))
    return problem, tuple(
        SimpleNamespace(name=name, blocks=state, loss=loss) for name, (state, loss) in found
    )


def disguised(problem, state, seed: int, noise: float = 0.0):
    """The same solution with classes and units renumbered and H_1 rotated, and some noise."""
    rng = np.random.default_rng(seed)
    L, found = problem.depth, {name: np.array(value) for name, value in state.items()}
    order = rng.permutation(problem.classes)
    found["H"], found[f"W{L}"] = found["H"][:, order], found[f"W{L}"][order]
    Q = np.linalg.qr(rng.standard_normal((problem.widths[0],) * 2))[0]
    found["H"], found["W1"] = Q @ found["H"], found["W1"] @ Q.T
    for layer in range(1, L):
        units = rng.permutation(problem.widths[layer])
        found[f"W{layer}"], found[f"W{layer + 1}"] = (
            found[f"W{layer}"][units],
            found[f"W{layer + 1}"][:, units],
        )
    for name, value in found.items():
        value += noise * np.abs(value).max() * rng.standard_normal(problem.shapes[name])
    return found, order


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_solution_is_recognised_in_disguise(which, seed):
    problem, known = solutions()
    state, order = disguised(problem, known[which].blocks, seed)
    found = metrics.classify_solution(problem, state, ufm.Coupled(0.004), solutions=known)
    assert found.name == known[which].name
    best = found.distances[0]
    assert best.distance < 1e-13
    assert best.excess == pytest.approx(0.0, abs=1e-13)
    if known[which].name == "SRG":  # the relabelling is right up to the symmetries of the graph
        edges = list(combinations(range(5), 2))
        meets = np.array([[bool(set(a) & set(b)) for a in edges] for b in edges])
        ours, theirs = best.relabelling, order
        assert np.array_equal(meets[np.ix_(ours, ours)], meets[np.ix_(theirs, theirs)])
    noisy, _ = disguised(problem, known[which].blocks, seed, 1e-3)
    again = metrics.classify_solution(problem, noisy, ufm.Coupled(0.004), solutions=known)
    assert again.name == known[which].name
    assert 1e-4 < again.distances[0].distance < 1e-2
    assert all(d.least <= d.distance * (1 + 1e-12) for d in again.distances)


def test_names_without_known_solutions():
    problem, known = solutions()
    names = [metrics.classify_solution(problem, solution.blocks).name for solution in known]
    assert names == ["DNC", "rank 5", "rank 5", "zero"]
    found = metrics.classify_solution(problem, known[1].blocks, ufm.Coupled(0.004), solutions=known[:1])
    assert found.name == "rank 5"
    assert "the nearest is DNC" in found.reason
    assert (found.ranks_pre.tolist(), found.ranks_post.tolist()) == ([5] * 4, [5, 5, 5, 10])
    assert found.loss == pytest.approx(known[1].loss, rel=1e-13)
    simplex = ufm.UFM(4, 5)
    frame = ufm.initial.simplex_etf(4)
    state = {"W": np.hstack([frame, np.zeros((4, 1))]), "H": np.vstack([frame, np.zeros((1, 4))])}
    found = metrics.classify_solution(simplex, state)
    assert (found.name, found.rank) == ("DNC", 3)
    assert "simplex" in found.reason


def test_spread_within_classes_is_no_collapse():
    problem = ufm.DUFM(3, width=4, depth=2, per_class=2)
    state, _ = collapse(3, 2, 0.01, 4, n=2)
    assert metrics.classify_solution(problem, state).name == "DNC"
    spread = {**state, "H": state["H"] * (1 + 0.5 * np.array([1, -1] * 3))}
    assert metrics.classify_solution(problem, spread).name == "rank 3"
    simplex, frame = ufm.UFM(4, 4, per_class=2), ufm.initial.simplex_etf(4)
    state = {"W": frame, "H": np.repeat(frame, 2, axis=1)}
    assert metrics.classify_solution(simplex, state).name == "DNC"
    spread = {**state, "H": state["H"] * (1 + 0.5 * np.array([1, -1] * 4))}
    assert metrics.classify_solution(simplex, spread).name == "rank 3"


@pytest.mark.parametrize("which", [0, 1])
def test_a_larger_solution_is_at_the_least_distance_that_its_spectra_allow(which):
    """Features 1.1 times as long: Gram matrices 1.21 times, logits 1.1 times the solution's."""
    problem, known = solutions()
    state = {**known[which].blocks, "H": 1.1 * known[which].blocks["H"]}
    [found] = metrics.classify_solution(problem, state, solutions=known[which : which + 1]).distances
    expected = np.sqrt((3 * 0.21**2 + 0.1**2) / 4)
    assert found.distance == pytest.approx(expected, rel=1e-12)
    assert found.least == pytest.approx(expected, rel=1e-12)


def test_a_run_is_classified_at_its_end():
    problem = ufm.DUFM(3, width=6, depth=2)
    state, loss = collapse(3, 2, 0.01, 6)
    known = (SimpleNamespace(name="collapse", blocks=state, loss=loss),)
    run = ufm.simulate(
        problem,
        ufm.GD(0.5),
        ufm.Coupled(0.01),
        steps=8000,
        init=ufm.Gaussian(0.4),
        seed=1,
        record=ufm.At((0, 8000)),
    )
    found = metrics.classify_solution(run, solutions=known)
    assert found.name == "collapse"
    assert found.loss == pytest.approx(run.loss[-1], rel=1e-14)
    start = metrics.classify_solution(problem, run.state(0), DECAY, solutions=known)
    assert start.name not in ("collapse", "DNC")


def test_classes_of_unequal_sizes_are_not_renumbered():
    problem = ufm.DUFM(3, width=3, depth=2, per_class=(1, 2, 3), activation="identity")
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(shape) for name, shape in problem.shapes.items()}
    known = (SimpleNamespace(name="itself", blocks=state, loss=1.0),)
    found = metrics.classify_solution(problem, state, solutions=known)
    assert found.distances[0].relabelling.tolist() == [0, 1, 2]
    assert found.distances[0].distance == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_no_swap_of_two_classes_improves_a_relabelling(seed, monkeypatch):
    """Random matrices, and a beam of one, which loses its way."""
    from ufm.metrics import classification

    monkeypatch.setattr(classification, "BEAM", 1)
    A, B = np.random.default_rng(seed).standard_normal((2, 2, 9, 9))

    def mismatch(p):
        return np.sum((A - B[:, p][:, :, p]) ** 2)

    found = relabel(A, B)
    assert sorted(found) == list(range(9))
    for i, j in combinations(range(9), 2):
        swapped = found.copy()
        swapped[[i, j]] = swapped[[j, i]]
        assert mismatch(swapped) >= mismatch(found) * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_relabelling_finds_a_strongly_regular_graph(seed):
    """The Gram matrix of the Kneser graph K(6, 2) alone has only three different entries."""
    edges = list(combinations(range(6), 2))
    A = np.array([[float(not set(a) & set(b)) for a in edges] for b in edges])[None]
    order = np.random.default_rng(seed).permutation(15)
    B = A[:, order][:, :, order]
    p = relabel(B, A)
    assert np.array_equal(A[:, p][:, :, p], B)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p, s: metrics.dnc1(p, s, "svd"), "dnc1.form is 'svd'"),
        (lambda p, s: metrics.dnc2(p, s, stage="mid"), "dnc2.stage is 'mid'"),
        (lambda p, s: metrics.dnc3(p), "dnc3.state is None"),
        (lambda p, s: metrics.dnc3(np.eye(2), s), "dnc3.source"),
        (lambda p, s: metrics.layer_ranks(p, s, tolerance=1.0), "layer_ranks.tolerance"),
        (lambda p, s: metrics.layer_spectra(p, {"H": s["H"]}), "state.W1 is None"),
        (lambda p, s: metrics.classify_solution(p), "classify_solution.state is None"),
        (lambda p, s: metrics.classify_solution("p", s), "classify_solution.source is 'p'"),
        (lambda p, s: metrics.classify_solution(p, s, tolerance=-1), "classify_solution.tolerance"),
        (lambda p, s: metrics.classify_solution(p, s, solutions=[3]), "classify_solution.solutions is 3"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence(call, sentence):
    with pytest.raises(InvalidProblemError, match=sentence):
        call(ufm.UFM(2, 2), {"W": np.eye(2), "H": np.eye(2)})


def test_a_trajectory_comes_alone(run):
    with pytest.raises(InvalidProblemError, match=r"dnc2.state .* None with a trajectory"):
        metrics.dnc2(run, run.state(0))
    with pytest.raises(InvalidProblemError, match="a trajectory alone"):
        metrics.classify_solution(run, run.state(0))
