"""SELI: closed forms against singular value decompositions, its certificate, and how slowly it is approached."""

import numpy as np
import pytest

import ufm
from ufm.errors import InvalidProblemError
from ufm.theory import minority_collapse, seli
from ufm.theory.seli import acute_ratio, certificate, geometry, limit_cosines, limit_margins, step


def from_samples(sizes):
    """W W^T and class-mean Gram by the definition, from the SVD of the K x N matrix Y - J/K."""
    K = len(sizes)
    labels = np.repeat(np.arange(K), sizes)
    V, values, U = np.linalg.svd(np.eye(K)[:, labels] - 1 / K, full_matrices=False)
    V, values, U = V[:, :-1], values[:-1], U[:-1]  # 1 is no direction of it
    features = (U.T * values) @ U
    averages = np.eye(K)[:, labels] / np.array(sizes)[:, None]
    return (V * values) @ V.T, averages @ features @ averages.T, V @ U


@pytest.mark.parametrize("sizes", [(5, 5, 5), (20, 20, 2, 2), (9, 4, 1), (7, 1, 3, 3, 2, 30)])
def test_geometry_is_that_of_the_samples(sizes):
    W, M, S = from_samples(sizes)
    found = geometry(sizes)
    np.testing.assert_allclose(found.classifiers, W, atol=1e-12 * np.abs(W).max())
    np.testing.assert_allclose(found.features, M, atol=1e-12 * np.abs(M).max())
    np.testing.assert_allclose(found.features, np.linalg.pinv(W, rcond=1e-9), atol=1e-12 * np.abs(M).max())
    square = seli.centred_sizes(sizes)
    np.testing.assert_allclose(W @ W, square, atol=1e-12 * np.abs(square).max())
    np.testing.assert_allclose(M @ M, seli.laplacian(sizes), atol=1e-12 * np.abs(M @ M).max())
    labels = np.repeat(np.arange(len(sizes)), sizes)
    off = S[labels != np.arange(len(sizes))[:, None]]
    assert certificate(sizes) == pytest.approx(off.max(), abs=1e-14)
    assert off.max() < 0


@pytest.mark.parametrize(
    ("K_A", "K_B", "R"), [(2, 2, 7), (5, 5, 100), (3, 1, 4), (1, 4, 9), (4, 2, 1), (2, 6, 50)]
)
def test_step_imbalance_in_closed_form(K_A, K_B, R):
    minority = 3
    found, exact = step(K_A, K_B, float(R)), geometry([R * minority] * K_A + [minority] * K_B)
    first, second, once = found.singular_values
    values = sorted([first] * (K_A - 1) + [second] * (K_B - 1) + [once], reverse=True)
    np.testing.assert_allclose(exact.singular_values, np.array(values) * minority**0.5, rtol=1e-12)
    for products, gram in (
        (found.classifiers, exact.classifiers / minority**0.5),
        (found.features, exact.features * minority**0.5),
    ):
        square_major, square_minor, inside_major, inside_minor, across = products
        wanted = np.full((K_A + K_B, K_A + K_B), across)
        wanted[:K_A, :K_A], wanted[K_A:, K_A:] = inside_major, inside_minor
        np.fill_diagonal(wanted, [square_major] * K_A + [square_minor] * K_B)
        np.testing.assert_allclose(gram, wanted, atol=1e-12 * np.abs(wanted).max())


def test_angles():
    for K in (2, 4, 10, 100):
        assert acute_ratio(K / 2, K / 2) == 7
    for K_A, K_B in ((2, 3), (5, 2)):
        edge = acute_ratio(K_A, K_B)
        signs = [np.sign(step(K_A, K_B, f * edge).classifiers.inside_minor) for f in (0.999, 1.001)]
        assert signs == [-1, 1]
        at = step(K_A, K_B, 1e14)
        for products, wanted in zip((at.classifiers, at.features), limit_cosines(K_A, K_B), strict=True):
            np.testing.assert_allclose(products.cosines()[:2], wanted, atol=1e-5)


def profiles(count, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        K = int(rng.integers(3, 15))
        yield np.maximum(1, np.exp(rng.normal(4.0, 1.5, K))).astype(int).tolist()


def test_certificate_of_5000_random_profiles():
    assert max(certificate(sizes) for sizes in profiles(5000, 1)) < 0


def test_convergence_is_logarithmic_with_the_derived_constants():
    sizes = (20, 20, 2, 2)
    problem = ufm.UFM(4, 4, per_class=sizes)
    distances, left = [], []
    for rate in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8):
        means = minority_collapse.optimum(problem, ufm.Coupled(rate))
        Z = minority_collapse.class_means(problem, means)
        margins = np.diag(Z) - Z
        distances.append(seli.distance(Z))
        left.append(np.abs(margins - limit_margins(sizes, rate)).max() * np.log(1 / rate))
    np.testing.assert_allclose(distances[:5], [0.279, 0.161, 0.118, 0.093, 0.077], atol=6e-4)
    # what the law leaves out falls like 1/log(1/lam_Z), while its constants differ by more than 1 among the classes
    assert max(left) < 2.5
    off = limit_margins(sizes, 1e-6)[~np.eye(4, dtype=bool)]
    assert np.ptp(off) > 1


def test_many_samples_lead_there_as_slowly():
    """lam_Z = c/N, sizes f n_k: margins log(f)/2 + constants, so that the distance falls like 1/log f."""
    distances, cosines = [], []
    for factor in (1, 100, 10**4, 10**6):
        problem = ufm.UFM(6, 6, per_class=(20 * factor,) * 3 + (10 * factor,) * 3)
        rate = 0.5 / problem.samples
        means = minority_collapse.optimum(problem, ufm.Coupled(rate))
        Z = minority_collapse.class_means(problem, means)
        margins = limit_margins((20, 20, 20, 10, 10, 10), 0.5 / 90) + np.log(factor) / 2
        off = ~np.eye(6, dtype=bool)
        assert np.abs(np.diag(Z) - Z - margins)[off].max() < 1.2 / np.log(factor + 10)
        distances.append(float(seli.distance(Z)))
        cosines.append(float(Z[:, 0] @ Z[:, 1] / np.linalg.norm(Z[:, 0]) / np.linalg.norm(Z[:, 1])))
    assert (np.diff(distances) < 0).all()
    assert distances[-1] > distances[0] / 5
    assert (np.diff(cosines) > 0).all()
    assert cosines[-1] < -0.2


def test_equal_classes_have_the_geometry_at_every_decay():
    problem = ufm.UFM(4, 4, per_class=5)
    for rate in (0.1, 0.01, 1e-4):
        means = minority_collapse.optimum(problem, ufm.Coupled(rate))
        assert seli.distance(minority_collapse.class_means(problem, means)) < 1e-10


def test_bad_input():
    with pytest.raises(InvalidProblemError, match=r"class_sizes is 0; allowed"):
        geometry([3, 0, 2])
    with pytest.raises(InvalidProblemError, match=r"class_sizes is \[3\]; allowed: two classes"):
        geometry([3])


def test_distance_of_several_matrices_is_that_of_each(rng):
    means = rng.standard_normal((2, 3, 3))
    assert seli.distance(means).tolist() == [seli.distance(matrix) for matrix in means]
