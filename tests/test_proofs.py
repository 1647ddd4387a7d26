"""The proofs stand, their framework cannot be fooled, and no room is missing."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ufm.theory
from proofs_check import __main__ as command
from proofs_check import proof as framework
from proofs_check.proof import Proof, collect, judge, rooms
from ufm.claims import registry

PROOFS = collect()
VERDICTS = ("proved", "proved for K = ", "certified", "matches print", "measured")


@pytest.mark.slow  # the same as python -m proofs_check
@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: f"{proof.claim}: {proof.part}")
def test_proof_stands_and_every_control_is_refuted(proof: Proof) -> None:
    outcome = judge(proof)
    assert outcome.as_expected, outcome.reason
    assert outcome.verdict == proof.verdict
    assert proof.verdict.startswith(VERDICTS)
    assert outcome.reason.endswith("refuted")


def test_every_claim_has_a_proof_in_its_room_and_every_proof_a_claim() -> None:
    for name, claim in registry().items():
        module = importlib.import_module(f"proofs_check.{claim.room}")
        assert name in {proof.claim for proof in module.PROOFS}, f"{name} has no proof in its room"
    assert {proof.claim for proof in PROOFS} <= set(registry())


def test_rooms_are_complete() -> None:
    theory = {name for _, name, _ in pkgutil.iter_modules(ufm.theory.__path__) if not name.startswith("_")}
    assert theory == set(rooms()) == set(ufm.theory.__all__)
    here = Path(__file__).parent / "theory"
    for room in theory:
        assert (here / f"test_{room}.py").exists(), f"room {room} has no tests"
        claims = importlib.import_module(f"ufm.theory.{room}").CLAIMS
        assert claims
        assert {claim.room for claim in claims} == {room}


SOUND = Proof("some.claim", "a part", "proved", lambda n: n == 4, 4, {"off by one": 5})


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "proved", "1 control refuted"),
        ({"statement": 5}, "refuted", "refuses the statement"),
        ({"controls": {}}, "conjecture", "no negative control"),
        ({"check": lambda n: True}, "conjecture", "accepts a false statement, its control: off by one"),
        (
            {"check": lambda n: 1 / (n - 5) < 0},
            "conjecture",
            "control .off by one.: the check broke: ZeroDivision",
        ),
        ({"check": lambda n: 1 / (n - 4) > 0}, "conjecture", "the check broke"),
        ({"check": lambda n: n}, "conjecture", "instead of True or False"),
    ],
)
def test_framework_cannot_be_fooled(changes, verdict, reason) -> None:
    fields = {
        name: getattr(SOUND, name) for name in ("claim", "part", "verdict", "check", "statement", "controls")
    }
    outcome = judge(Proof(**{**fields, **changes}))
    assert outcome.verdict == verdict
    assert outcome.as_expected == (verdict == "proved")
    assert re.search(reason, outcome.reason)


def run_main(monkeypatch, proofs, arguments) -> int:
    monkeypatch.setattr(command, "collect", lambda: proofs)
    return command.main(arguments)


def test_exit_codes_and_table(monkeypatch, capsys) -> None:
    broken = Proof("other.claim", "a part", "proved", lambda n: True, 4, {"off by one": 5})
    assert run_main(monkeypatch, (SOUND,), []) == 0
    table = capsys.readouterr().out
    assert "some.claim" in table
    assert "1 of 1 as expected" in table
    assert run_main(monkeypatch, (SOUND, broken), []) == 1
    assert "NOT AS EXPECTED" in capsys.readouterr().out
    assert run_main(monkeypatch, (SOUND, broken), ["some.claim"]) == 0
    assert "other.claim" not in capsys.readouterr().out
    assert run_main(monkeypatch, (SOUND,), ["some.clam"]) == 2
    captured = capsys.readouterr()
    assert "no proof of a claim named 'some.clam'" in captured.err
    assert "Did you mean some.claim?" in captured.err
    assert captured.out == ""


def test_json_and_list(monkeypatch, capsys) -> None:
    assert run_main(monkeypatch, (SOUND,), ["--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["claim"] == "some.claim"
    assert row["verdict"] == "proved"
    assert row["as_expected"] is True
    assert row["seconds"] >= 0
    assert run_main(monkeypatch, (SOUND,), ["--list"]) == 0
    assert capsys.readouterr().out.split() == ["some.claim", "a", "part"]


def test_a_broken_formula_makes_the_runner_fail(monkeypatch, capsys) -> None:
    """The proofs read the shipped formulas: a wrong one in ufm.theory is found."""
    from proofs_check import row_sum as room
    from ufm.theory import row_sum

    original = row_sum.recursion_entries

    def slightly_wrong(lr, beta, coupled, decoupled, nesterov):
        return original(lr, beta, coupled * room.WRONG, decoupled, nesterov)

    monkeypatch.setattr(row_sum, "recursion_entries", slightly_wrong)
    assert command.main(["ufm.row_sum_law"]) == 1
    assert "refuted" in capsys.readouterr().out


def test_as_a_program_outside_the_checkout(tmp_path) -> None:
    """`python -m proofs_check` from another directory, package data included."""
    root = Path(framework.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", "proofs_check", "zhao2026.table2", "--json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)[0]["verdict"] == "matches print"
