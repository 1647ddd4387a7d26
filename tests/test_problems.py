"""Problems as descriptions: shapes, frozen blocks, flat states, and objects that compare, hash and pickle."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufm.decay import Coupled, Decoupled, Mixed
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.initial import Gaussian, Given, LinearDefault, SimplexETF, Start, Zeros, simplex_etf
from ufm.losses import MSE, CrossEntropy, as_loss
from ufm.problems import DUFM, UFM, Blocks

W34 = np.arange(12.0).reshape(3, 4)
OBJECTS = [
    UFM(3, 4),
    UFM(3, 4, per_class=2),
    UFM(3, 4, per_class=(2, 1, 1)),
    UFM(3, 4, loss="mse"),
    UFM(3, 4, loss=CrossEntropy(smoothing=0.1)),
    UFM(3, 4, loss=CrossEntropy(targets=np.eye(3))),
    UFM(3, 4, loss=MSE(reduction="sum")),
    UFM(3, 4, bias=True),
    UFM(3, 4, features=SimplexETF()),
    UFM(3, 4, classifier=Given(W34)),
    UFM(3, 4, frozen={"W": Given(W34)}),
    DUFM(3, 4, 1),
    DUFM(3, 4, 2),
    DUFM(3, (4, 5), 2, activation="identity"),
    DUFM(3, 4, 3, frozen={"W2": Zeros(), "H": SimplexETF()}),
]


@pytest.mark.parametrize("problem", OBJECTS, ids=repr)
def test_objects_compare_hash_print_copy_and_pickle(problem):
    for again in (pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem)):
        assert again == problem
        assert hash(again) == hash(problem)
        assert again.shapes == problem.shapes
    assert eval(repr(problem)) == problem
    assert problem not in [other for other in OBJECTS if other is not problem]


@pytest.mark.parametrize(
    ("problem", "shapes", "trained"),
    [
        (UFM(3, 4, per_class=2), {"H": (4, 6), "W1": (3, 4)}, ("H", "W1")),
        (UFM(3, 4, (2, 1, 1), bias=True), {"H": (4, 4), "W1": (3, 4), "b": (3,)}, ("H", "W1", "b")),
        (UFM(3, 4, features=SimplexETF()), {"H": (4, 3), "W1": (3, 4)}, ("W1",)),
        (DUFM(3, 4, 2), {"H": (4, 3), "W1": (4, 4), "W2": (3, 4)}, ("H", "W1", "W2")),
        (DUFM(3, (4, 5), 2), {"H": (4, 3), "W1": (5, 4), "W2": (3, 5)}, ("H", "W1", "W2")),
        (DUFM(3, 4, 2, classifier=SimplexETF()), {"H": (4, 3), "W1": (4, 4), "W2": (3, 4)}, ("H", "W1")),
    ],
)
def test_shapes_and_trained_blocks(problem, shapes, trained):
    assert dict(problem.shapes) == shapes
    assert problem.trained == trained
    assert problem.size == sum(int(np.prod(shapes[block])) for block in trained)
    assert problem.last == f"W{problem.depth}"
    assert problem.order[: len(trained)] == trained


def test_samples_are_sorted_by_class():
    problem = UFM(3, 4, per_class=(2, 1, 3))
    assert problem.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert (problem.samples, problem.class_sizes) == (6, (2, 1, 3))
    with pytest.raises(ValueError, match="read-only"):
        problem.labels[0] = 1


def test_targets_by_class_or_by_sample():
    by_class, by_sample = np.eye(3)[::-1], np.arange(12.0).reshape(3, 4)
    problem = UFM(3, 4, (2, 1, 1), loss=CrossEntropy(targets=by_class))
    assert np.array_equal(problem.targets, by_class[:, [0, 0, 1, 2]])
    assert np.array_equal(UFM(3, 4, (2, 1, 1), loss=CrossEntropy(targets=by_sample)).targets, by_sample)
    assert UFM(3, 4).targets is None


@given(data=st.data(), depth=st.integers(1, 3), bias=st.booleans(), frozen=st.booleans())
def test_pack_and_unpack_are_inverse(data, depth, bias, frozen):
    widths = data.draw(st.tuples(*[st.integers(2, 5)] * depth))
    problem = DUFM(
        3, widths, depth, data.draw(st.integers(1, 3)), bias=bias, features=SimplexETF() if frozen else None
    )
    rng = np.random.default_rng(0)
    state = {block: rng.standard_normal(problem.shapes[block]) for block in problem.trained}
    theta = problem.pack(state)
    assert theta.shape == (sum(int(np.prod(shape)) for shape in problem.shapes.values()),)
    blocks = problem.unpack(theta)
    assert set(blocks) == set(problem.blocks)
    for block in problem.blocks:
        assert np.array_equal(blocks[block], state.get(block, problem.frozen_values.get(block)))
    assert set(problem.unpack(theta[: problem.size])) == set(problem.trained)
    stacked = problem.unpack(np.stack([theta, 2 * theta]))
    assert np.array_equal(stacked["W"][1], 2 * blocks["W"])
    assert np.shares_memory(blocks["W"], theta)


PROBLEM, FIXED = UFM(3, 4), UFM(3, 4, features=SimplexETF())
STATE = {"W": W34, "H": W34.T}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({**STATE, "b": np.zeros(3)}, "state is 'b'; allowed: blocks H, W1."),
        ({"W": W34}, "state.H is None; allowed: an array of shape (4, 3)."),
        ({**STATE, "H": W34}, "state.H is 'an array of shape (3, 4)'; allowed: shape (4, 3)."),
        ({**STATE, "H": W34.T * np.nan}, "state.H is 'an array with entries that are not finite'"),
        ({**STATE, "H": "x"}, "state.H is 'x'"),
    ],
)
def test_a_bad_state_gets_a_sentence(state, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        PROBLEM.pack(state)
    assert sentence in str(caught.value)


def test_a_frozen_block_may_be_named_only_at_its_value():
    assert np.array_equal(FIXED.pack(STATE | dict(FIXED.frozen_values)), FIXED.pack({"W": W34}))
    with pytest.raises(IncompatibleError, match=r"state\.H is another than the frozen one"):
        FIXED.pack(STATE)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: UFM(1, 4), "UFM.classes is 1; allowed: a whole number >= 2."),
        (lambda: UFM(3.0, 4), "UFM.classes is 3.0"),
        (lambda: UFM(True, 4), "UFM.classes is True"),
        (lambda: UFM(3, 0), "UFM.width is 0; allowed: a whole number >= 1."),
        (lambda: UFM(3, (4,)), "UFM.width is (4,)"),
        (lambda: UFM(3, 4, 0), "UFM.per_class is 0"),
        (lambda: UFM(3, 4, (1, 2)), "UFM.per_class is (1, 2); allowed: one size, or 3 sizes"),
        (lambda: UFM(3, 4, (1, 2, 0)), "UFM.per_class is 0"),
        (lambda: UFM(3, 4, "111"), "UFM.per_class is '111'"),
        (lambda: UFM(3, 4, bias=1), "UFM.bias is 1; allowed: True or False."),
        (lambda: UFM(3, 4, loss="hinge"), "UFM.loss is 'hinge'; allowed: 'ce', 'mse'"),
        (lambda: UFM(3, 4, loss=None), "UFM.loss is None"),
        (
            lambda: UFM(3, 4, loss=CrossEntropy(targets=np.eye(4))),
            "UFM.loss.targets is 'an array of shape (4, 4)'",
        ),
        (lambda: UFM(3, 4, features=np.eye(4)), "shape (4, 4)'; allowed: shape (4, 3)."),
        (
            lambda: UFM(3, 4, features="etf"),
            "UFM.features is 'etf'; allowed: an array, Given(array) or SimplexETF().",
        ),
        (
            lambda: UFM(3, 4, features=Gaussian(0.1)),
            "UFM.features is Gaussian(scale=0.1); allowed: a start without",
        ),
        (
            lambda: UFM(3, 4, classifier=LinearDefault()),
            "UFM.classifier is LinearDefault(); allowed: a start without",
        ),
        (lambda: UFM(3, 4, features=Start(Zeros())), "UFM.features is Start(Zeros())"),
        (lambda: UFM(3, 4, frozen={"W2": Zeros()}), "UFM.frozen['W2'] is 'W2'; allowed: blocks H, W1."),
        (lambda: DUFM(3, 4, 0), "DUFM.depth is 0; allowed: a whole number >= 1."),
        (lambda: DUFM(3, (4, 4), 3), "DUFM.width is (4, 4); allowed: one width, or 3 widths"),
        (lambda: DUFM(3, "44", 2), "DUFM.width is '44'"),
        (
            lambda: DUFM(3, 4, 2, activation="gelu"),
            "DUFM.activation is 'gelu'; allowed: 'relu' or 'identity'.",
        ),
    ],
)
def test_bad_values_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: UFM(3, 4, features=Zeros(), classifier=Zeros()), "every block is frozen"),
        (lambda: UFM(3, 4, classifier=Zeros(), frozen={"W": Zeros()}), "block W1 is frozen already"),
        (lambda: UFM(3, 4, frozen={"W1": Zeros(), "W": Zeros()}), "block W1 is frozen already"),
    ],
)
def test_blocks_cannot_be_frozen_twice_or_all(build, sentence):
    with pytest.raises(IncompatibleError) as caught:
        build()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: CrossEntropy(smoothing=1.0),
            "CrossEntropy.smoothing is 1.0; allowed: a finite number >= 0 and < 1.",
        ),
        (
            lambda: CrossEntropy(reduction="none"),
            "CrossEntropy.reduction is 'none'; allowed: 'mean' or 'sum'.",
        ),
        (lambda: CrossEntropy(targets=[1.0]), "CrossEntropy.targets is [1.0]; allowed: a matrix"),
        (lambda: CrossEntropy(targets=[[-1.0]]), "CrossEntropy.targets is [[-1.0]]"),
        (lambda: CrossEntropy(0.1, np.eye(3)), "CrossEntropy.smoothing is 0.1; allowed: 0 with soft targets"),
        (lambda: MSE("max"), "MSE.reduction is 'max'"),
        (lambda: as_loss("UFM.loss", 3), "UFM.loss is 3"),
    ],
)
def test_bad_losses_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("problem", "decay", "text"),
    [
        (UFM(3, 4, 2), None, "F = (1/6) sum_i CE(z_i, y_i),  Z = W1 H"),
        (
            UFM(3, 4, loss=CrossEntropy(0.1, reduction="sum"), bias=True),
            Coupled(0.5),
            "F = sum_i CE(z_i, 0.9 y_i + 0.1/3) + (0.5/2) ||H||_F^2 + (0.5/2) ||W1||_F^2 + (0.5/2) ||b||_2^2,"
            "  Z = W1 H + b 1^T",
        ),
        (
            DUFM(3, 4, 3),
            Mixed(Coupled(W=1), Decoupled(H=0.1)),
            "F = (1/2) (1/3) ||Z - Y||_F^2 + (1/2) ||W3||_F^2,  Z = W3 relu(W2 relu(W1 H));"
            "  decoupled: H <- (1 - 0.1 lr) H",
        ),
        (
            DUFM(3, 4, 2, activation="identity", loss=MSE("sum")),
            None,
            "F = (1/2) ||Z - Y||_F^2,  Z = W2 W1 H",
        ),
    ],
)
def test_the_formula_shows_every_factor(problem, decay, text):
    assert problem.formula(decay) == text


def test_blocks_know_w_as_the_last_layer():
    state = Blocks({"H": np.zeros((4, 3)), "W1": W34}, "W1")
    assert state["W"] is state["W1"]
    assert list(state) == ["H", "W1"]
    assert repr(state) == "Blocks(H: (4, 3), W1: (3, 4))"
    with pytest.raises(KeyError, match="W2; blocks are H, W1"):
        state["W2"]


def test_penalty_is_half_lambda_times_the_squared_norm():
    assert PROBLEM.penalty(STATE, Mixed(Coupled(W=0.5), 3.0)) == 0.25 * np.sum(W34**2)


def numeric_gradient(problem, state, decay, h=1e-5):
    """Central differences; error h^2 |f'''| + eps |f|/h."""
    theta = problem.pack(state)
    slopes = []
    for i in range(problem.size):
        shift = np.zeros_like(theta)
        shift[i] = h
        ends = [
            problem.value({b: problem.unpack(x)[b] for b in problem.trained}, decay)
            for x in (theta + shift, theta - shift)
        ]
        slopes.append((ends[0] - ends[1]) / (2 * h))
    return np.array(slopes)


@pytest.mark.parametrize(
    "problem",
    [OBJECTS[i] for i in (2, 3, 4, 5, 6, 7, 8, 12, 13)],
    ids=repr,
)
def test_the_gradient_is_the_slope_of_the_value(problem):
    rng = np.random.default_rng(3)
    state = {block: 0.5 * rng.standard_normal(problem.shapes[block]) for block in problem.trained}
    gradient = problem.gradient(state, Coupled(0.3))
    found = np.concatenate([gradient[block].ravel() for block in problem.trained])
    assert np.abs(found - numeric_gradient(problem, state, Coupled(0.3))).max() < 1e-8


def test_frozen_frame_is_the_one_asked_for():
    assert np.array_equal(UFM(3, 3, features=SimplexETF()).frozen_values["H"], simplex_etf(3))


@pytest.mark.parametrize(
    "fields", [{"classifier": W34}, {"frozen": {"W": W34}}, {"features": W34.T.tolist()}]
)
def test_frozen_arrays_are_held_by_content(fields):
    problem = UFM(3, 4, **fields)
    assert problem == UFM(3, 4, **fields)
    assert hash(problem) == hash(UFM(3, 4, **fields))
    assert eval(repr(problem)) == problem


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"frozen": 3}, "UFM.frozen is 3; allowed: initialisers by block name"),
        ({"features": Zeros}, "UFM.features is <class 'ufm.initial.Zeros'>"),
        ({"loss": CrossEntropy}, "UFM.loss is <class 'ufm.losses.CrossEntropy'>"),
    ],
)
def test_classes_and_numbers_in_place_of_objects_get_a_sentence(fields, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        UFM(3, 4, **fields)
    assert sentence in str(caught.value)


def test_labels_stay_read_only_through_pickle():
    problem = UFM(3, 4)
    assert problem.labels.tolist() == [0, 1, 2]
    assert not pickle.loads(pickle.dumps(problem)).labels.flags.writeable
