"""What a run refuses before any kernel is called, and what the package shows of itself."""

import gc

import numpy as np
import pytest

import ufm
from ufm import GD, UFM
from ufm.claims import Prediction
from ufm.errors import InvalidProblemError
from ufm.losses import UserLoss
from ufm.run import Run
from ufm.simulate import integrate
from ufm.stepping import collector_at_rest

PROBLEM = UFM(3, 2)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"problem": "UFM"}, "simulate.problem is 'UFM'; allowed: a problem such as"),
        ({"optimizer": GD}, "simulate.optimizer is .*GD.*; allowed: an optimizer such as"),
        ({"optimizer": 0.1}, "simulate.optimizer is 0.1; allowed: an optimizer such as"),
        ({"init": 0.1}, "simulate.init is 0.1; allowed: an initialiser such as"),
        ({"record": 10}, "simulate.record is 10; allowed: Every"),
        ({"record": ufm.Every}, "simulate.record is .*Every.*; allowed: Every"),
        ({"batch": 4}, "simulate.batch is 4; allowed: at most the 3 samples"),
    ],
)
def test_a_run_names_the_field_that_is_wrong(fields, sentence):
    with pytest.raises(InvalidProblemError, match=sentence):
        Run(**{"problem": PROBLEM, "optimizer": GD(0.1), **fields})


def test_a_run_without_steps_is_a_description_only():
    run = Run(PROBLEM, GD(0.1))
    with pytest.raises(ValueError, match="the number of steps"):
        _ = run.rates
    with pytest.raises(InvalidProblemError, match=r"simulate.steps is None"):
        integrate(run)


def test_more_records_than_memory_holds_are_refused():
    with pytest.raises(InvalidProblemError, match=r"LogSpaced.count is 10+; allowed"):
        ufm.LogSpaced(10**15)


def test_targets_of_a_users_loss_are_held_by_content():
    def squares(Z, targets, R):
        return 0.0

    targets = np.eye(3)
    first, second = UserLoss(squares, targets), UserLoss(squares, targets.copy())
    assert first == second
    assert first.targets.shape == (3, 3)


def test_a_prediction_of_no_record_has_no_error():
    nothing = np.zeros(0)
    assert Prediction("alpha", nothing, nothing, nothing).error.shape == (0,)


def test_what_is_listed_can_be_imported():
    listed = dir(ufm)
    assert "simulate" in listed
    assert all(hasattr(ufm, name) for name in listed)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    """Off while kernels are made ready; a program that had switched it off finds it off."""
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with collector_at_rest():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
