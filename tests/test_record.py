"""Recorded steps: both ends always, increasing, nothing beyond the run."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufm.errors import InvalidProblemError
from ufm.record import At, Every, LogSpaced

OBJECTS = [Every(), Every(20), LogSpaced(), LogSpaced(5), At([]), At((3, 1))]
records = (
    st.builds(Every, st.integers(1, 200))
    | st.builds(LogSpaced, st.integers(2, 200))
    | st.builds(At, st.lists(st.integers(0, 50), max_size=5))
)


@pytest.mark.parametrize("record", OBJECTS, ids=repr)
def test_objects_compare_hash_print_and_pickle(record):
    again = pickle.loads(pickle.dumps(record))
    assert again == record
    assert hash(again) == hash(record)
    assert eval(repr(record)) == record
    assert record not in [other for other in OBJECTS if other is not record]


def test_at_is_sorted_without_repeats():
    assert At([5, 1, 5]) == At((1, 5))
    assert At(np.array([2, 1])).at == (1, 2)


@given(record=records, total=st.integers(50, 10**5))
def test_both_ends_are_kept_and_steps_increase(record, total):
    steps = record.steps(total)
    assert steps.dtype == np.int64
    assert steps[0] == 0
    assert steps[-1] == total
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize("record", [Every(3), LogSpaced(10), At([])], ids=repr)
def test_a_run_of_no_step_has_one_record(record):
    assert record.steps(0).tolist() == [0]


@given(n=st.integers(1, 100), total=st.integers(0, 1000))
def test_every_keeps_the_multiples(n, total):
    assert set(Every(n).steps(total)) == {t for t in range(total + 1) if t % n == 0} | {total}


@given(count=st.integers(2, 400), total=st.integers(0, 10**9))
def test_log_spaced_keeps_at_most_its_count_and_grows_in_ratio(count, total):
    steps = LogSpaced(count).steps(total)
    assert len(steps) <= count + 2
    if count >= 3 and total > 0:
        ratio = (total + 1) ** (1 / (count - 1))
        # Rounding to whole steps moves each by at most one half.
        assert (steps[1:] + 0.5 <= (steps[:-1] + 1.5) * ratio + 1.0 + 1e-9 * total).all()


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Every(0), "Every.n is 0; allowed: a whole number >= 1."),
        (lambda: Every(1.5), "Every.n is 1.5"),
        (lambda: Every(True), "Every.n is True"),
        (lambda: LogSpaced(1), "LogSpaced.count is 1; allowed: a whole number >= 2."),
        (lambda: LogSpaced("9"), "LogSpaced.count is '9'"),
        (lambda: At(3), "At.at is 3; allowed: a sequence of steps >= 0."),
        (lambda: At([-1]), "At.at is -1"),
        (lambda: At([0.5]), "At.at is 0.5"),
        (lambda: At([7]).steps(5), "At.at is 7; allowed: steps up to the end of the run, 5."),
    ],
)
def test_bad_values_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)
