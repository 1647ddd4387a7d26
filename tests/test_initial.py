"""Where runs start: reproducible by seed and block, fixed frames as defined, bad starts refused."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.initial import (
    Gaussian,
    Given,
    LinearDefault,
    SimplexETF,
    Spectral,
    Start,
    Zeros,
    block_rng,
    draw,
    simplex_etf,
    walsh,
)
from ufm.problems import DUFM, UFM

EPS = np.finfo(float).eps
OBJECTS = [
    Zeros(),
    Gaussian(),
    Gaussian(0.1),
    LinearDefault(),
    SimplexETF(),
    SimplexETF("columns"),
    Spectral(0.5),
    Spectral((0.5, 1.0)),
    Given([[1.0, 2.0]]),
    Given(np.arange(20.0)),
    Given(W=[[1.0]], H=[[2.0]]),
    Start(Zeros()),
    Start(Gaussian(0.1), W=Zeros()),
]
PROBLEM = UFM(3, 4, per_class=(2, 1, 1))
DEEP = DUFM(3, 4, 2, bias=True)


@pytest.mark.parametrize("start", OBJECTS, ids=repr)
def test_objects_compare_hash_copy_and_pickle(start):
    for again in (pickle.loads(pickle.dumps(start)), copy.deepcopy(start)):
        assert again == start
        assert hash(again) == hash(start)
        assert repr(again) == repr(start)
    assert start not in [other for other in OBJECTS if other is not start]
    assert start != 3


@pytest.mark.parametrize("start", [start for start in OBJECTS if "<" not in repr(start)], ids=repr)
def test_the_repr_builds_the_object(start):
    assert eval(repr(start)) == start


def test_large_arrays_print_as_their_shape_and_digest():
    assert repr(Given(np.zeros((4, 5)))).startswith("Given(<4x5 array ")


def test_arrays_are_held_by_content_and_do_not_change():
    values = np.ones((2, 2))
    start = Given(values)
    values[0, 0] = 5.0
    assert start == Given([[1, 1], [1, 1]])
    assert start != Given([1, 1, 1, 1])
    with pytest.raises(ValueError, match="read-only"):
        start.values.array[0, 0] = 2.0
    for obj in (start, Start(Zeros()), start.values):
        with pytest.raises(AttributeError, match="cannot be changed"):
            obj.values = 1


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Gaussian(-1), "Gaussian.scale is -1; allowed: a finite number >= 0."),
        (lambda: Gaussian("1"), "Gaussian.scale is '1'"),
        (lambda: Spectral(-1), "Spectral.singular_values is -1; allowed: a finite number >= 0."),
        (lambda: Spectral("1"), "Spectral.singular_values is '1'"),
        (lambda: Spectral((1, None)), "Spectral.singular_values is None"),
        (lambda: draw(UFM(4, 4), Spectral((1, 2)), 0), "allowed: one number, or one for each of 4 classes"),
        (lambda: draw(UFM(6, 6), Spectral(1), 0), "walsh.K is 6; allowed: a power of 2 from 2 on."),
        (lambda: draw(UFM(4, 3), Spectral(1), 0), "width is 3; allowed: at least the number of classes, 4"),
        (lambda: SimplexETF("rows"), "SimplexETF.norm is 'rows'; allowed: 'frobenius' or 'columns'."),
        (lambda: Given(), "Given is None; allowed: one array, or arrays by block name, not both."),
        (lambda: Given([1.0], W=[1.0]), "not both"),
        (lambda: Given([np.nan]), "entries that are not finite"),
        (lambda: Given([1j]), "Given is [1j]"),
        (lambda: Given([[1], [1, 2]]), "Given is [[1], [1, 2]]"),
        (lambda: Given(W="x"), "Given.W is 'x'"),
        (lambda: Start(3), "Start.default is 3; allowed: an initialiser"),
        (lambda: Start(Zeros), "Start.default is <class 'ufm.initial.Zeros'>; allowed: an initialiser"),
        (lambda: draw(PROBLEM, Zeros, 0), "init is <class 'ufm.initial.Zeros'>; allowed: an initialiser"),
        (lambda: Start(W=[1.0]), "Start.W is [1.0]; allowed: an initialiser"),
        (lambda: simplex_etf(1), "simplex_etf.K is 1; allowed: a whole number >= 2."),
        (lambda: simplex_etf(3, "x"), "simplex_etf.norm is 'x'"),
        (lambda: draw(PROBLEM, 0.1, 0), "init is 0.1; allowed: an initialiser"),
        (lambda: draw(PROBLEM, Start(Zeros(), W=Given([1.0])), 0), "allowed: shape (3, 4)"),
        (lambda: draw(UFM(4, 2), SimplexETF(), 0), "width is 2; allowed: at least classes - 1 = 3"),
    ],
)
def test_bad_values_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("problem", "init", "sentence"),
    [
        (PROBLEM, Start(W=Zeros()), "init.H is missing"),
        (PROBLEM, Start(Zeros(), b=Zeros()), "init.b is Zeros(); allowed: trained blocks, H, W1."),
        (UFM(3, 4, features=SimplexETF()), Start(Zeros(), H=Zeros()), "init.H is Zeros()"),
        (PROBLEM, Start(Zeros(), W=Zeros(), W1=Zeros()), "block W1 has a start already"),
        (PROBLEM, LinearDefault(), "init.H is LinearDefault()"),
        (
            DEEP,
            Start(Zeros(), W1=SimplexETF()),
            "init.W1 is SimplexETF(norm='frobenius'); allowed: H and the last",
        ),
        (DEEP, Start(Zeros(), b=SimplexETF()), "init.b is SimplexETF"),
        (
            DEEP,
            Start(Zeros(), b=Spectral(1)),
            "init.b is Spectral(singular_values=1.0); allowed: weights and H.",
        ),
        (PROBLEM, Start(Zeros(), W=Given(W=np.ones((3, 4)))), "allowed: an initialiser of one block"),
    ],
)
def test_starts_that_do_not_fit_are_refused(problem, init, sentence):
    with pytest.raises(IncompatibleError) as caught:
        draw(problem, init, 0)
    assert sentence in str(caught.value)


def test_a_blocks_start_depends_on_seed_and_block_alone():
    one = draw(PROBLEM, Gaussian(0.1), 5)
    other = draw(PROBLEM, Start(Zeros(), W=Gaussian(0.1)), 5)
    assert np.array_equal(one["W1"], other["W1"])
    assert not np.array_equal(one["W1"], draw(PROBLEM, Gaussian(0.1), 6)["W1"])
    assert not np.array_equal(block_rng(5, 0, 0).random(3), block_rng(5, 1, 0).random(3))


def test_given_by_block_and_a_bias_that_starts_at_zero():
    problem = UFM(3, 4, bias=True)
    arrays = {"W": np.ones((3, 4)), "H": np.full((4, 3), 2.0)}
    found = draw(problem, Given(**arrays), 0)
    assert np.array_equal(found["W1"], arrays["W"])
    assert np.array_equal(found["H"], arrays["H"])
    assert np.array_equal(found["b"], np.zeros(3))


def test_gaussian_has_its_scale():
    values = draw(UFM(50, 400), Gaussian(0.1), 0)["W1"]
    # Standard errors of mean and deviation of n normal numbers: s/sqrt(n), s/sqrt(2 n); five of them.
    assert abs(values.mean()) < 5 * 0.1 / np.sqrt(values.size)
    assert abs(values.std() - 0.1) < 5 * 0.1 / np.sqrt(2 * values.size)


def test_linear_default_is_uniform_within_one_over_root_fan_in():
    values = draw(UFM(50, 400), Start(Zeros(), W=LinearDefault()), 0)["W1"]
    assert np.abs(values).max() <= 1 / np.sqrt(400)
    assert np.abs(values).max() > 0.999 / np.sqrt(400)


@given(K=st.integers(2, 40))
def test_simplex_etf_is_one(K):
    frame, columns = simplex_etf(K), simplex_etf(K, "columns")
    assert np.linalg.norm(frame) == pytest.approx(1.0, abs=K * EPS)
    gram = columns.T @ columns
    expected = np.full((K, K), -1 / (K - 1))
    np.fill_diagonal(expected, 1.0)
    assert np.abs(gram - expected).max() < 8 * K * EPS
    assert np.abs(frame.sum(axis=0)).max() < K * EPS


@pytest.mark.parametrize("width", [2, 3, 7])
@pytest.mark.parametrize("norm", ["frobenius", "columns"])
def test_features_and_classifier_at_a_simplex(width, norm):
    problem = UFM(3, width, per_class=(2, 1, 1), features=SimplexETF(norm))
    H = problem.frozen_values["H"]
    W = UFM(3, width, classifier=SimplexETF(norm)).frozen_values["W1"]
    gram = simplex_etf(3, norm).T @ simplex_etf(3, norm)
    assert np.abs(W @ W.T - gram).max() < 16 * EPS
    assert np.abs(H.T @ H - gram[np.ix_([0, 0, 1, 2], [0, 0, 1, 2])]).max() < 16 * EPS
    assert np.array_equal(H[:, 0], H[:, 1])


@pytest.mark.parametrize("K", [2, 4, 16])
def test_walsh_rows_are_characters_of_bitwise_addition(K):
    chi, g = walsh(K), np.arange(K)
    assert np.array_equal(chi @ chi, K * np.eye(K))
    for a in range(K):
        assert np.array_equal(chi[:, g ^ a], chi * chi[:, [a]])


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("per_class", [1, 2, (1, 2, 3, 1)])
def test_spectral_blocks_have_their_singular_values_and_their_logits_the_products(depth, per_class):
    s = (0.0, 0.5, 1.0, 2.0)
    problem = DUFM(4, 6, depth, per_class)
    blocks = draw(problem, Start(Spectral(s), H=Spectral(1.5)), 0)
    for name in problem.trained:
        found = np.linalg.svd(blocks[name], compute_uv=False)[:4]
        assert found == pytest.approx([1.5] * 4 if name == "H" else s[::-1], abs=1e-14)
    Z = blocks["H"]
    for layer in range(1, depth + 1):
        Z = blocks[f"W{layer}"] @ Z
    V, n = walsh(4) / 2, np.bincount(problem.labels)[problem.labels]
    expected = (V * 1.5 * np.array(s) ** depth @ V)[:, problem.labels] / np.sqrt(n)
    assert expected == pytest.approx(Z, abs=1e-13)
