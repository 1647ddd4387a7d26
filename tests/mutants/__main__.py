"""``python -m tests.mutants [module ...] [--count 200] [--seed 0] [--jobs 1]``: do proofs and tests notice errors?

Draws mutants of the functions in ``ufm/theory``, runs for each the doctests of its module, the tests and the proofs
of its room until one fails, and prints a line for each mutant, a diff for each survivor, and a summary.
Exit code 0 if at least 95 % are noticed, else 1. Mutants that change nothing observable are listed with the reason in
``equivalent.toml`` and are not drawn.
"""

from __future__ import annotations

import argparse
import difflib
import multiprocessing
import random
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.judge import ROOT, THEORY, Judge, Verdict
from tests.mutants.mutations import Mutant, mutants_of

ENOUGH = 0.95


def equivalent() -> dict[str, str]:
    """Reason by key of the mutants that are no errors."""
    return tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text(encoding="utf-8"))


def drawn(modules: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Mutants chosen at random, all alike likely."""
    known = equivalent()
    found = [m for name in modules for m in mutants_of(ROOT / THEORY / f"{name}.py") if m.key not in known]
    return random.Random(seed).sample(found, min(count, len(found)))


def difference(mutant: Mutant) -> str:
    """Unified diff of a mutant."""
    name = f"{THEORY}/{mutant.module}.py"
    source = (ROOT / name).read_bytes()
    old, new = (text.decode().splitlines(keepends=True) for text in (source, mutant.applied(source)))
    return "".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", n=2))


def _work(mutants: Sequence[Mutant], pipe) -> None:
    try:
        judge = Judge()
        for mutant in mutants:
            pipe.put(judge.verdict(mutant))
        pipe.put(None)
    except Exception as error:
        pipe.put(error)


def verdicts(mutants: Sequence[Mutant], jobs: int) -> Iterator[Verdict]:
    """Verdicts as they come, from one process, each with its own copy of the tree, for every job."""
    context = multiprocessing.get_context("fork")
    pipe = context.SimpleQueue()
    workers = [context.Process(target=_work, args=(mutants[i::jobs], pipe), daemon=True) for i in range(jobs)]
    for worker in workers:
        worker.start()
    running = jobs
    while running:
        verdict = pipe.get()
        if isinstance(verdict, Exception):
            raise verdict
        if verdict is None:
            running -= 1
        else:
            yield verdict
    for worker in workers:
        worker.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge mutants and report."""
    modules = sorted(path.stem for path in (ROOT / THEORY).glob("*.py") if path.stem != "__init__")
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument(
        "modules", nargs="*", metavar="module", help=f"of {', '.join(modules)}; all by default"
    )
    parser.add_argument("--count", type=int, default=200, help="mutants drawn (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument(
        "--list", action="store_true", help="print the keys of the mutants that would be drawn"
    )
    options = parser.parse_args(arguments)
    for name in options.modules:
        if name not in modules:
            parser.error(f"there is no module {name}; modules are {', '.join(modules)}")
    chosen = drawn(options.modules or modules, options.count, options.seed)
    if options.list:
        print("\n".join(mutant.key for mutant in chosen))
        return 0
    counts: Counter[str] = Counter()
    survivors = []
    for verdict in verdicts(chosen, options.jobs):
        counts[verdict.name] += 1
        print(f"{verdict.name:8s} {verdict.seconds:6.1f} s  {verdict.mutant.key}  ({verdict.by})", flush=True)
        if verdict.name == "survived":
            survivors.append(verdict.mutant)
            print(difference(verdict.mutant), flush=True)
    noticed = counts["killed"] + counts["timeout"]
    share = noticed / max(1, counts.total())
    print(
        f"{noticed} of {counts.total()} noticed ({share:.1%}): "
        + ", ".join(f"{n} {k}" for k, n in counts.items())
    )
    for mutant in survivors:
        print(f"survived: {mutant.key}")
    return 0 if share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
