"""Files that nobody wrote: mutated TOML files and stored runs are refused with a sentence or read, no third way.

Mutations know the structure: keys, values, types and nesting of the tables, members, headers and bytes of the zip.
While a file is read, the process may have half a GiB more than it has: what a file declares is not allocated.
"""

import copy
import datetime
import io
import json
import struct
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentences import is_one_sentence

import ufm
from ufm import cli, storage
from ufm.config import run_from_toml, to_table
from ufm.errors import UfmError
from ufm.run import Run
from ufm.sweeps.planning import Plan
from ufm.sweeps.toml import plan_from_toml
from ufm.trajectory import Trajectory

resource = pytest.importorskip("resource", reason="limits of memory as on Unix")

ROOM = 2**29  # bytes
EXAMPLES = [100, pytest.param(2000, marks=pytest.mark.slow)]


def fuzz(examples, strategy, check):
    """Call `check` with that many examples of a strategy."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

    @settings(max_examples=examples, suppress_health_check=quiet)
    @given(strategy)
    def every(example):
        check(example)

    every()


@contextmanager
def little_memory():
    """Half a GiB beyond what is mapped already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def read(reader, path, expected):
    """What a reader makes of a file: an object, or one sentence."""
    sentence = None
    try:
        with little_memory():
            found = reader(path)
    except UfmError as refusal:
        sentence = str(refusal)
    if sentence is not None:
        assert is_one_sentence(sentence), sentence
        return None
    assert isinstance(found, expected)
    return found


# ------------------------------------------------------------------------------------------ mutations of tables

LEAVES = st.sampled_from(
    [
        *(None, True, False, "", "GD", "UFM", "DUFM", "mse", "none", "W", "H", "W1", "float32"),
        *(0, -1, 1, 2, 7, 1000, 10**12, 2**62, 2**63, 2**64, -(2**63), 10**40),
        *(0.0, -0.0, 1e-320, 0.5, 1.0, 3.7, -2.5, 1e308, float("inf"), float("-inf"), float("nan")),
        *("\x00", "\u2028", "\ud7ff", "\u00e9" * 9),
        *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.time(1)),
    ]
)
KEYS = st.sampled_from(
    [
        "type",
        "rate",
        "W",
        "W1",
        "H",
        "b",
        "lr",
        "beta",
        "steps",
        "seed",
        "values",
        "shape",
        "array",
        "targets",
        "loss",
        "features",
        "frozen",
        "default",
        "repr",
        "rerun",
        "self",
        "rate",
        "blocks",
        "name",
        "x.y",
        "range",
        "zipped",
        "coupled",
        "decoupled",
        "scale",
        "at",
    ]
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from([*(kind for kind in ufm.config._TYPES), "Elementwise", "object"])


def places(table, prefix=()):
    """Paths of all values of nested dicts and lists."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*prefix, key)
        yield from places(value, (*prefix, key))


def parent(table, path):
    for key in path[:-1]:
        table = table[key]
    return table


@st.composite
def mutated(draw, bases, most=4):
    """A table with some of its keys, values, types or nesting changed."""
    table = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(0, most))):
        paths = list(places(table))
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        inside, key = parent(table, path), path[-1]
        kind = draw(
            st.sampled_from(
                ["value", "value", "value", "delete", "rename", "swap", "type", "nest", "deep", "add"]
            )
        )
        if kind == "value":
            inside[key] = draw(JUNK)
        elif kind == "delete":
            del inside[key]
        elif kind == "rename" and isinstance(inside, dict):
            inside[draw(KEYS)] = inside.pop(key)
        elif kind == "swap":
            other = draw(st.sampled_from(paths))
            if other[: len(path)] != path and path[: len(other)] != other:
                there = parent(table, other)
                inside[key], there[other[-1]] = there[other[-1]], inside[key]
        elif kind == "type" and isinstance(inside, dict):
            inside["type"] = draw(TYPES)
        elif kind == "nest":
            inside[key] = draw(
                st.sampled_from([[inside[key]], {"type": inside[key]}, {"array": inside[key]}])
            )
        elif kind == "deep":
            for _ in range(draw(st.sampled_from([3, 50, 100]))):
                inside[key] = [inside[key]]
        elif isinstance(inside, dict):
            inside[draw(KEYS)] = draw(JUNK)
    return table


@st.composite
def damaged(draw, content, others=(b"",)):
    """Bytes with some flipped, cut, doubled or from another file."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "splice", "remove"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif kind == "splice":
            other = draw(st.sampled_from(others))
            begin = draw(st.integers(0, len(other)))
            data[at : at + draw(st.integers(0, 400))] = other[begin : begin + draw(st.integers(0, 400))]
        elif kind == "remove":
            del data[at : at + draw(st.integers(0, 40))]
    return bytes(data)


# ------------------------------------------------------------------------------------------ TOML


def toml(value):
    """Text of an inline value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, str) else '"null"' if value is None else repr(value)


def document(table):
    return "".join(f"{json.dumps(str(key))} = {toml(value)}\n" for key, value in table.items())


PROBLEMS = (
    ufm.UFM(3, 4, per_class=(2, 1, 1), loss=ufm.CrossEntropy(targets=np.eye(3)), features=ufm.SimplexETF()),
    ufm.DUFM(4, (5, 4), 2, bias=True, loss=ufm.MSE("sum"), frozen={"W1": np.ones((4, 5))}),
    ufm.UFM(2, 2, loss=ufm.CrossEntropy(smoothing=0.1)),
)
RUNS = (
    Run(
        PROBLEMS[0],
        ufm.Signum(ufm.StepDecay(0.1, at=(2, 0.5)), 0.9),
        ufm.Coupled(W=1e-3),
        ufm.Zeros(),
        20,
        batch=2,
    ),
    Run(
        PROBLEMS[1],
        ufm.Adam(ufm.Rates([0.1] * 9)),
        ufm.Mixed(0.1, 0.2),
        ufm.Start(W=ufm.LinearDefault(), H=ufm.Spectral(0.5)),
        9,
    ),
    Run(
        PROBLEMS[2],
        ufm.Momentum(ufm.Cosine(0.1, warmup=2), 0.5),
        None,
        ufm.Given(W=np.eye(2), H=np.eye(2)),
        5,
        record=ufm.At([1, 3]),
        dtype="float32",
    ),
)
TABLES = [to_table(run) for run in RUNS]
SWEEPS = [
    *TABLES,
    {
        "steps": 5,
        "optimizer": ["GD", "SignGD"],
        "lr": [0.1, 0.2],
        "seed": {"range": [0, 3]},
        "claims": True,
        "metrics": ["nc0", "loss"],
        "problem": TABLES[2]["problem"],
        "total_decay": [0.1],
        "coupled_share": [0.0, 1.0],
    },
    {
        "steps": 5,
        "optimizer": "Momentum",
        "zipped": {"pair": {"lr": [0.1, 0.2], "beta": [0.5, 0.9]}},
        "problem": TABLES[1]["problem"],
        "decay": ["none", {"type": "Coupled", "rate": 0.1}],
    },
]


@st.composite
def toml_files(draw, bases):
    content = document(draw(mutated(bases))).encode()
    others = [document(base).encode() for base in bases]
    return draw(damaged(content, others)) if draw(st.integers(0, 3)) == 0 else content


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(
    ("reader", "expected", "bases"), [(run_from_toml, Run, TABLES), (plan_from_toml, Plan, SWEEPS)]
)
def test_a_mutated_toml_file_is_read_or_refused(tmp_path, examples, reader, expected, bases):
    path, outcomes = tmp_path / "run.toml", {"read": 0, "refused": 0}

    def check(content):
        path.write_bytes(content)
        found = read(reader, path, expected)
        outcomes["refused" if found is None else "read"] += 1
        if isinstance(found, Run):
            assert run_from_toml(path) == found

    fuzz(examples, toml_files(bases), check)
    print(examples, "examples:", outcomes)
    assert min(outcomes.values()) > examples // 50, outcomes  # both ways are taken


# ------------------------------------------------------------------------------------------ stored runs


def stored(run, records, unit):
    """Content of the file of a run with random numbers in it."""
    rng, problem = np.random.default_rng(records), run.problem
    draw = lambda *shape: rng.standard_normal(shape).astype(run.dtype)  # noqa: E731
    size, total = problem.size, sum(int(np.prod(shape)) for shape in problem.shapes.values())
    trajectory = Trajectory(
        run,
        np.arange(records),
        draw(records, size),
        rng.random(records),
        rng.random(records),
        ufm.trajectory.Status("interrupted", records, "Ctrl-C was pressed"),
        {"seconds": 0.5, "undecided_signs": 3},
        {"software": {"numpy": "2"}, "run": {}},
        ufm.trajectory.End(records, draw(total), draw(size), draw(size), rng.random(size if unit else 0)),
    )
    body, arrays = storage._packed(trajectory)
    return body, arrays


def description(shape, descr="<f8", order="False"):
    """An .npy member that declares more than it holds."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class Evil:
    def __reduce__(self):
        return Path.mkdir, (Path("created-by-pickle"),)


def npy(array, pickled=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=pickled)
    return stream.getvalue()


MEMBERS = st.sampled_from(
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros(0)),
        npy(np.array(3.0)),
        npy(np.zeros((3, 4), order="F")),
        npy(np.arange(3)),
        npy(np.arange(5), False)[:-3],
        npy(np.array([np.nan, np.inf])),
        npy(np.array(["x"])),
        npy(np.zeros(2, ">f4")),
        npy(np.zeros(2, bool)),
        npy(np.zeros(1, [("a", "f8")])),
        npy(np.zeros(1, "M8[s]")),
        npy(np.array([Evil()], dtype=object), True),
        description("(1000000000000,)"),
        description("(9223372036854775807, 2)"),
        description("(0, 1000000000000)"),
        description("(-1,)"),
        description("(True,)"),
        description("(10L,)"),
        description("(1, )" * 5),
        description("()", "|O"),
        description("()", "<f3"),
        description("()", "<U4000000"),
        description("()", "<f8", "__import__('os').mkdir('created-by-eval')"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00" + b"a" * 50,
    ]
)
FILES = [
    stored(run, records, unit)
    for run, records, unit in zip(RUNS, (3, 4, 5), (True, False, False), strict=True)
]


def packed(members, compression=zipfile.ZIP_STORED, comment=b""):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        with zipfile.ZipFile(stream, "w", compression) as archive:
            archive.comment = comment
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def members_of(body, arrays, header=None):
    """Names and contents of the members, with a checksum that is right."""
    try:
        checksum = storage._checksum(body, arrays)
    except (RecursionError, TypeError, ValueError):
        checksum = ""
    head = {"format": storage.FORMAT, "schema": 1, "checksum": checksum, "body": body} | (header or {})
    try:
        text = json.dumps(head, default=str)
    except RecursionError:
        text = "[" * 5000
    return [
        ("header.npy", npy(np.array(text))),
        *((f"{name}.npy", npy(array)) for name, array in arrays.items()),
    ]


ORIGINALS = [packed(members_of(*file)) for file in FILES]


@st.composite
def stored_files(draw):
    """A file whose bytes, members, or body and arrays, with a checksum that is right again, were changed."""
    body, arrays = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["bytes", "members", "body", "body", "arrays", "header"]))
    if kind == "bytes":
        return draw(damaged(draw(st.sampled_from(ORIGINALS)), ORIGINALS))
    if kind == "body":
        body = json.loads(json.dumps(draw(mutated([body])), default=str, skipkeys=True))
    if kind == "arrays":
        name = draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        changes = [
            array[:-1],
            array * 0,
            array.astype("f4"),
            array.astype(">f8"),
            array[None],
            array.T,
            -array,
            np.asfortranarray(array),
            array.astype(bool),
            np.full_like(array, 2**53),
            array * np.nan,
        ]
        changed = draw(st.sampled_from(range(len(changes))))
        arrays = {**arrays, name: changes[changed]}
        if draw(st.booleans()):
            arrays[
                draw(st.sampled_from(["extra", "end.theta", "content.0", "header", "../x", "content."]))
            ] = array
    header = (
        draw(st.dictionaries(st.sampled_from(["format", "schema", "checksum", "body"]), JUNK, max_size=2))
        if kind == "header"
        else {}
    )
    members = members_of(body, arrays, header)
    if kind == "members":
        for _ in range(draw(st.integers(1, 2))):
            at = draw(st.integers(0, len(members) - 1))
            change = draw(st.sampled_from(["replace", "replace", "drop", "twice", "rename"]))
            if change == "replace":
                members[at] = (members[at][0], draw(MEMBERS))
            elif change == "twice":
                members.append(members[at])
            elif change == "rename":
                names = st.sampled_from(["header.npy", "steps", "", "a/b.npy", "\u00e9.npy", "x" * 300])
                members[at] = (draw(names), members[at][1])
            elif len(members) > 1:
                del members[at]
    compression = draw(st.sampled_from([zipfile.ZIP_STORED] * 5 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    return packed(members, compression, draw(st.sampled_from([b"", b"comment"])))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_mutated_stored_run_is_loaded_or_refused(tmp_path, monkeypatch, examples):
    monkeypatch.chdir(tmp_path)
    path, outcomes = tmp_path / "run.npz", {"read": 0, "refused": 0}

    def check(content):
        path.write_bytes(content)
        found = read(ufm.load, path, Trajectory)
        outcomes["refused" if found is None else "read"] += 1
        if found is not None:
            with np.errstate(all="ignore"):  # of numbers that no run has reached
                assert str(found.status) in str(found)
            assert len(found["W"]) == len(found)
            cli._changed_software(found.provenance, found.provenance)

    fuzz(examples, stored_files(), check)
    print(examples, "examples:", outcomes)
    assert min(outcomes.values()) > examples // 50, outcomes
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]  # nothing was unpickled or evaluated
