"""What a proof is, how it is judged, and the collection of all of them.

A proof is one check applied to a statement and to at least one perturbed statement, its negative control. It
stands if the check accepts the statement and refuses every control. A check that accepts everything proves
nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NOT_ROOMS = frozenset({"__main__", "algebra", "compiled_rule", "proof"})
UNFINISHED = "conjecture"  # what a claim is while its proof does not stand


@dataclass(frozen=True)
class Proof:
    """One check of (a part of) a claim.

    Parameters
    ----------
    claim : str
        Name of the claim in `ufm.theory`.
    part : str
        What this check shows, in a few words.
    verdict : str
        What the claim is if the check stands: "proved", "proved for K = 2..n", "certified", "matches print",
        "measured".
    check : callable
        ``check(statement) -> bool``.
    statement : Any
        What is claimed, in the form the check reads.
    controls : mapping of str to Any
        Perturbed statements by what is wrong with them; the same check must return False for each.
    """

    claim: str
    part: str
    verdict: str
    check: Callable[[Any], bool]
    statement: Any
    controls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a proof.

    Parameters
    ----------
    claim, part : str
        As in the proof.
    verdict : str
        The proof's verdict if it stands, "refuted" if its check refuses the statement, "conjecture" if
        nothing was shown.
    seconds : float
        Time taken, controls included.
    as_expected : bool
        Whether the proof stands.
    reason : str
        Why it does not, or the number of controls refuted.
    """

    claim: str
    part: str
    verdict: str
    seconds: float
    as_expected: bool
    reason: str


def judge(proof: Proof) -> Outcome:
    """Run a proof and its controls.

    Parameters
    ----------
    proof : Proof
        What to check.

    Returns
    -------
    Outcome
    """
    start = time.perf_counter()
    verdict, reason = _verdict(proof)
    as_expected = verdict == proof.verdict
    return Outcome(proof.claim, proof.part, verdict, time.perf_counter() - start, as_expected, reason)


def _verdict(proof: Proof) -> tuple[str, str]:
    if not proof.controls:
        return UNFINISHED, "there is no negative control"
    held, trouble = _ask(proof, proof.statement)
    if trouble:
        return UNFINISHED, trouble
    if not held:
        return "refuted", "the check refuses the statement"
    for name, perturbed in proof.controls.items():
        held, trouble = _ask(proof, perturbed)
        if trouble:
            return UNFINISHED, f"control ({name}): {trouble}"
        if held:
            return UNFINISHED, f"the check accepts a false statement, its control: {name}"
    count = len(proof.controls)
    return proof.verdict, f"{count} control{'s' * (count > 1)} refuted"


def _ask(proof: Proof, statement: Any) -> tuple[bool, str]:
    """Answer of the check, or what went wrong; an exception is no refutation."""
    try:
        answer = proof.check(statement)
    except KeyboardInterrupt:  # that of a run is an ordinary exception, too
        raise
    except Exception as error:
        return False, f"the check broke: {type(error).__name__}: {error}"
    if answer is not True and answer is not False:
        return False, f"the check answered {answer!r} instead of True or False"
    return answer, ""


def rooms() -> tuple[str, ...]:
    """Names of the modules of this package that hold proofs."""
    import proofs_check

    names = (module.name for module in pkgutil.iter_modules(proofs_check.__path__))
    return tuple(sorted(name for name in names if name not in NOT_ROOMS))


def collect() -> tuple[Proof, ...]:
    """All proofs, room by room in the order of their ``PROOFS`` tuples."""
    return tuple(
        proof for room in rooms() for proof in importlib.import_module(f"proofs_check.{room}").PROOFS
    )
