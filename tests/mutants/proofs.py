"""The proofs of one room as tests; ``UFM_MUTANT_ROOM`` names it. Collected only where this file is asked for."""

from __future__ import annotations

import importlib
import os

import pytest

from proofs_check.proof import judge

ROOM = os.environ.get("UFM_MUTANT_ROOM")
PROOFS = importlib.import_module(f"proofs_check.{ROOM}").PROOFS if ROOM else ()


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: f"{proof.claim}: {proof.part}")
def test_proof_stands(proof):
    outcome = judge(proof)
    assert outcome.as_expected, outcome.reason
