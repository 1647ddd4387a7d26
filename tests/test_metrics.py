"""The metrics against the published code's values, their conventions, and batching."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ufm import metrics
from ufm.errors import InvalidProblemError

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "metrics_reference.json").read_text())


def arrays(case: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(DATA / "metrics_reference.npz") as stored:
        return stored[f"W{case}"], stored[f"H{case}"], stored[f"y{case}"]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_values_of_the_public_code(case: int) -> None:
    W, H, labels = arrays(case)
    found = {
        "nc2": metrics.nc2(H, labels),
        "nc2w": metrics.nc2w(W),
        "nc2m": metrics.nc2m(W, H, labels),
        "nc3": metrics.nc3(W, H, labels),
        "row_sum_norm": metrics.nc0(W, "norm"),
    }
    for name, value in found.items():
        assert abs(value - CASES[case][name]) <= 1e-10, name


@pytest.mark.parametrize("case", range(len(CASES)))
def test_paper_convention_differs_by_the_printed_prefactors(case: int) -> None:
    W, H, labels = arrays(case)
    K, p = W.shape
    assert metrics.nc2(H, labels, convention="paper") == pytest.approx(CASES[case]["nc2"] / K**2, rel=1e-12)
    assert metrics.nc2w(W, convention="paper") == pytest.approx(CASES[case]["nc2w"] / K**2, rel=1e-12)
    assert metrics.nc2m(W, H, labels, convention="paper") == pytest.approx(
        CASES[case]["nc2m"] / K**2, rel=1e-12
    )
    assert metrics.nc3(W, H, labels, convention="paper") == pytest.approx(
        CASES[case]["nc3"] / (K * p), rel=1e-12
    )


def test_four_normalisations_of_nc0() -> None:
    W, _, _ = arrays(1)
    K, p = W.shape
    norm = CASES[1]["row_sum_norm"]
    assert metrics.nc0(W) == pytest.approx(norm**2 / K, rel=1e-13)
    assert metrics.nc0(W, "norm_per_width") == pytest.approx(norm / p, rel=1e-13)
    assert metrics.nc0(W, "relative") == pytest.approx(norm / (p * np.sqrt((W**2).sum())), rel=1e-13)


def test_leading_axes_are_batch_axes() -> None:
    W, H, labels = arrays(0)
    many_W, many_H = np.stack([W, 2 * W, W + 1]).reshape(3, 1, *W.shape), np.stack([H, H**2, H - 1])
    many_H = many_H.reshape(3, 1, *H.shape)
    for metric in (metrics.nc2m, metrics.nc3):
        batched = metric(many_W, many_H, labels)
        assert batched.shape == (3, 1)
        for i in range(3):
            assert batched[i, 0] == pytest.approx(metric(many_W[i, 0], many_H[i, 0], labels), rel=1e-13)
    assert (
        metrics.nc2(many_H, labels).shape == metrics.nc2w(many_W).shape == metrics.nc0(many_W).shape == (3, 1)
    )


def test_a_trajectory_stands_for_its_arrays() -> None:
    W, H, labels = arrays(2)

    class Recorded(dict):
        def features(self) -> np.ndarray:
            return np.stack([H, H + 1])

        problem = SimpleNamespace(labels=labels)

    traj = Recorded(W=np.stack([W, -W]))
    both = np.stack([H, H + 1])
    assert np.array_equal(metrics.nc0(traj), metrics.nc0(traj["W"]))
    assert np.array_equal(metrics.nc2(traj), metrics.nc2(both, labels))
    assert np.array_equal(metrics.nc2w(traj), metrics.nc2w(traj["W"]))
    assert np.array_equal(metrics.nc2m(traj), metrics.nc2m(traj["W"], both, labels))
    assert np.array_equal(metrics.nc3(traj), metrics.nc3(traj["W"], both, labels))
    with pytest.raises(InvalidProblemError, match="a trajectory alone"):
        metrics.nc3(traj, H, labels)


def test_a_simplex_scores_zero_and_a_degenerate_state_is_nan() -> None:
    K, n = 5, 3
    centred = np.eye(K) - 1 / K
    labels = np.repeat(np.arange(K), n)
    H = 3.0 * centred[:, labels]
    for value in (metrics.nc2(H, labels), metrics.nc2w(centred), metrics.nc2m(centred, H, labels)):
        assert value < 1e-14
    assert metrics.nc3(centred, H, labels) < 1e-14
    assert np.isnan(metrics.nc2w(np.zeros((K, K))))
    assert metrics.nc0(np.zeros((K, K))) == 0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda W, H, y: metrics.nc0(W, "squared"), "nc0.normalisation"),
        (lambda W, H, y: metrics.nc2(H, y, convention="zhu"), "nc2.convention"),
        (lambda W, H, y: metrics.nc2(H, y[:-1]), "shapes of H, labels"),
        (lambda W, H, y: metrics.nc2(H, np.where(y == 1, 0, y)), r"without a sample is \[1\]"),
        (lambda W, H, y: metrics.nc2(H, y - 1), "whole numbers 0"),
        (lambda W, H, y: metrics.nc3(W[:, :-1], H, y), "nc3.W"),
        (lambda W, H, y: metrics.nc3(W), "no features"),
        (lambda W, H, y: metrics.nc0(W[0]), "classes, width"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence) -> None:
    with pytest.raises(InvalidProblemError, match=sentence):
        call(*arrays(0))
