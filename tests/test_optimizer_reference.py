"""Whole runs against PyTorch 2.13 and the public code of arXiv 2602.16642 (see data/README.md)."""

from pathlib import Path

import numpy as np
import pytest

import ufm
from ufm import GD, UFM, Adam, Coupled, Decoupled, Mixed, Momentum, SignGD, Signum

DATA = Path(__file__).parent / "data" / "optimizer_reference.npz"
RUNS = {
    "sgd_momentum_coupled": (Momentum(0.1, 0.9), Coupled(5e-3)),
    "sgd_nesterov_coupled": (Momentum(0.1, 0.9, nesterov=True), Coupled(5e-3)),
    "sgdw_momentum": (Momentum(0.1, 0.9), Decoupled(5e-2)),
    "sgdw_nesterov": (Momentum(0.1, 0.9, nesterov=True), Decoupled(5e-2)),
    "adam_coupled": (Adam(5e-3), Coupled(5e-3)),
    "adamw": (Adam(5e-3), Decoupled(0.5)),
    "adam_mixed_authors": (Adam(5e-3), Mixed(2e-3, 3e-2, shrink="after")),
    "signum_coupled": (Signum(1e-3, 0.9), Coupled(5e-3)),
    "signum_decoupled": (Signum(1e-3, 0.9), Decoupled(0.5)),
    "signgd_coupled": (SignGD(1e-3), Coupled(5e-3)),
    "signgd_decoupled": (SignGD(1e-3), Decoupled(0.5)),
}


@pytest.fixture(scope="module")
def data():
    with np.load(DATA) as file:
        return dict(file)


def simulated(data, optimizer, decay):
    problem = UFM(6, 9, per_class=3)
    assert np.array_equal(problem.labels, data["labels"])
    steps = data["steps"]
    traj = ufm.simulate(
        problem, optimizer, decay, steps=int(steps[-1]),
        init=ufm.Given(W=data["W0"], H=data["H0"]), record=ufm.At(steps.tolist()),
    )  # fmt: skip
    assert traj.steps.tolist() == [0, *steps.tolist()]
    return traj


def distance(traj, data, name):
    """Norm of the difference of both blocks at every stored step."""
    pairs = [(traj["W"][1:], data[f"{name}_W"]), (traj["H"][1:], data[f"{name}_H"])]
    return np.sqrt(sum(((ours - theirs) ** 2).sum(axis=(1, 2)) for ours, theirs in pairs))


@pytest.mark.parametrize("name", RUNS)
def test_run_equals_the_stored_one(name, data):
    difference = distance(simulated(data, *RUNS[name]), data, name)
    print(f"{name:22s} largest difference in norm {difference.max():.1e}")
    assert difference.max() <= 1e-12


def test_every_stored_run_is_compared(data):
    assert {key[:-2] for key in data if key.endswith("_W")} == set(RUNS)


@pytest.mark.parametrize(
    ("name", "optimizer", "decay"),
    [
        ("sgd_momentum_coupled", Momentum(0.1, 0.9), Coupled(5e-3 * (1 + 1e-6))),
        ("sgdw_momentum", Momentum(0.1, 0.9, nesterov=True), Decoupled(5e-2)),
        ("adam_mixed_authors", Adam(5e-3), Mixed(2e-3, 3e-2, shrink="before")),
        ("adamw", Adam(5e-3, eps=1.001e-8), Decoupled(0.5)),
        ("signum_decoupled", Signum(1e-3, 0.9), Decoupled(0.5 * (1 + 1e-6))),
        ("signgd_coupled", GD(1e-3), Coupled(5e-3)),
    ],
)
def test_another_rule_is_told_apart(name, optimizer, decay, data):
    assert distance(simulated(data, optimizer, decay), data, name).max() > 1e-10
