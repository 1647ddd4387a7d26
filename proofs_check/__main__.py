"""``python -m proofs_check [claim ...] [--json] [--list]``: verdicts and seconds of all proofs.

Exit code 0 if every proof stands and every control is refuted, 1 if not, 2 for an unknown claim.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from proofs_check.proof import Outcome, Proof, collect, judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the proofs named on the command line, or all.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program name; that of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m proofs_check", description="Check the claims of ufm.theory."
    )
    parser.add_argument("claims", nargs="*", metavar="claim", help="names of claims; all by default")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--list", action="store_true", help="print the names and parts without running them")
    options = parser.parse_args(arguments)
    proofs = collect()
    known = list(dict.fromkeys(proof.claim for proof in proofs))
    for name in options.claims:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            print(
                f"There is no proof of a claim named {name!r}; --list shows the names.{hint}", file=sys.stderr
            )
            return 2
    chosen = [proof for proof in proofs if not options.claims or proof.claim in options.claims]
    if options.list:
        print(
            json.dumps([_entry(p) for p in chosen], indent=1)
            if options.json
            else "\n".join(map(_line, chosen))
        )
        return 0
    outcomes = _run(chosen, quiet=options.json)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return 0 if all(outcome.as_expected for outcome in outcomes) else 1


def _entry(proof: Proof) -> dict[str, str]:
    return {"claim": proof.claim, "part": proof.part}


def _line(proof: Proof) -> str:
    return f"{proof.claim:28s} {proof.part}"


def _run(proofs: Sequence[Proof], quiet: bool) -> list[Outcome]:
    """Judge the proofs, printing each row as it comes."""
    outcomes = []
    if not quiet:
        print(f"{'claim':28s} {'verdict':22s} {'seconds':>7s}  what is checked")
    for proof in proofs:
        outcome = judge(proof)
        outcomes.append(outcome)
        if not quiet:
            note = f"{outcome.part} ({outcome.reason})"
            mark = "" if outcome.as_expected else "NOT AS EXPECTED: "
            print(
                f"{outcome.claim:28s} {outcome.verdict:22s} {outcome.seconds:7.2f}  {mark}{note}", flush=True
            )
    if not quiet:
        failed = sum(not outcome.as_expected for outcome in outcomes)
        seconds = sum(outcome.seconds for outcome in outcomes)
        print(f"{len(outcomes) - failed} of {len(outcomes)} as expected, {seconds:.1f} s")
    return outcomes


def command() -> int:
    """Run `main`; Ctrl-C is one sentence."""
    try:
        return main()
    except KeyboardInterrupt:
        print("proofs_check: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(command())
