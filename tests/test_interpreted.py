"""Kernels without the compiler: the compiled numbers, and how much of the kernels interpreted runs reach."""

import numpy as np
import pytest

RUNS = """
import sys
import numpy as np
import ufm

found, carried = [], 0
exact = ufm.Mixed(1e-13, 1e-5, shrink="after")
for rule in (ufm.SignGD(1.0), ufm.Signum(1.0, 0.5), ufm.Adam(1.0, 0.5, 0.5, 0.0)):
    for decay in (ufm.Coupled(1e-13), ufm.Decoupled(1e-5), exact):
        run = ufm.simulate_symmetric(3, rule, decay, steps=900, record=ufm.Every(100))
        carried += run.stats["exponents"]
        found += [run.diagonal / 900, run.off_diagonal / 900]
for rule in (ufm.SignGD(0.1), ufm.GD(0.5), ufm.Adam(0.01)):
    for start in ((-1.0, 1.0), (0.3, 0.3), (1e-3, -2.0)):
        for decay in (ufm.Mixed(0.01, 0.02), ufm.Mixed(0.01, 0.02, shrink="after"), None):
            run = ufm.simulate_symmetric(4, rule, decay, steps=30, start=start)
            found += [run.diagonal, run.off_diagonal]
start = ufm.Given(W=40 * np.eye(3), H=40 * np.repeat(np.eye(3), 2, axis=1))
for rule in (ufm.SignGD(0.5), ufm.Signum(0.5, 0.5), ufm.NormalisedGD(0.5), ufm.Momentum(0.1, 0.5)):
    for batch in (None, 4):
        for decay in (ufm.Coupled(1e-200), ufm.Mixed(0.01, 0.01, shrink="after")):
            run = ufm.simulate(ufm.UFM(3, 3, 2), rule, decay, steps=5, init=start, batch=batch)
            found.append(run.states.ravel())
assert carried == 3
np.save(sys.argv[1], np.concatenate(found))
"""


@pytest.mark.slow
def test_interpreted_kernels_give_the_compiled_numbers(python, tmp_path):
    for name, environment in (("compiled", {}), ("plain", {"NUMBA_DISABLE_JIT": "1"})):
        python(RUNS, environment, arguments=[str(tmp_path / name)])
    compiled, plain = (np.load(tmp_path / f"{name}.npy") for name in ("compiled", "plain"))
    assert len(plain) > 500
    assert np.abs(compiled - plain).max() <= 1e-12


@pytest.mark.slow
def test_interpreted_runs_reach_the_kernels(capfd):
    """At least 95 % of the branches, as ``python -m tests.interpreted`` prints them."""
    pytest.importorskip("coverage", reason="coverage is in the extra `test`")
    from tests.interpreted.__main__ import main

    assert main([]) == 0
    assert "ufm/kernels/doubt.py" in capfd.readouterr().out
