"""What the claims say of short runs: predictions, error models and perturbed statements are those written down."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ufm
from tests.predictions import RECORD, RUNS, numbers, run_of
from ufm.claims import registry
from ufm.compare import judge
from ufm.theory._recorded import PERTURBATION

KNOWN = json.loads(RECORD.read_text(encoding="utf-8"))
# other machines round otherwise; a bound may depend on the round-off of a start, and a control moves a millionth
PRECISION = {"float64": 1e-8, "float32": 1e-5}
PLAIN = [
    short.problem
    for short in RUNS.values()
    if type(short.problem) is ufm.UFM and not short.problem.frozen_values and not short.problem.normalisation
]
ASKED = [(name, claim) for name, short in RUNS.items() for claim in short.claims]
# the minimum of a linear chain refuses ReLU wherever it stands
ONE_LAYER = [
    (name, claim)
    for name, claim in ASKED
    if RUNS[name].problem in PLAIN and claim != "ufm.linear_mse_optimum"
]


@pytest.mark.parametrize(("name", "claim"), ASKED)
def test_what_a_claim_says_of_a_run(name, claim):
    """An error model that changes does so on purpose: `tests.predictions` writes it down anew."""
    precision = PRECISION[run_of(name).dtype]
    known, found = KNOWN[name][claim], numbers(name, claim)
    assert found.keys() == known.keys()
    for key, values in known.items():
        expected, actual = (np.array(one, dtype=np.float64) for one in (values, found[key]))
        rtol = 1e-3 if key == "moved" else 1e-4 if key.startswith("bound") else precision
        size = np.nanmax(np.abs(expected), initial=0.0)
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * 1e-3 * size, err_msg=key)


@pytest.mark.parametrize(("name", "claim"), ASKED)
def test_claims_are_asked_where_they_apply(name, claim):
    assert registry()[claim].applies(run_of(name)) is None


@pytest.mark.parametrize(("name", "claim"), ASKED)
def test_a_run_without_a_finite_record_is_no_judgement(name, claim):
    run = run_of(name)
    empty = replace(run.trajectory, fit=np.full_like(run.trajectory.fit, np.nan)).judged()
    for asked in (registry()[claim].predict, registry()[claim].control):
        found = asked(empty)
        assert len(found.bound) == len(found.predicted) == len(found.observed) == 0
        assert np.isnan(found.ratio)
    assert judge(registry()[claim], empty).verdict == "inconclusive"


@pytest.mark.parametrize(("name", "claim"), ASKED)
def test_a_run_of_no_steps_is_at_its_start(name, claim):
    asked = registry()[claim]
    run = replace(RUNS[name], options=(*RUNS[name].options, ("steps", 0))).judged()
    assert asked.applies(run) is None
    found = asked.predict(run)
    records = (
        0
        if claim == "ufm.balancedness" or (not run.trajectory["W"].any() and claim == "zhao2026.prop2.1")
        else 1
    )
    assert len(found.bound) == len(asked.control(run).bound) == records
    assert not found.ratio > 1


@pytest.mark.parametrize(("name", "claim"), ONE_LAYER)
def test_an_activation_that_acts_on_nothing_changes_nothing(name, claim):
    """One layer has no hidden one: a chain with ReLU is the same problem."""
    plain = RUNS[name].problem
    chain = ufm.DUFM(
        plain.classes,
        plain.widths[0],
        1,
        plain.class_sizes,
        activation="relu",
        loss=plain.loss,
        bias=plain.bias,
    )
    run = replace(RUNS[name], problem=chain).judged()
    assert registry()[claim].applies(run) is None
    np.testing.assert_array_equal(
        registry()[claim].predict(run).bound, registry()[claim].predict(run_of(name)).bound
    )


BOUNDED = [(name, claim) for name, claim in ASKED if "least" in KNOWN[name][claim]]


@pytest.mark.parametrize(("name", "claim"), BOUNDED)
def test_controls_of_lower_bounds_are_higher(name, claim):
    """By the share that a run of this precision must see; above the product bound stands the value of DNC."""
    found, share = numbers(name, claim), 1 + PERTURBATION[run_of(name).dtype]
    if claim == "ufm.product_bound":
        assert found["least of the control"] >= found["least"] * share
    else:
        assert found["least of the control"] == pytest.approx(found["least"] * share, rel=1e-13)


def test_every_claim_about_runs_is_asked():
    about_runs = {name for name, claim in registry().items() if claim.predict is not None}
    assert {claim for _, claim in ASKED} == about_runs
    assert {(name, claim) for name, claims in KNOWN.items() for claim in claims} == set(ASKED)
