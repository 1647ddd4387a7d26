"""Seeds, the option --slow, plots without a screen, and Python in a second process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# some shells start what runs in the background with Ctrl-C ignored; here it is sent
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]

# a first call may compile; the same examples in every run
settings.register_profile("ufm", deadline=None, derandomize=True, database=None)
settings.load_profile("ufm")

# an absolute tolerance is stated where it is meant: the 1e-12 that pytest adds hides any error of a tiny number
type(pytest.approx(1.0)).DEFAULT_ABSOLUTE_TOLERANCE = 0.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Run code in a new process with warnings as errors and return what it printed.

    Kernels come from the cache that the tests themselves use, unless `env` sets UFM_CACHE_DIR.
    """

    def run(
        code: str, env: Mapping[str, str] | None = None, root: Path = ROOT, arguments: Sequence[str] = ()
    ) -> str:
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *arguments],
            cwd="/", env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run
