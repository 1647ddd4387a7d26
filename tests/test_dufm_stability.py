"""Which states of the ReLU DUFM gradient descent returns to from noise, and what their certificates say.

K = 10, r = 5, L = 4, all decays .004, one sample per class: neural collapse and the SRG state of the Kneser graph are
held, the SRG state of the identity variant is left downhill. All three lie on kinks of the ReLU.
"""

from __future__ import annotations

import numpy as np
import pytest

import ufm
from ufm.certificates import certify
from ufm.ensemble import ensemble
from ufm.metrics import classify_solution
from ufm.run import Run
from ufm.solutions import Solution, dnc, srg

DECAY = ufm.Coupled(0.004)
STATES = ("DNC", "SRG, kneser", "SRG, identity")
RATE = 0.5


def problem_of(width: int, depth: int = 4) -> ufm.DUFM:
    return ufm.DUFM(classes=10, width=width, depth=depth)


def solutions_of(problem: ufm.DUFM) -> dict[str, Solution]:
    found = (dnc(problem, DECAY), srg(problem, DECAY), srg(problem, DECAY, "identity"))
    return {solution.name: solution for solution in found}


def with_noise(solution: Solution, seed: int, share: float = 0.05) -> ufm.Given:
    """The state with Gaussian noise added to every block, of this share of the block's norm."""
    rng, noisy = np.random.default_rng(seed), {}
    for name, block in solution.blocks.items():
        noise = rng.standard_normal(block.shape)
        noisy[name] = block + share * np.linalg.norm(block) / np.linalg.norm(noise) * noise
    return ufm.Given(**noisy)


def ends(problem, state, lr, steps, seeds) -> list[tuple[str, float, float]]:
    """What the runs from noise reach: its name, the loss over that of the state minus 1, the distance from it."""
    solutions = solutions_of(problem)
    started = solutions[state]
    runs = [
        Run(problem, ufm.GD(lr), DECAY, with_noise(started, seed), steps, record=ufm.At([0]))
        for seed in seeds
    ]
    found = []
    for trajectory in ensemble(runs):
        reached = classify_solution(trajectory, solutions=tuple(solutions.values()))
        [own] = [distance for distance in reached.distances if distance.solution == state]
        found.append((reached.name, own.excess / started.loss, own.distance))
    return found


@pytest.mark.parametrize("state", STATES[:2])
def test_descent_returns_from_noise(state) -> None:
    for name, excess, distance in ends(problem_of(12), state, ufm.Cosine(RATE), 6000, range(2)):
        assert name == state
        assert 0 <= excess < 1e-5
        assert distance < 5e-3


def test_descent_leaves_the_identity_variant_downhill() -> None:
    """The same judgement as above refuses it: another state, a lower loss, far away."""
    for name, excess, distance in ends(problem_of(12), STATES[2], ufm.Cosine(RATE), 6000, range(2)):
        assert name != STATES[2]
        assert excess < -0.01
        assert distance > 0.2


def test_steps_of_a_fixed_length_stall_above_the_kink() -> None:
    """At Kneser-SRG slopes jump: the loss stays 1e-3 above, and falls with the step."""
    problem, state = problem_of(12), STATES[1]
    [(name, stalled, _)] = ends(problem, state, RATE, 6000, [0])
    [(_, settled, _)] = ends(problem, state, ufm.Cosine(RATE), 6000, [0])
    assert name == state
    assert 5e-4 < stalled < 2e-3
    assert settled < stalled / 100


@pytest.mark.parametrize("width", [10, pytest.param(20, marks=pytest.mark.slow)])
def test_certificates_agree_with_descent(width) -> None:
    problem = problem_of(width)
    found = {
        name: certify(problem, DECAY, solution.blocks) for name, solution in solutions_of(problem).items()
    }
    kneser, identity = found[STATES[1]], found[STATES[2]]
    # no class of collapse turns on what it has switched off: its kinks are flat, those of the graph are sharp
    assert found["DNC"].stable
    assert found["DNC"].sharp_kinks == 0 < found["DNC"].kinks
    assert kneser.stable
    assert kneser.sharp_kinks == 120
    assert max(found["DNC"].gradient, kneser.gradient) < 1e-8
    assert min(found["DNC"].curvature, kneser.curvature) > -1e-12
    assert identity.verdict == "not critical"
    assert identity.gradient == pytest.approx(0.0146, rel=0.01)


def test_the_objective_falls_along_the_certified_descent_at_its_rate() -> None:
    problem = problem_of(10)
    state = solutions_of(problem)[STATES[2]]
    found = certify(problem, DECAY, state.blocks)
    rates = []
    for step in (1e-4, 1e-5):
        moved = {name: block + step * found.descent[name] for name, block in state.blocks.items()}
        rates.append((state.loss - problem.value(moved, DECAY)) / step)
    assert rates[0] == pytest.approx(found.gradient, rel=1e-2)
    assert rates[1] == pytest.approx(found.gradient, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("width", [12, 20])
@pytest.mark.parametrize("state", STATES[:2])
def test_every_seed_returns(state, width) -> None:
    for name, excess, distance in ends(problem_of(width), state, ufm.Cosine(RATE), 20_000, range(16)):
        assert name == state
        assert 0 <= excess < 1e-6
        assert distance < 1e-3


@pytest.mark.slow
def test_every_seed_leaves_the_identity_variant_and_some_end_at_kneser() -> None:
    found = ends(problem_of(20), STATES[2], ufm.StepDecay(RATE, (0.8, 0.9)), 40_000, range(16))
    assert all(name != STATES[2] and excess < -0.02 for name, excess, _ in found)
    assert any(name == STATES[1] for name, _, _ in found)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_three_layers(state) -> None:
    """At L = 3 too."""
    found = ends(problem_of(12, depth=3), state, ufm.Cosine(RATE), 20_000, range(8))
    if state == STATES[2]:
        assert all(name != state and excess < 0 for name, excess, _ in found)
    else:
        assert all(name == state and 0 <= excess < 1e-5 for name, excess, _ in found)


@pytest.mark.slow
def test_sign_descent_stalls_at_kinks_that_are_no_critical_points() -> None:
    """Coordinate by coordinate nothing descends there, but a direction does, and gradient descent takes it."""
    problem, decay = ufm.DUFM(classes=10, width=25, depth=3, per_class=2), ufm.Coupled(0.008)
    start = ufm.Start(ufm.Gaussian((2 / 25) ** 0.5), H=ufm.Gaussian(0.2))
    collapse = dnc(problem, decay).loss
    for optimizer, stalls in (
        (ufm.SignGD(ufm.Cosine(0.004)), True),
        (ufm.Signum(ufm.Cosine(0.004), 0.9), False),
    ):
        run = ufm.simulate(problem, optimizer, decay, steps=5000, init=start, record=ufm.At([0]))
        end = run.state(1)
        assert (run.loss[-1] > 1.01 * collapse) == stalls
        if stalls:
            found = certify(problem, decay, end, kink=1e-3, tolerance=1e-4)
            assert found.verdict == "not critical"
            assert found.gradient > 1e-3
            on = ufm.simulate(problem, ufm.GD(ufm.Cosine(0.5)), decay, steps=3000, init=ufm.Given(**end))
            assert on.loss[-1] < run.loss[-1] - 0.005 * collapse
