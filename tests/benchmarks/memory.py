"""Resident memory that a long run with few records needs, beside what its process had before."""

from __future__ import annotations

import json
import tempfile

from .start_up import process

STEPS, RECORDS = 10**6, 300
# a first run loads all that is loaded once; then the peak is set back to what is resident (Linux)
CODE = f"""
import json
from pathlib import Path
import ufm

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

def run(steps):
    return ufm.simulate(
        ufm.UFM(20, 20), ufm.GD(0.1), ufm.Coupled(1e-3), steps=steps, record=ufm.LogSpaced({RECORDS})
    )

run(1000)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
traj = run({STEPS})
after = peak()
records = sum(a.nbytes for a in (traj.steps, traj.states, traj.fit, traj.penalty))
print(json.dumps({{"steps": traj.steps[-1].item(), "records": records, "peak above": after - before}}))
"""


def peak_of_a_run() -> dict[str, float]:
    """Steps taken, bytes of the records, and bytes by which resident memory rose above what it was before."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, float] = json.loads(process(CODE, folder)[1])
    return found
