"""The tool that makes errors on purpose makes errors, only where it says, and hears what tests say of them."""

import ast
import random

import pytest

from tests.mutants.__main__ import difference, equivalent, main
from tests.mutants.judge import ROOT, THEORY, killers
from tests.mutants.mutations import mutants_in, mutants_of

MODULES = sorted(path.stem for path in (ROOT / THEORY).glob("*.py"))

SOURCE = b'''
"""Text 1."""
TABLE = (1, 2)

@cache
def kept(x: int = 2) -> "int + 1":
    """Text 2 + 3."""
    if x < -1 and not x == 7:
        raise invalid("x", x - 1, "less than 3 * 4")
    return f"{x + 1} is 5"


class Holder:
    def middle(self, a):
        a += 1.5
        return min(a[: len(a)], -a) // 2 if a is None else True
'''


def test_what_is_changed_and_what_is_left_alone():
    """Texts, annotations, decorators, `raise` and what stands outside functions stay."""
    changes = [mutant.key.partition(": ")[2] for mutant in mutants_in(SOURCE, "room")]
    assert changes == [
        "2 -> 3", "2 -> 1", "2 -> 4",
        "x < -1 and (not x == 7) -> x < -1 or not x == 7",
        "x < -1 and (not x == 7) -> x <= -1 and (not x == 7)",
        "x < -1 and (not x == 7) -> x >= -1 and (not x == 7)",
        "x < -1 -> x < 1",
        "-1 -> -2", "-1 -> -0", "-1 -> -0.5",
        "x < -1 and (not x == 7) -> x < -1 and x == 7",
        "not x == 7 -> not x != 7",
        "x == 7 -> x == 8", "x == 7 -> x == 6", "x == 7 -> x == 14", "x == 7 -> x == 3.5",
        "a += 1.5 -> a -= 1.5",
        "a += 1.5 -> a += 2.5", "a += 1.5 -> a += 0.5", "a += 1.5 -> a += 3.0", "a += 1.5 -> a += 0.75",
        "min(a[:len(a)], -a) // 2 if a is None else True -> min(a[:len(a)], -a) // 2 if a is not None else True",
        "min(a[:len(a)], -a) // 2 if a is None else True -> min(a[:len(a)], -a) * 2 if a is None else True",
        "min(a[:len(a)], -a) -> max(a[:len(a)], -a)",
        "a[:len(a)] -> a[:len(a) + 1]",
        "min(a[:len(a)], -a) -> min(a[:len(a)], a)",
        "min(a[:len(a)], -a) // 2 -> min(a[:len(a)], -a) // 3",
        "min(a[:len(a)], -a) // 2 -> min(a[:len(a)], -a) // 1",
        "min(a[:len(a)], -a) // 2 -> min(a[:len(a)], -a) // 4",
        "min(a[:len(a)], -a) // 2 if a is None else True -> min(a[:len(a)], -a) // 2 if a is None else False",
    ]  # fmt: skip


def test_a_function_with_a_cache_is_asked_of_every_test():
    assert {mutant.function for mutant in mutants_in(SOURCE, "room")} == {"", "room.Holder.middle"}


@pytest.mark.parametrize("module", MODULES)
def test_mutants_are_modules_that_differ_in_one_place_and_in_no_text(module):
    path = ROOT / THEORY / f"{module}.py"
    source, found = path.read_bytes(), mutants_of(path)
    assert len({mutant.key for mutant in found}) == len(found)
    tree = ast.parse(source)
    for mutant in random.Random(0).sample(found, min(5, len(found))):
        changed = ast.parse(mutant.applied(source))
        assert ast.dump(changed) != ast.dump(tree), mutant.key
        assert texts(changed) == texts(tree), mutant.key
        assert difference(mutant).count("\n-") <= 1 + source[mutant.start : mutant.end].count(b"\n") + 1


def texts(tree):
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_every_mutant_called_equivalent_exists_and_has_a_reason():
    found = {mutant.key for module in MODULES for mutant in mutants_of(ROOT / THEORY / f"{module}.py")}
    for key, reason in equivalent().items():
        assert key in found, f"{key} is no mutant any more"
        assert len(reason) > 15, f"{key} needs a reason"


def test_a_module_that_only_serves_is_judged_by_the_rooms_that_use_it():
    rooms, own = killers(ROOT / THEORY, "_double_double")
    assert {"row_sum", "deep_collapse"} < set(rooms)
    assert not any(room.startswith("_") for room in rooms)
    assert [path.rpartition("/")[2] for path in own] == ["test_double_double.py"]
    assert killers(ROOT / THEORY, "row_sum") == (["row_sum"], [])


def test_what_is_imported_before_a_mutant_imports_no_closed_form(python):
    code = """
import importlib, sys
from tests.mutants.judge import IMPORTED
for name in IMPORTED:
    importlib.import_module(name)
print([name for name in sys.modules if name.startswith("ufm.theory.")])
"""
    assert python(code) == "[]\n"


@pytest.mark.slow
def test_errors_of_a_room_are_noticed(capfd):
    assert main(["published_row_sum", "--count", "5", "--seed", "1"]) == 0
    output = capfd.readouterr().out
    assert output.count("killed") >= 5
    assert "5 of 5 noticed" in output
