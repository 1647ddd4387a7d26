"""What the claims say of short runs: predictions, error models and perturbed statements are those written down."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.predictions import RECORD, RUNS, numbers, run_of
from ufm.claims import registry
from ufm.compare import judge
from ufm.theory._recorded import PERTURBATION

KNOWN = json.loads(RECORD.read_text(encoding="utf-8"))
# other machines round otherwise; a bound may depend on the round-off of a start, and a control moves a millionth
PRECISION = {"float64": 1e-8, "float32": 1e-5}
ASKED = [(name, claim) for name, short in RUNS.items() for claim in short.claims]


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
