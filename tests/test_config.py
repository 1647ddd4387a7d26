"""Description objects as tables and TOML: every class comes back equal; bad files get one sentence."""

import json
import os
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ufm
from ufm.config import describe, from_table, run_from_table, run_from_toml, run_to_toml, to_table
from ufm.errors import IncompatibleError, InvalidProblemError, StorageError, UfmError
from ufm.run import Run

rate = st.floats(0.0, 10.0, allow_subnormal=True)
fraction = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
below_one = st.floats(0.0, 1.0, exclude_max=True)
moment = fraction | st.integers(1, 10**6)
number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40).map(float)
schedules = (
    st.builds(ufm.StepDecay, rate, st.lists(moment, max_size=3), rate)
    | st.builds(ufm.Cosine, rate, rate, moment | st.just(0))
    | st.builds(ufm.Rates, st.lists(rate, min_size=1, max_size=4))
)
lr = rate | schedules
optimizers = (
    st.builds(ufm.GD, lr)
    | st.builds(ufm.Momentum, lr, below_one, st.booleans())
    | st.builds(ufm.SignGD, lr)
    | st.builds(ufm.Signum, lr, below_one)
    | st.builds(ufm.Adam, lr, below_one, below_one, rate)
    | st.builds(ufm.NormalisedGD, lr)
)
names = st.sampled_from(["H", "W", "W1", "W2", "b", "a.b", 'q"\\', "é", "\x7f\n"])
by_name = st.dictionaries(names, rate, min_size=1, max_size=3)
coupled = st.builds(ufm.Coupled, rate) | by_name.map(lambda rates: ufm.Coupled(**rates))
decoupled = st.builds(ufm.Decoupled, rate) | by_name.map(lambda rates: ufm.Decoupled(**rates))
shrink = st.sampled_from(["before", "after"])
decays = coupled | decoupled | st.builds(ufm.Mixed, coupled | rate, decoupled | rate, shrink)
records = (
    st.builds(ufm.Every, st.integers(1, 2**50))
    | st.builds(ufm.LogSpaced, st.integers(2, 500))
    | st.builds(ufm.At, st.lists(st.integers(0, 2**50), max_size=4))
)


def matrices(rows: int, columns: int, entry: st.SearchStrategy = number) -> st.SearchStrategy:
    row = st.lists(entry, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


initialisers = (
    st.just(ufm.Zeros())
    | st.builds(ufm.Gaussian, rate)
    | st.just(ufm.LinearDefault())
    | st.builds(ufm.SimplexETF, st.sampled_from(["frobenius", "columns"]))
    | matrices(2, 3).map(ufm.Given)
    | number.map(ufm.Given)
    | st.builds(ufm.Spectral, rate | st.lists(rate, min_size=1, max_size=4))
)
starts = (
    initialisers
    | st.dictionaries(names, matrices(1, 2), min_size=1, max_size=2).map(lambda blocks: ufm.Given(**blocks))
    | st.builds(
        lambda default, blocks: ufm.Start(default, **blocks),
        st.none() | initialisers,
        st.dictionaries(names, initialisers, max_size=3),
    )
)
losses = (
    st.sampled_from(["ce", "mse"])
    | st.builds(ufm.MSE, st.sampled_from(["mean", "sum"]))
    | st.builds(ufm.CrossEntropy, below_one, reduction=st.sampled_from(["mean", "sum"]))
    | matrices(3, 3, rate).map(lambda targets: ufm.CrossEntropy(targets=targets))
)
sizes = st.integers(1, 4) | st.tuples(*[st.integers(1, 4)] * 3)
problems = (
    st.builds(ufm.UFM, st.just(3), st.integers(1, 50), sizes, losses, st.booleans())
    | st.builds(ufm.UFM, st.just(3), st.integers(2, 5), features=st.builds(ufm.SimplexETF))
    | st.builds(ufm.UFM, st.just(3), st.just(2), classifier=matrices(3, 2).map(ufm.Given))
    | st.builds(ufm.UFM, st.just(3), st.just(2), frozen=matrices(3, 2).map(lambda W: {"W": ufm.Given(W)}))
    | st.builds(
        ufm.DUFM,
        st.just(3),
        st.integers(1, 5) | st.tuples(*[st.integers(1, 5)] * 2),
        st.just(2),
        sizes,
        st.sampled_from(["relu", "identity"]),
        losses,
        st.booleans(),
    )
    | matrices(2, 2).map(lambda W: ufm.DUFM(3, 2, 2, frozen={"W1": ufm.Given(W), "H": ufm.SimplexETF()}))
)


@st.composite
def runs(draw):
    """Runs that are allowed: decay by the names of trained blocks, batches no larger than the data."""
    problem = draw(problems)
    rates = st.dictionaries(st.sampled_from(problem.trained), rate, min_size=1)
    some_coupled = st.builds(ufm.Coupled, rate) | rates.map(lambda named: ufm.Coupled(**named))
    some_decoupled = st.builds(ufm.Decoupled, rate) | rates.map(lambda named: ufm.Decoupled(**named))
    decay = some_coupled | some_decoupled | st.builds(ufm.Mixed, some_coupled, some_decoupled, shrink)
    return Run(
        problem=problem,
        optimizer=draw(optimizers),
        decay=draw(st.none() | decay),
        init=draw(starts),
        steps=draw(st.integers(0, 10**9)),
        seed=draw(st.integers(0, 2**62)),
        record=draw(records),
        batch=draw(st.none() | st.integers(1, problem.samples)),
        dtype=draw(st.sampled_from(["float64", "float32"])),
    )


parts = [
    ("problem", problems),
    ("optimizer", optimizers),
    ("decay", decays),
    ("init", starts),
    ("record", records),
    ("lr", schedules),
    ("loss", losses.filter(lambda loss: not isinstance(loss, str))),
]


@pytest.mark.parametrize(("where", "objects"), parts, ids=[name for name, _ in parts])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_object_comes_back_equal(where, objects, data):
    obj = data.draw(objects)
    inline = to_table(obj)
    assert from_table(json.loads(json.dumps(inline)), where) == obj
    arrays = {}
    by_digest = to_table(obj, arrays)
    again = from_table(json.loads(json.dumps(by_digest)), where, arrays)
    assert again == obj
    assert repr(again) == repr(obj)


@given(run=runs())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_comes_back_equal_through_toml(run, tmp_path):
    path = tmp_path / "run.toml"
    text = run_to_toml(run)
    path.write_text(text, encoding="utf-8", newline="")
    assert run_from_toml(path) == run
    assert run_to_toml(run_from_toml(path)) == text
    assert tomllib.loads(text) == to_table(run)


def test_signed_zeros_and_the_smallest_numbers_survive():
    given = ufm.Given([[-0.0, 5e-324], [1.7976931348623157e308, 0.1]])
    text = run_to_toml(Run(ufm.UFM(2, 2), ufm.GD(0.1), init=ufm.Start(ufm.Zeros(), W=given), steps=1))
    assert run_from_table(tomllib.loads(text)).init.blocks[0][1] == given


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_an_empty_array_keeps_its_shape(shape):
    given = ufm.Given(np.zeros(shape))
    assert from_table(to_table(given), "init") == given


def test_hand_written_file_with_nested_lists(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
        steps = 10
        [problem]
        type = "UFM"
        classes = 2
        width = 2
        loss = "mse"
        features = [[1, 0], [0, 1]]
        [optimizer]
        type = "SignGD"
        lr = 1
        [decay]
        type = "Mixed"
        coupled = 1e-4
        decoupled = { type = "Decoupled", W = 5e-4 }
        """
    )
    run = run_from_toml(path)
    problem = ufm.UFM(2, 2, loss="mse", features=ufm.Given(np.eye(2)))
    decay = ufm.Mixed(1e-4, ufm.Decoupled(W=5e-4))
    assert run == Run(problem, ufm.SignGD(1.0), decay, ufm.Gaussian(0.1), 10)


GOOD = {
    "steps": 5,
    "problem": {"type": "UFM", "classes": 3, "width": 4},
    "optimizer": {"type": "Momentum", "lr": 0.1, "beta": 0.5},
}
BAD = [
    ({"steps": None}, "steps is missing"),
    ({"problem": None}, "problem is missing"),
    ({"optimizer": None}, "optimizer is missing"),
    ({"steps": -1}, "steps is -1"),
    ({"steps": "ten"}, "steps is 'ten'"),
    ({"steps": 1.5}, "steps is 1.5"),
    ({"seed": -1}, "seed is -1"),
    ({"batch": 0}, "batch is 0"),
    ({"dtype": "float16"}, "dtype is 'float16'"),
    ({"step": 5}, "step is 5; allowed: the keys steps"),
    ({"problem": 3}, "problem is 3; allowed: a table"),
    ({"problem": {"classes": 3}}, "problem.type is missing; allowed: 'UFM' or 'DUFM'"),
    ({"problem": {"type": "GD", "lr": 1}}, "problem.type is 'GD'; allowed: 'UFM' or 'DUFM'"),
    ({"problem": {"type": "os.system"}}, "problem.type is 'os.system'"),
    ({"problem": {"type": ["UFM"]}}, "problem.type is"),
    ({"problem": {"type": "UFM", "classes": 3}}, "problem.width is missing"),
    (
        {"problem": {"type": "UFM", "classes": 3, "widht": 4}},
        "problem.widht is 4; allowed: the fields of UFM",
    ),
    ({"problem": {"type": "UFM", "classes": True, "width": 4}}, "UFM.classes is True"),
    ({"problem": {"type": "UFM", "classes": 3, "width": {"a": 1}}}, "problem.width is"),
    ({"problem": {**GOOD["problem"], "loss": "hinge"}}, "UFM.loss is 'hinge'"),
    ({"problem": {**GOOD["problem"], "loss": {"type": "UserLoss"}}}, "problem.loss.type is 'UserLoss'"),
    ({"problem": {**GOOD["problem"], "loss": {"type": "MSE", "targets": 1}}}, "problem.loss.targets is 1"),
    ({"problem": {**GOOD["problem"], "features": [[1, 2], [3]]}}, "problem.features"),
    ({"problem": {**GOOD["problem"], "features": "x"}}, "problem.features is 'x'"),
    ({"problem": {**GOOD["problem"], "frozen": 1}}, "problem.frozen is 1"),
    ({"problem": {**GOOD["problem"], "features": {"type": "Given"}}}, "Given is None"),
    ({"problem": {**GOOD["problem"], "features": {"type": "Given", "values": {"array": "ab"}}}}, "digest"),
    ({"problem": {**GOOD["problem"], "features": {"type": "Given", "values": {"shape": [2]}}}}, "values is"),
    ({"optimizer": {**GOOD["optimizer"], "lr": {"type": "GD", "lr": 1}}}, "optimizer.lr.type is 'GD'"),
    ({"optimizer": {**GOOD["optimizer"], "lr": [0.1]}}, "Momentum.lr is [0.1]"),
    ({"optimizer": {**GOOD["optimizer"], "lr": "fast"}}, "Momentum.lr is 'fast'"),
    ({"optimizer": {**GOOD["optimizer"], "nesterov": 1}}, "Momentum.nesterov is 1"),
    ({"decay": {"type": "Coupled"}}, "Coupled is"),
    ({"decay": {"type": "Coupled", "rate": 0.1, "W": 0.1}}, "one rate, or rates by block name"),
    ({"decay": {"type": "Coupled", "W": -0.1}}, "Coupled.W is -0.1"),
    ({"decay": {"type": "Coupled", "self": 0.1}}, "Coupled.self is 0.1; allowed: trained blocks"),
    ({"decay": {"type": "Mixed", "coupled": {"type": "Decoupled", "rate": 1}}}, "decay.decoupled is missing"),
    (
        {"decay": {"type": "Mixed", "decoupled": 0.1, "coupled": {"type": "Decoupled", "rate": 1}}},
        "decay.coupled.type is 'Decoupled'; allowed: 'Coupled'",
    ),
    ({"init": {"type": "Start", "W": {"type": "Start"}}}, "init.W.type is 'Start'"),
    ({"init": {"type": "Given", "self": [0.1], "values": [0.1]}}, "not both"),
    ({"steps": 2**63}, "steps is 9223372036854775808; allowed: a whole number >= 0 and <= "),
    ({"problem": {**GOOD["problem"], "width": 2**62}}, "UFM: GiB of one copy"),
    ({"problem": {**GOOD["problem"], "per_class": 2**62}}, "UFM: GiB of one copy"),
    ({"init": {"type": "Gaussian", "scale": "0.1"}}, "Gaussian.scale is '0.1'"),
    ({"record": {"type": "At", "at": {}}}, "record.at is {}"),
    ({"record": {"type": "At", "at": "12"}}, "At.at is '1'"),
    ({"record": {"type": "Every", "n": 0}}, "Every.n is 0"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_a_bad_table_gets_one_sentence_that_names_the_field(change, sentence):
    table = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(UfmError) as caught:
        run_from_table(table)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_the_good_table_is_good():
    assert run_from_table(GOOD) == Run(ufm.UFM(3, 4), ufm.Momentum(0.1, 0.5), None, ufm.Gaussian(0.1), 5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"steps = ", "is not TOML"),
        (b"[problem]\n[problem]\n", "is not TOML"),
        (b"steps = 1\nsteps = 2\n", "is not TOML"),
        (b"steps = 5\xff", "not UTF-8"),
        (b"", "steps is missing"),
        (b"a = " + b"[" * 5000, "not TOML|nested too deeply"),
        (b".".join([b"a"] * 5000) + b" = 1", "is nested too deeply; allowed: a TOML file"),
        (b"steps = 2020-01-01\n[problem]\n[optimizer]\n", "problem.type is missing"),
    ],
)
def test_a_bad_file_gets_one_sentence_that_names_it(tmp_path, text, sentence):
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    with pytest.raises(InvalidProblemError, match=sentence) as caught:
        run_from_toml(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_storage_error(tmp_path, name):
    with pytest.raises(StorageError, match=r"does not exist|is a folder|cannot be read"):
        run_from_toml(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="is a pipe or device; allowed: a TOML file"):
        run_from_toml(tmp_path / "fifo")
    with pytest.raises(InvalidProblemError, match="path is None; allowed: the name of a file"):
        run_from_toml(None)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "run.toml"
    run = Run(ufm.UFM(3, 4), ufm.GD(0.1), steps=5)
    path.write_text(run_to_toml(run), encoding="utf-8-sig")
    assert run_from_toml(path) == run


def test_too_little_memory_is_a_sentence(monkeypatch):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr(ufm.UFM, "__post_init__", fail)
    with pytest.raises(
        InvalidProblemError, match="problem needs more memory than there is; allowed: a smaller UFM"
    ):
        run_from_table(GOOD)


def test_a_file_with_bytes_that_are_not_a_run_never_shows_a_traceback(tmp_path):
    path = tmp_path / "random.toml"
    rng = np.random.default_rng(0)
    for _ in range(50):
        path.write_bytes(rng.bytes(40))
        with pytest.raises(UfmError):
            run_from_toml(path)


def step(theta, g, m, v, lr, t, p):
    return theta - lr * g, m, v


class OwnRecord:
    def steps(self, total):
        return np.arange(total + 1)


class OwnStart:
    def draw(self, place, rng):
        return np.ones(place.shape)


RUN = Run(ufm.UFM(3, 4), ufm.GD(0.1), None, ufm.Gaussian(0.1), 5)


@pytest.mark.parametrize(
    ("part", "value"),
    [("optimizer", ufm.Elementwise(step, 0.1)), ("init", OwnStart()), ("record", OwnRecord())],
)
def test_what_holds_a_function_cannot_be_written_but_is_described(part, value):
    run = replace(RUN, **{part: value})
    with pytest.raises(IncompatibleError, match=f"{part} is .* which a file cannot hold"):
        run_to_toml(run)
    table, reason = describe(run)
    assert part in reason
    assert table[part]["rerun"] is False
    assert " at 0x" not in table[part]["repr"]
    json.dumps(table)
    with pytest.raises(IncompatibleError, match=f"the same object again as {part}="):
        run_from_table(table)
    assert getattr(run_from_table(table, given={part: value}), part) is value


def test_a_part_given_again_must_be_the_one_described():
    table, _ = describe(replace(RUN, optimizer=ufm.Elementwise(step, 0.1)))
    with pytest.raises(IncompatibleError, match="what the file was made with"):
        run_from_table(table, given={"optimizer": ufm.Elementwise(step, 0.2)})


def test_a_part_that_the_table_holds_is_not_silently_replaced():
    table = to_table(RUN)
    assert run_from_table(table, given={"optimizer": ufm.GD(0.1)}) == RUN
    with pytest.raises(IncompatibleError, match="the file holds GD"):
        run_from_table(table, given={"optimizer": ufm.GD(0.2)})


def test_a_subclass_of_a_known_class_is_not_written_as_the_known_class():
    class GD(ufm.GD):
        pass

    with pytest.raises(IncompatibleError, match="cannot hold"):
        to_table(GD(0.1))


def test_a_block_named_type_is_refused():
    with pytest.raises(IncompatibleError, match="'type'"):
        to_table(ufm.Coupled(**{"type": 0.1}))


def test_an_array_that_is_not_the_one_of_its_digest_is_refused():
    arrays = {}
    table = to_table(ufm.Given([1.0, 2.0]), arrays)
    (digest,) = arrays
    with pytest.raises(InvalidProblemError, match="the digest of the stored array"):
        from_table(table, "init", {digest: np.array([1.0, 3.0])})


def test_a_start_given_as_a_mapping_is_written_as_the_given_it_means():
    arrays = {"W": np.ones((3, 4)), "H": np.ones((4, 3))}
    assert run_from_table(to_table(replace(RUN, init=arrays))).init == ufm.Given(**arrays)
