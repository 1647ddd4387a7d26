"""Cosines within and between classes beyond what the catalogue's tests say: every class, a simplex, zeros, a run."""

import numpy as np
import pytest

import ufm
from ufm.errors import InvalidProblemError
from ufm.metrics import inter_class_cosine, intra_class_cosine


def test_every_class_and_pair_by_a_double_loop(rng):
    labels = np.array([2, 0, 1, 0, 2, 2])
    H = rng.standard_normal((4, 6))
    intra, inter = (f(H, labels, "each") for f in (intra_class_cosine, inter_class_cosine))
    for c in range(3):
        for other in range(3):
            cosines = [
                H[:, i] @ H[:, j] / np.linalg.norm(H[:, i]) / np.linalg.norm(H[:, j])
                for i in np.flatnonzero(labels == c)
                for j in np.flatnonzero(labels == other)
            ]
            found = intra[c] if c == other else inter[c, other]
            assert found == pytest.approx(np.mean(cosines), rel=1e-13)
        assert np.isnan(inter[c, c])


def test_at_a_simplex_and_at_zero():
    labels = np.repeat(np.arange(4), 3)
    H = np.hstack([ufm.simplex_etf(4)[:, [k]] * np.array([[1.0, 2.0, 0.5]]) for k in range(4)])
    assert abs(intra_class_cosine(H, labels) - 1) < 1e-15
    assert np.abs(inter_class_cosine(H, labels, "each") + 1 / 3)[~np.eye(4, dtype=bool)].max() < 1e-15
    H[:, 0] = 0.0
    assert np.isnan(intra_class_cosine(H, labels))
    assert np.isnan(inter_class_cosine(np.ones((2, 3)), np.zeros(3, int)))
    with pytest.raises(InvalidProblemError, match=r"inter_class_cosine\.over is 'max'"):
        inter_class_cosine(H, labels, "max")


def test_of_a_normalised_run_they_are_those_behind_the_normalisation():
    problem = ufm.UFM(3, 4, 2, normalisation=ufm.BatchNorm())
    traj = ufm.simulate(problem, ufm.GD(0.1), steps=3, init=ufm.Gaussian(1.0))
    assert np.array_equal(inter_class_cosine(traj), inter_class_cosine(traj.features(), problem.labels))
    assert not np.allclose(inter_class_cosine(traj), inter_class_cosine(traj["H"], problem.labels))
