"""``python -m tests.interpreted``: branch coverage of the kernels, run without the compiler.

Coverage cannot look into compiled code. With NUMBA_DISABLE_JIT=1 the same sources are plain Python: the scripts that
other tests run both ways, some of these tests and the cases of ``test_branches.py`` are run so, and the table is
printed.
Exit code 0 if they pass and reach at least 95 % of the branches, else 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 95
TESTS = (  # that are quick without the compiler
    "tests/interpreted",
    "tests/test_certificates.py::test_the_hessian_is_that_of_a_twin_to_the_stated_round_off",
    "tests/test_certificates.py::test_the_zero_state_of_three_layers_has_the_decay_as_hessian_or_none",
    "tests/test_kernels.py::test_a_class_may_begin_and_end_in_any_column",
    "tests/test_kernels.py::test_heads_judge_every_column",
    "tests/test_normalisation.py::test_any_blocks_may_be_frozen",
    "tests/test_normalisation.py::test_hessian_is_the_derivative_of_the_gradient",
    "tests/test_parts.py::test_float32_in_parts",
)
# of the kernels these emit machine code, or hold what is around it: options, cache, the library of products
MACHINE_CODE = (
    "blas",
    "cache",
    "contract",
    "exponential",
    "lanes",
    "meeting",
    "product",
    "tiled_product",
    "vectors",
)


def scripts(folder: Path) -> list[list[str]]:
    """Arguments of Python for every run."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_ensemble
    import test_interpreted
    import test_kernels
    import test_signs

    texts = {
        "kernels": test_kernels.INTERPRETED,
        "two_scalars": test_interpreted.RUNS,
        "signs": test_signs.INTERPRETED,
        "dead_units": test_signs.QUICK,
        "ensemble": test_ensemble.WITHOUT_COMPILER.format(rule="Adam(0.1)", activation="relu"),
        "ensemble_of_signs": test_ensemble.WITHOUT_COMPILER.format(
            rule="Signum(0.1, 0.5)", activation="identity"
        ),
    }
    arguments = {"signs": [str(ROOT / "tests")]}
    found = [["-m", "pytest", "-p", "no:cacheprovider", *TESTS]]
    for name, text in texts.items():
        script = folder / f"{name}.py"
        script.write_text(text, encoding="utf-8")
        found.append([str(script), *arguments.get(name, [str(folder / f"{name}.npy")])])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kernels without the compiler under coverage and print the table."""
    argparse.ArgumentParser(
        prog="python -m tests.interpreted", description=__doc__.splitlines()[0]
    ).parse_args(arguments)
    if importlib.util.find_spec("coverage") is None:
        print("This needs the package coverage: pip install coverage (or the extra `test`).", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        environment = {
            **os.environ,
            "NUMBA_DISABLE_JIT": "1",
            "COVERAGE_FILE": str(Path(place) / "coverage"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        coverage = [sys.executable, "-W", "error", "-m", "coverage"]
        for run in scripts(Path(place)):
            done = subprocess.run(
                [*coverage, "run", "--branch", "--parallel-mode", "--source=ufm/kernels", *run],
                cwd=ROOT, env=environment, check=False, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode != 0:
                print(
                    f"{done.stdout}{done.stderr}failed without the compiler: {' '.join(run)}", file=sys.stderr
                )
                return 1
        subprocess.run([*coverage, "combine", "--quiet"], cwd=ROOT, env=environment, check=True)
        left_out = ",".join(f"*/kernels/{name}.py" for name in MACHINE_CODE)
        report = [*coverage, "report", f"--omit={left_out}", f"--fail-under={ENOUGH}"]
        return int(subprocess.run(report, cwd=ROOT, env=environment, check=False).returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
