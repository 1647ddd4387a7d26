"""The minimiser against closed forms, its starts and their seeds, continuation, and what it refuses."""

import numpy as np
import pytest
from dufm_states import collapse

import ufm
from ufm.certificates import certify
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.minimise import minimise

LINEAR = ufm.DUFM(3, width=4, depth=3, per_class=2, activation="identity")
DECAY = ufm.Coupled(0.01)


@pytest.fixture(scope="module")
def found():
    return minimise(LINEAR, DECAY, starts=3, init=ufm.Gaussian(0.5), seed=7)


def test_linear_squared_error_reaches_collapse(found):
    _, loss = collapse(3, 3, 0.01, 4, n=2)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert found.loss == found.losses[found.best] == found.losses.min()
    assert found.certificate.verdict == "local minimum"
    assert found.gradients[found.best] < 1e-8
    assert LINEAR.value(found.state, DECAY) == pytest.approx(loss, rel=1e-12)


def test_a_minimum_prints_its_objective_how_many_starts_agree_and_what_it_is(found):
    first, second = str(found).splitlines()
    same = sum(abs(found.losses - found.loss) <= 1e-8 * found.loss)
    assert first == f"lowest objective {found.loss:.10g}, which {same} of 3 starts reached"
    assert second == f"its state: {found.certificate}"


def test_unequal_decays_and_unequal_classes_reach_the_closed_form_of_every_class():
    """gamma_k^(L-1) (1 - gamma_k)^(L+1) = (N/n_k)^L N lam_H prod lam_W; loss sum_k (n_k/N) (1-gamma)(1+L gamma)/2."""
    from scipy.optimize import brentq

    sizes, rates = (4, 2, 1), {"H": 2e-3, "W1": 1e-3, "W2": 3e-3}
    problem = ufm.DUFM(3, width=4, depth=2, per_class=sizes, activation="identity")
    N, expected = sum(sizes), 0.0
    for n in sizes:
        strength = (N / n) ** 2 * N * np.prod(list(rates.values()))
        gamma = brentq(lambda g, s=strength: g * (1 - g) ** 3 - s, 0.25, 1.0, xtol=1e-16)
        assert gamma > 0.5  # the class is kept
        expected += n / N * (1 - gamma) * (1 + 2 * gamma) / 2
    found = minimise(problem, ufm.Coupled(**rates), starts=4, init=ufm.Gaussian(0.5), certificate=False)
    assert found.loss == pytest.approx(expected, rel=1e-12)
    assert found.certificate is None


def test_cross_entropy_at_depth_two_reaches_the_opposed_pairs():
    """K = 10, n = 5, lam = 2^-10: loss .08001266 at rank 5, below that of collapse, .09066218."""
    problem = ufm.DUFM(10, width=12, depth=2, per_class=5, activation="identity", loss="ce")
    found = minimise(problem, ufm.Coupled(2.0**-10), starts=2, init=ufm.Gaussian(0.05))
    assert found.loss == pytest.approx(0.08001266, abs=5e-9)
    assert ufm.metrics.layer_ranks(problem, found.state).tolist() == [5, 5]
    assert found.certificate.stable


def test_a_start_is_that_of_a_run_with_its_seed_and_the_result_repeats(found):
    again = minimise(LINEAR, DECAY, starts=2, init=ufm.Gaussian(0.5), seed=8, certificate=False)
    assert np.array_equal(again.losses, found.losses[1:])
    assert np.array_equal(again.iterations, found.iterations[1:])
    run = ufm.simulate(LINEAR, ufm.GD(0.1), DECAY, steps=0, init=ufm.Gaussian(0.5), seed=7)
    given = minimise(LINEAR, DECAY, starts=[run.state(0)], certificate=False)
    assert given.losses[0] == found.losses[0]


def test_the_best_state_starts_a_run_and_another_search(found):
    run = ufm.simulate(LINEAR, ufm.GD(0.1), DECAY, steps=1, init=found.start)
    assert run.loss[0] == pytest.approx(found.loss, rel=1e-14)
    assert minimise(LINEAR, DECAY, starts=[found], certificate=False).loss <= found.loss


def test_continuation_passes_through_its_factors_in_order():
    """At ten thousand times the decay only zero is left, and from near zero a chain of three layers does not return."""
    collapsed = minimise(
        LINEAR, DECAY, starts=2, init=ufm.Gaussian(0.5), continuation=(1e4,), certificate=False
    )
    np.testing.assert_allclose(collapsed.losses, 0.5, rtol=1e-10)
    gentle = minimise(LINEAR, DECAY, starts=2, init=ufm.Gaussian(0.5), continuation=(0.5,), certificate=False)
    assert gentle.loss == pytest.approx(collapse(3, 3, 0.01, 4, n=2)[1], rel=1e-12)


def test_a_frozen_block_stays_and_iterations_are_bounded():
    problem = ufm.UFM(3, 2, classifier=[[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    found = minimise(problem, ufm.Coupled(0.1), starts=1, iterations=3)
    assert found.iterations.tolist() == [3]
    assert np.array_equal(found.state["W"], problem.frozen_values["W1"])
    assert sorted(name for name, _ in found.start.blocks) == ["H"]


def test_progress_is_shown(capsys):
    minimise(LINEAR, DECAY, starts=2, iterations=2, certificate=False, progress=True)
    assert "2/2" in capsys.readouterr().err.replace("2.00/2.00", "2/2")


def residual(Z, targets, R):
    R[:] = Z - targets
    return 0.5 * np.sum((Z - targets) ** 2)


@pytest.mark.slow
def test_a_users_loss_is_minimised_but_not_certified():
    problem = ufm.UFM(2, 2, loss=residual)
    found = minimise(problem, ufm.Coupled(0.1), starts=1)
    assert found.loss == pytest.approx(2 * (0.1 - 0.1**2 / 2), rel=1e-12)
    assert found.certificate is None
    with pytest.raises(IncompatibleError, match="second derivative is known"):
        certify(problem, None, found.state)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        (
            {"decay": ufm.Decoupled(0.1)},
            IncompatibleError,
            "minimise.decay is Decoupled.* belongs to the step",
        ),
        ({"starts": 0}, InvalidProblemError, "minimise.starts is 0"),
        ({"starts": []}, InvalidProblemError, "at least one start"),
        ({"starts": "many"}, InvalidProblemError, "minimise.starts is 'many'"),
        ({"starts": [3]}, InvalidProblemError, "minimise.starts is 3"),
        (
            {"starts": [ufm.Zeros()], "init": ufm.Zeros()},
            InvalidProblemError,
            "nothing with starts that are given",
        ),
        ({"init": 3}, InvalidProblemError, "minimise.init is 3"),
        ({"seed": -1}, InvalidProblemError, "minimise.seed is -1"),
        ({"continuation": (0.0,)}, InvalidProblemError, "minimise.continuation"),
        ({"continuation": 4}, InvalidProblemError, "minimise.continuation is 4"),
        ({"iterations": 0}, InvalidProblemError, "minimise.iterations is 0"),
        ({"tolerance": -1}, InvalidProblemError, "minimise.tolerance is -1"),
        ({"certificate": 1}, InvalidProblemError, "minimise.certificate is 1"),
    ],
)
def test_bad_input_gets_a_sentence(options, error, sentence):
    with pytest.raises(error, match=sentence):
        minimise(LINEAR, **{"decay": DECAY, **options})
    with pytest.raises(InvalidProblemError, match=r"minimise.problem is None"):
        minimise(None)
