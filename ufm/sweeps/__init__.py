"""Sweeps: a run for every combination of some values, computed anywhere, kept on disk, returned as one dataset.

From what the user writes to what comes back, one module each:

axes        lists, dicts and `Zipped` become named axes with labels
grid        fixed values and axes become cells, each a `ufm.run.Run`; which cells can be integrated together
measures    what is kept of a run: metrics, losses, status, verdicts of claims
windows     metrics over the records of many runs at a time
shards      cells computed together; `compute` is what an executor calls in its workers
workers     threads or any `concurrent.futures.Executor`; results as they come
folder      finished shards on disk, named by the hash of all that decides their numbers
dataset     results as a labelled `xarray.Dataset`, in memory or read from the folder when indexed
estimate    what a sweep would cost
scaling     what many workers cost besides the runs, and how long a shard has to be for them
planning    `sweep` and `plan`, which put these together
toml        the same arguments as a file, for the command ``ufm sweep``
"""

from __future__ import annotations

from ufm.sweeps.axes import Zipped
from ufm.sweeps.planning import Plan, plan, sweep

__all__ = ["Plan", "Zipped", "plan", "sweep"]
