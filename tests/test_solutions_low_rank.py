"""SRG and opposed-pair states: closed form against explicit matrices, best scales, ranks, and refusals."""

import numpy as np
import pytest
from scipy.optimize import minimize

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.solutions import dnc, low_rank, srg
from ufm.solutions.pairs import cross_entropy_dnc
from ufm.theory import strongly_regular_graph as graph


def random_decay(rng, depth, low=-4.5, high=-2.7) -> ufm.Coupled:
    rates = 10 ** rng.uniform(low, high, depth + 1)
    return ufm.Coupled(H=rates[0], **{f"W{layer}": rate for layer, rate in enumerate(rates[1:], 1)})


def random_srg(rng):
    r, depth, n = int(rng.integers(4, 7)), int(rng.integers(3, 7)), int(rng.integers(1, 4))
    K, extra = r * (r - 1) // 2, int(rng.integers(0, 3))
    problem, decay = ufm.DUFM(K + extra, 22, depth, n), random_decay(rng, depth)
    variant = str(rng.choice(graph.VARIANTS))
    return problem, decay, srg(problem, decay, variant, relaxed=bool(rng.integers(2)), classes=K)


def random_pairs(rng):
    K, depth, n = int(rng.integers(2, 12)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    activation = "identity" if K % 2 else str(rng.choice(["identity", "relu"]))
    problem = ufm.DUFM(K, 13, depth, n, activation=activation, loss="ce")
    decay = random_decay(rng, depth)
    return problem, decay, [low_rank, cross_entropy_dnc][int(rng.integers(2))](problem, decay)


def last_means(problem, state) -> np.ndarray:
    """Class means of the last hidden layer before its ReLU; the logits of one layer."""
    means = state["H"][:, problem.labels.searchsorted(range(problem.classes))]
    for layer in range(1, max(problem.depth, 2)):
        means = state[f"W{layer}"] @ (
            np.maximum(means, 0) if layer > 1 and problem.activation == "relu" else means
        )
    return means


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("draw", [random_srg, random_pairs])
def test_closed_form_is_the_objective_of_the_matrices(draw, count, rng) -> None:
    for _ in range(count):
        problem, decay, found = draw(rng)
        assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-13)
        singular = np.linalg.svd(last_means(problem, found), compute_uv=False)
        assert np.count_nonzero(singular > 1e-9 * singular[0]) == found.rank


@pytest.mark.parametrize("draw", [random_srg, random_pairs])
def test_scales_are_the_best_and_penalties_shared_evenly(draw, rng) -> None:
    """The derivative along every block vanishes; all factors of a relaxed SRG but the last share evenly."""
    for _ in range(20):
        problem, decay, found = draw(rng)
        gradient = problem.gradient(found.blocks, decay)
        rates = dict(decay.blocks)
        shares = {block: rates[block] * np.sum(found[block] ** 2) for block in problem.blocks}
        for block in problem.blocks:
            assert abs(np.sum(gradient[block] * found[block])) < 1e-11 * shares[block]
        if "SRG" not in found.name:
            assert np.ptp(list(shares.values())) < 1e-12 * max(shares.values())
        else:
            before = [shares[block] for block in problem.blocks if block != problem.last]
            assert np.ptp(before) < 1e-12 * max(before)


def test_linear_states_are_critical_and_the_ridge_is_the_best_last_layer(rng) -> None:
    for activation, classes in (("identity", 6), ("identity", 10), ("relu", 6)):
        problem, decay = ufm.DUFM(classes, 12, 3, 2, activation=activation, loss="ce"), random_decay(rng, 3)
        states = [cross_entropy_dnc] + [low_rank] * (activation == "identity")
        for state in states:
            found = state(problem, decay)
            gradient = problem.gradient(found.blocks, decay)
            assert all(np.abs(gradient[block]).max() < 1e-15 for block in problem.blocks)
    problem, decay = ufm.DUFM(10, 10, 4, 2), random_decay(rng, 4)
    assert np.abs(problem.gradient(srg(problem, decay).blocks, decay)["W4"]).max() < 1e-15
    assert np.abs(problem.gradient(srg(problem, decay, relaxed=False).blocks, decay)["W4"]).max() > 1e-8


def test_odd_pairs_are_no_critical_point() -> None:
    problem, decay = ufm.DUFM(5, 6, 3, activation="identity", loss="ce"), ufm.Coupled(1e-3)
    found = low_rank(problem, decay)
    assert np.abs(problem.gradient(found.blocks, decay)["W3"]).max() > 1e-5
    assert found.loss < cross_entropy_dnc(problem, decay).loss


def test_patterns_of_the_figure() -> None:
    """K = 10, r = 5, L = 4: rows of M_3 have r - 1 equal entries; M_4 before and after the ReLU."""
    problem, decay = ufm.DUFM(10, 10, 4), ufm.Coupled(0.004)
    B = graph.incidence(5)
    for variant, entries in (("kneser", (3, 1)), ("identity", (1, 3))):
        state = srg(problem, decay, variant)
        means = {2: state["W1"] @ state["H"]}
        for layer in (2, 3):
            means[layer + 1] = state[f"W{layer}"] @ np.maximum(means[layer], 0)
        third = means[3][:5] / means[3].max()
        assert third == pytest.approx(B, abs=1e-12)
        M4 = means[4] / np.abs(means[4]).max()
        assert [(row > 0.5).sum() for row in M4] == [entries[0]] * 10
        assert [(row < -0.5).sum() for row in M4] == [entries[1]] * 10
        assert np.linalg.matrix_rank(M4, tol=1e-9) == state.rank == 5
        assert np.linalg.matrix_rank(np.maximum(M4, 0), tol=1e-9) == 10


def test_below_deep_collapse_and_back_after_a_push(rng) -> None:
    """K = 4, L = 3, linear cross-entropy: L-BFGS returns from 5 % noise to opposed pairs, below DNC."""
    problem, decay = ufm.DUFM(4, 5, 3, activation="identity", loss="ce"), ufm.Coupled(2.0**-9)
    found = low_rank(problem, decay)
    assert found.loss < cross_entropy_dnc(problem, decay).loss
    start = problem.pack({block: found[block] for block in problem.blocks})

    def value_and_gradient(theta):
        state = problem.unpack(theta)
        return problem.value(state, decay), problem.pack(problem.gradient(state, decay))

    pushed = start * (1 + 0.05 * rng.standard_normal(len(start)))
    end = minimize(
        value_and_gradient, pushed, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-15}
    )
    assert end.fun == pytest.approx(found.loss, abs=1e-8)
    for layer_problem, better in ((ufm.DUFM(10, 10, 3), srg), (ufm.DUFM(6, 6, 4), srg)):
        decay = ufm.Coupled(0.002)
        assert better(layer_problem, decay).loss < dnc(layer_problem, decay).loss


def test_six_classes_of_three_layers_are_below_collapse_at_strong_decay_alone() -> None:
    """Best design and ridge; with the output x I, and at weak decay, DNC has the smaller objective."""
    problem = ufm.DUFM(6, 10, 3)
    for lam, below in ((0.0393125, True), (0.006468, False)):
        decay = ufm.Coupled(lam)
        ridge, multiple = (srg(problem, decay, "best", relaxed=relaxed) for relaxed in (True, False))
        collapsed = dnc(problem, decay).loss
        for state in (ridge, multiple):
            assert problem.value(state.blocks, decay) == pytest.approx(state.loss, rel=1e-13)
        assert ridge.loss < multiple.loss
        assert (ridge.loss < collapsed * (1 - 4e-3)) == below
        assert collapsed < min(multiple.loss, 0.5)


def test_blocks_and_designs() -> None:
    decay = ufm.Coupled(0.004)
    found = srg(ufm.DUFM(12, 12, 4), decay, relaxed=False, classes=10)
    assert found.loss == pytest.approx(0.100827, abs=0.6e-6)
    assert found.rank == 7
    # r = 4 with edges and triangles, r = 6 with 20 triples: more neurons than classes
    wide = ufm.DUFM(6, (4, 4, 4, 10), 4)
    assert srg(wide, decay, "best").loss < srg(wide, decay).loss
    assert srg(wide, decay, "best").rank == 4
    assert srg(wide, decay).rank == 3
    triples = ufm.DUFM(15, (6, 6, 20), 3)
    assert srg(triples, decay, "best")["W2"].shape == (20, 6)
    # a decay at which the rest has shrunk to zero and the graph has not
    strong = srg(ufm.DUFM(11, 11, 4), ufm.Coupled(0.033), classes=10)
    assert strong.rank == 5
    assert np.abs(strong["H"][:, 10]).max() == 0


MSE10 = ufm.DUFM(10, 10, 4)
CE6 = ufm.DUFM(6, 6, 3, loss="ce")
LAM = ufm.Coupled(0.004)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: srg(ufm.DUFM(12, 12, 4), LAM), "classes of the graph is 12"),
        (lambda: srg(MSE10, LAM, classes=9), "classes of the graph is 9"),
        (lambda: srg(MSE10, LAM, classes=11), "srg.classes is 11"),
        (lambda: srg(ufm.DUFM(10, 9, 4), LAM), r"width is \(9, 9, 9, 9\); allowed: at least \(5, 5, 5, 10\)"),
        (lambda: srg(ufm.DUFM(15, 15, 4), LAM, "best"), r"at least \(6, 6, 6, 20\)"),
        (lambda: srg(ufm.DUFM(10, 10, 2), LAM), "ReLU and depth >= 3"),
        (lambda: srg(ufm.DUFM(10, 10, 4, activation="identity"), LAM), "ReLU and depth >= 3"),
        (lambda: srg(ufm.UFM(10, 10, loss="mse"), LAM), "ReLU and depth >= 3"),
        (lambda: srg(ufm.DUFM(10, 10, 4, loss="ce"), LAM), "problem.loss is CrossEntropy"),
        (lambda: srg(ufm.DUFM(10, 10, 4, loss=ufm.MSE(reduction="sum")), LAM), "allowed: MSE"),
        (lambda: srg(ufm.DUFM(10, 10, 4, bias=True), LAM), "problem.bias is True"),
        (lambda: srg(ufm.DUFM(10, 10, 4, frozen={"W2": np.eye(10)}), LAM), "W2 is frozen"),
        (lambda: srg(ufm.DUFM(3, 4, 4, (1, 1, 2)), LAM, "identity"), "classes of equal size"),
        (lambda: srg(MSE10, ufm.Coupled(H=0.1)), "coupled decay of W1 is 0.0"),
        (lambda: srg(MSE10, None), "coupled decay of H is 0.0"),
        (lambda: srg(MSE10, ufm.Mixed(0.1, 0.1)), "decoupled decay of H is 0.1"),
        (lambda: srg(MSE10, ufm.Coupled(1.0)), "shrunk to zero"),
        (lambda: srg(MSE10, ufm.Coupled(1e-300)), "from 1e-150 to 1e.150"),
        (lambda: low_rank(CE6, ufm.Coupled(1e308)), "from 1e-150 to 1e.150"),
        (lambda: srg(MSE10, LAM, "petersen"), "variant is 'petersen'"),
        (lambda: srg(MSE10, LAM, relaxed=1), "srg.relaxed is 1"),
        (lambda: srg(ufm.DUFM(3, 4, 4), LAM), "at least 6 for variant 'kneser'"),
        (lambda: low_rank(MSE10, LAM), "problem.loss is MSE"),
        (lambda: low_rank(ufm.DUFM(5, 6, 3, loss="ce"), LAM), "classes is 5; allowed: an even number under ReLU"),
        (lambda: low_rank(ufm.DUFM(6, 3, 3, loss="ce"), LAM), r"at least \(4, 6, 6\)"),
        (lambda: low_rank(CE6, ufm.Coupled(2.0)), "shrunk to zero"),
        (lambda: low_rank(ufm.UFM(4, 1), LAM), r"at least \(2,\)"),
        (lambda: cross_entropy_dnc(ufm.UFM(4, 2), LAM), r"at least \(3,\)"),
        (lambda: cross_entropy_dnc(MSE10, LAM), "problem.loss is MSE"),
        (lambda: cross_entropy_dnc(CE6, ufm.Coupled(2.0)), "dnc.decay is .* shrunk to zero"),
    ],
)  # fmt: skip
def test_refused_in_one_sentence(call, sentence) -> None:
    with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence) as caught:
        call()
    assert str(caught.value).count("\n") == 0
