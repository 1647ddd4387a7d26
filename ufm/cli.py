"""The command ``ufm``. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ufm.errors import DivergedError, IncompatibleError, InvalidProblemError, StorageError, UfmError

if TYPE_CHECKING:
    from ufm.claims import Claim
    from ufm.trajectory import Trajectory

_OK, _DIFFERENT, _REFUSED, _INTERRUPTED, _PIPE = 0, 1, 2, 130, 141
_PICTURES = (".png", ".svg", ".pdf")


class _Parser(argparse.ArgumentParser):
    """Answers arguments that do not parse with one sentence, too."""

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split())
        self.exit(_REFUSED, f"{self.prog}: {text}; allowed: what '{self.prog} --help' shows.\n")


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ufm.environment import version

        print(f"ufm {version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        allow_abbrev=False,
        prog="ufm",
        description="Training dynamics of unconstrained features models, judged against the theory.",
        epilog="Exit codes: 0 fine; 1 a comparison failed or a run diverged; 2 refused, with one sentence; "
        "130 interrupted. 'ufm COMMAND --help' shows an example of each command; example: ufm demo --quick",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str, example: str) -> Any:
        found = commands.add_parser(
            name, help=text, description=text, epilog=f"example: {example}", allow_abbrev=False
        )
        found.set_defaults(run=run)
        return found

    demo = command(
        "demo",
        _demo,
        "Simulate a few runs, compare them with theory, draw figures.",
        "ufm demo --out ufm-demo",
    )
    demo.add_argument("--out", type=Path, default=Path("ufm-demo"), help="folder for figures (%(default)s)")
    demo.add_argument("--quick", action="store_true", help="smaller runs")

    run = command(
        "run",
        _run,
        "Simulate the run that a TOML file describes, compare it with theory, save it.",
        "ufm run signum.toml --out signum.npz",
    )
    run.add_argument("file", type=Path, help="TOML file")
    run.add_argument("--out", type=Path, help="file to save to (by default FILE with the ending .npz)")
    run.add_argument("--overwrite", action="store_true", help="replace an existing file")

    sweep = command(
        "sweep",
        _sweep,
        "Simulate the runs that a TOML file describes, a list being an axis; a sweep that was stopped continues. "
        'Axes stand above the tables: lr = [0.1, 0.2] beside optimizer = "GD", rate = [1e-3, 1e-2] beside '
        'decay = "Coupled", and seed = { range = [0, 5] }.',
        "ufm sweep grid.toml --out grid --dry-run",
    )
    sweep.add_argument("file", type=Path, help="TOML file")
    sweep.add_argument("--out", type=Path, help="folder for the results (by default FILE without its ending)")
    workers = sweep.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=int, help="threads (by default one per core)")
    workers.add_argument("--dask", metavar="ADDRESS", help="scheduler of a Dask cluster instead of threads")
    sweep.add_argument("--resume", action="store_true", help="continue in a folder that exists")
    sweep.add_argument("--dry-run", action="store_true", help="only say what it would take")

    compare = command(
        "compare",
        _compare,
        "Judge a saved run by every claim that applies; exit code 1 if one fails.",
        "ufm compare signum.npz --figure signum.png",
    )
    compare.add_argument("file", type=Path, help="saved run")
    compare.add_argument("--json", action="store_true", help="print the rows as JSON")
    compare.add_argument(
        "--figure", type=Path, help="picture of the run to draw, .png, .svg or .pdf; replaced"
    )

    claims = command(
        "claims",
        _claims,
        "List the claims, those about a word, or show one of them in full.",
        "ufm claims zhao2026.thm3.2",
    )
    claims.add_argument("name", nargs="?", help="name of one claim, or a word such as regression")

    command("environment", _environment, "Show versions, processor, BLAS and threads.", "ufm environment")

    rerun = command(
        "rerun",
        _rerun,
        "Simulate a saved run again and compare every number bit for bit; exit code 1 if one differs.",
        "ufm rerun signum.npz",
    )
    rerun.add_argument("file", type=Path, help="saved run")
    rerun.add_argument("--out", type=Path, help="file to save the new run to")
    rerun.add_argument("--overwrite", action="store_true", help="replace an existing file")

    resume = command(
        "resume",
        _resume,
        "Continue a saved run where it ended.",
        "ufm resume signum.npz --steps 20000 --out longer.npz",
    )
    resume.add_argument("file", type=Path, help="saved run")
    resume.add_argument(
        "--steps", type=int, help="total steps, those taken included (by default as first asked)"
    )
    resume.add_argument("--out", type=Path, help="file to save to (by default the same file)")
    resume.add_argument(
        "--overwrite", action="store_true", help="replace an existing file other than the same"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        Exit code: 0 fine; 1 a comparison failed or a run diverged; 2 refused; 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A locale without a letter of the text shows it escaped.
            stream.reconfigure(errors="backslashreplace")
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        if not hasattr(options, "run"):
            parser.print_help()
            code = _OK
        else:
            code = options.run(options)
        # What is still buffered may meet a closed pipe, too.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return _PIPE
    except DivergedError as error:
        print(f"ufm: {' '.join(str(error).split())}", file=sys.stderr)
        return _DIFFERENT
    except KeyboardInterrupt:
        # InterruptedRunError is one
        print("ufm: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except UfmError as error:
        return _refuse(str(error))
    except MemoryError:
        return _refuse("not enough memory; next: record fewer steps, or take a smaller problem.")
    except OSError as error:
        return _refuse(f"{error.filename or 'a file'}: {error.strerror or error}.")


def _refuse(sentence: str) -> int:
    print(f"ufm: {' '.join(sentence.split())}", file=sys.stderr)
    return _REFUSED


def _silence_stdout() -> None:
    """Keep the interpreter from writing to the closed pipe when it exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _progress() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse a file that could not be written before a long run, not after it."""
    from ufm.storage import target_of

    target = target_of(out)
    if target.exists() and not overwrite:
        raise StorageError(f"{out} exists; allowed: another file with --out, or --overwrite to replace it.")
    folder = target.parent
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{out} cannot be written: no permission to write to {folder}.")


def _check_overwrite(options: argparse.Namespace) -> None:
    if options.overwrite and options.out is None:
        raise IncompatibleError("--overwrite would be ignored without --out; allowed: both, or neither.")


def _simulate(run: Any) -> Trajectory:
    from ufm.simulate import integrate

    return integrate(run, throw=False, progress=_progress())


def _finish(trajectory: Trajectory, out: Path) -> int:
    """Save, print and judge a run that has just ended; its exit code."""
    from ufm.storage import save

    # Saved first: nothing that fails later can lose the run.
    save(trajectory, out)
    print(trajectory)
    print(f"saved to {out}")
    if trajectory.status.name == "interrupted":
        step = trajectory.status.step
        print(f"ufm: interrupted at step {step}; 'ufm resume {out}' continues.", file=sys.stderr)
        return _INTERRUPTED
    from ufm.compare import compare

    print()
    print(compare(trajectory))
    return _DIFFERENT if trajectory.status.name == "diverged" else _OK


def _demo(options: argparse.Namespace) -> int:
    from ufm.demo import main as demo

    return demo(out=options.out, quick=options.quick, progress=_progress())


def _run(options: argparse.Namespace) -> int:
    from ufm.config import run_from_toml

    run = run_from_toml(options.file)
    out = options.out or options.file.with_suffix(".npz")
    _check_out(out, options.overwrite)
    if out.exists() and out.samefile(options.file):
        raise StorageError(f"{out} is the file that describes the run; allowed: another file with --out.")
    return _finish(_simulate(run), out)


def _sweep(options: argparse.Namespace) -> int:
    from ufm.sweeps.toml import plan_from_toml

    if options.dry_run and options.dask is not None:
        raise IncompatibleError("--dask would be ignored by --dry-run; allowed: one of them.")
    planned = plan_from_toml(options.file)
    out = options.out or options.file.with_suffix("")
    if options.dry_run:
        print(planned.estimate(workers=options.workers, out=out if out.is_dir() else None))
        return _OK
    if out.is_dir() and any(out.iterdir()) and not options.resume:
        raise StorageError(
            f"{out} is not empty; allowed: another folder with --out, or --resume to continue there."
        )
    try:
        with _executor(options.dask) as executor:
            data = planned.run(executor=executor, workers=options.workers, out=out, progress=_progress())
    except KeyboardInterrupt:
        again = f"'ufm sweep {options.file} --out {out} --resume' continues."
        print(f"ufm: interrupted; {again}", file=sys.stderr)
        return _INTERRUPTED
    print(_summary(data))
    if planned.fits_in_memory:
        from ufm.storage import write_atomically

        write_atomically(out / "sweep.nc", bytes(data.to_netcdf(engine="scipy")))
        print(f"saved to {out / 'sweep.nc'}")
    else:
        print(f"saved in {out}; ufm.sweep with the same arguments and out={str(out)!r} reads it")
    return _OK


@contextmanager
def _executor(address: str | None) -> Iterator[Any]:
    """Executor of the Dask cluster at an address; None without one."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise IncompatibleError(
            "--dask needs the package 'distributed'; next: pip install 'ufm[cluster]'."
        ) from None
    try:
        client = Client(address)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"there is no Dask scheduler at {address} ({type(error).__name__}); allowed: the address of one."
        ) from None
    with client:
        yield client.get_executor(pure=False)


def _summary(data: Any) -> str:
    """Sizes of the axes, how the runs ended, and verdicts by claim."""
    import numpy as np

    sizes = " x ".join(f"{size} {name}" for name, size in data.sizes.items())
    names, counts = np.unique(data["status"].values, return_counts=True)
    lines = [sizes, ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))]
    for claim in data.get("claim", ()):
        verdicts, counts = np.unique(data["verdict"].sel(claim=claim).values, return_counts=True)
        found = ", ".join(f"{verdict} {count}" for verdict, count in zip(verdicts, counts, strict=True))
        lines.append(f"{claim.item()}: {found}")
    return "\n".join(lines)


def _compare(options: argparse.Namespace) -> int:
    from ufm.compare import compare
    from ufm.storage import load

    if options.figure is not None and options.figure.suffix not in _PICTURES:
        raise StorageError(
            f"--figure is {options.figure}; allowed: a name that ends in {', '.join(_PICTURES)}."
        )
    trajectory = load(options.file)
    report = compare(trajectory)
    if options.figure is not None:
        from ufm.overview import overview
        from ufm.storage import write_picture

        write_picture(options.figure, overview(trajectory, report))
    if options.json:
        import json

        fields = ("name", "verdict", "error", "bound", "ratio", "control", "reason")
        rows = [{field: _json_value(getattr(row, field, None)) for field in fields} for row in report.rows]
        answer = {"file": str(options.file), "ok": bool(report.ok), "claims": rows}
        if report.ending is not None:
            columns = ("name", "loss", "difference", "distance", "rank")
            solutions = [
                {field: _json_value(getattr(row, field)) for field in columns} for row in report.ending
            ]
            numbers = {
                field: _json_value(getattr(report.ending, field)) for field in ("verdict", "gap", "bound")
            }
            answer["ending"] = {"name": report.ending.name, **numbers, "solutions": solutions}
        print(json.dumps(answer, indent=2))
    else:
        print(report)
    return _OK if report.ok else _DIFFERENT


def _json_value(value: Any) -> Any:
    """A value that every JSON reader takes: numbers that are not finite become null."""
    import math

    if value is None or isinstance(value, bool | int | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


def _claims(options: argparse.Namespace) -> int:
    from ufm.claims import matching, registry, table

    found = registry()
    if options.name in found:
        print(_claim_text(found[options.name]))
        return _OK
    about = found if options.name is None else matching(options.name)
    if about:
        import shutil

        print(table(max(60, min(shutil.get_terminal_size((110, 24)).columns, 110)), about))
    else:
        import difflib

        near = difflib.get_close_matches(options.name, found, n=3, cutoff=0.4)
        hint = ", ".join(near) if near else "a name that 'ufm claims' lists"
        raise InvalidProblemError(f"claims: there is no claim {options.name!r}; allowed: {hint}.")
    return _OK


def _claim_text(claim: Claim) -> str:
    lines = [
        claim.name,
        f"  statement  {claim.statement}",
        f"  source     {claim.source}",
        f"  formula    ufm/theory/{claim.room}.py",
        f"  proof      python -m proofs_check {claim.name}",
    ]
    if claim.figure is not None:
        lines.append(f"  figure     python -m figures {claim.figure}")
    return "\n".join(lines + [f"  {layer:10s} {status}" for layer, status in claim.layers.items()])


def _environment(options: argparse.Namespace) -> int:
    from ufm.environment import environment

    print(environment())
    return _OK


def _rerun(options: argparse.Namespace) -> int:
    from ufm.storage import load, save

    _check_overwrite(options)
    old = load(options.file)
    if options.out is not None:
        _check_out(options.out, options.overwrite)
    new = _simulate(old.run)
    if options.out is not None:
        save(new, options.out)
        print(f"saved to {options.out}")
    if new.status.name == "interrupted":
        print(f"ufm: interrupted at step {new.status.step}.", file=sys.stderr)
        return _INTERRUPTED
    differences, compared = _differences(old, new)
    if not differences:
        only_stored = f"; {len(old) - compared} more were kept before a resume" if compared < len(old) else ""
        print(f"identical, bit for bit: all {compared} records that both runs hold{only_stored}")
        return _OK
    print("different: " + "; ".join(differences))
    for name, before, now in _changed_software(old.provenance, new.provenance):
        print(f"  {name} was {before}, is {now}")
    return _DIFFERENT


def _differences(old: Trajectory, new: Trajectory) -> tuple[list[str], int]:
    """What differs between two runs at their common records, and how many of these there are."""
    import numpy as np

    steps, here, there = np.intersect1d(old.steps, new.steps, assume_unique=True, return_indices=True)
    found = []
    whole = ("completed", "diverged")
    # Only a run that was cut short, or resumed, has records that its repetition need not have.
    if old.status.name in whole and (old.status.name, old.status.step) != (new.status.name, new.status.step):
        found.append(
            f"the run {old.status.name} at step {old.status.step}, now {new.status.name} at {new.status.step}"
        )
    for name in ("states", "fit", "penalty"):
        a, b = getattr(old, name)[here], getattr(new, name)[there]
        if a.dtype != b.dtype or a.tobytes() != b.tobytes():
            found.append(_largest(name, a, b, steps))
    return found, len(steps)


def _largest(name: str, a: Any, b: Any, steps: Any) -> str:
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).reshape(len(steps), -1)
    first = int(np.argmax([x.tobytes() != y.tobytes() for x, y in zip(a, b, strict=True)]))
    largest = float(np.nanmax(gap)) if np.isfinite(gap).any() else float("nan")
    return f"{name} by up to {largest:.3g}, first at step {steps[first]}"


def _changed_software(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    before, now = old.get("software", {}), new.get("software", {})
    names = [*before, *(name for name in now if name not in before)]
    return [(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def _resume(options: argparse.Namespace) -> int:
    from ufm.storage import load

    _check_overwrite(options)
    trajectory = load(options.file)
    out = options.out or options.file
    if trajectory.status.name == "completed" and options.steps in (None, trajectory.end.step):
        done = trajectory.end.step
        raise IncompatibleError(
            f"{options.file} has taken all {done} steps; allowed: a larger number with --steps."
        )
    same = out.exists() and out.samefile(options.file)
    _check_out(out, options.overwrite or same)
    return _finish(trajectory.resume(options.steps, throw=False, progress=_progress()), out)


if __name__ == "__main__":
    sys.exit(main())
