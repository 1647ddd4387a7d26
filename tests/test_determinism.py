"""Two processes with the same number of BLAS threads give identical bits."""

import pytest

SINGLE = """
import hashlib, os
import ufm
junk = [bytearray(i) for i in range(1, 3000, int(os.environ["HEAP"]))]  # arrays begin in other places
for problem in PROBLEMS:
    for rule in (ufm.Momentum(0.05, 0.9), ufm.Adam(1e-3), ufm.SignGD(1e-3)):
        traj = ufm.simulate(problem, rule, ufm.Coupled(1e-3), steps=4, seed=3)
        print(repr(rule), hashlib.sha256(traj.states.tobytes() + traj.fit.tobytes()).hexdigest())
"""

ENSEMBLE = """
import hashlib, os
import ufm
from ufm.ensemble import ensemble
from ufm.run import Run
junk = [bytearray(i) for i in range(1, 3000, int(os.environ["HEAP"]))]
for problem in (ufm.UFM(4, 4), ufm.UFM(10, 10, 3), ufm.UFM(40, 40), ufm.DUFM(10, 30, 4)):
    for rule in (ufm.GD, ufm.Adam, ufm.SignGD):
        runs = [Run(problem, rule(1e-3 * (i + 1)), ufm.Coupled(1e-3), steps=6, seed=i) for i in range(19)]
        for traj in ensemble(runs):
            print(rule, hashlib.sha256(traj.states.tobytes() + traj.fit.tobytes()).hexdigest())
"""


SMALL = SINGLE.replace("PROBLEMS", "(ufm.UFM(4, 4), ufm.UFM(10, 64, 5), ufm.DUFM(10, 30, 4, 50))")
LARGE = SINGLE.replace("PROBLEMS", "(ufm.UFM(100, 128, 10),)")


@pytest.mark.parametrize(
    ("code", "threads"), [(SMALL, 1), (LARGE, 2), (ENSEMBLE, 1)], ids=["small", "large", "ensemble"]
)
def test_processes_agree(python, code, threads):
    first, second = (
        python(code, {"OPENBLAS_NUM_THREADS": str(threads), "HEAP": str(heap)}) for heap in (7, 11)
    )
    assert len(set(first.splitlines())) == len(first.splitlines()) >= 3  # different runs differ
    assert first == second
