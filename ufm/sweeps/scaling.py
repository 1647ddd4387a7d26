"""What a sweep on many cores costs besides its runs, and how long a shard has to be for it.

A shard whose runs take T seconds costs its worker f more: it is unpacked, its runs are built, its results are packed.
The process that hands out shards, its scheduler included, serves one after the other, s seconds each: a part for every
shard and one for every byte of description and results that goes through it. With P workers it is at work the share
rho = P s/T of the time, which has to be below 1, and a shard waits q = s rho/(2 (1 - rho)) for it on average (one
server, arrivals at random: M/D/1). Once per sweep, a worker takes w until it can compute, the last one has its first
shard P s after the first one, and at the end a worker waits at most T for the last shards. For a sweep of C seconds of
computing this is the share

    (f + q)/T + (w + P s + T) P/C

of the computing. The second part falls with the length of the sweep; the first one and rho < 1 bound T from below.
``python -m tests.benchmarks.sweeps`` measures f, s and w, and tests the model on a thousand workers that sleep.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Costs:
    """Costs of a sweep besides its runs, in seconds.

    Parameters
    ----------
    worker : float
        Of a shard to its worker.
    task : float
        Of a shard to the process that hands out shards.
    byte : float
        Of a byte of a shard's description and results to that process.
    bytes : float
        Such bytes of a shard.
    start : float
        Until a new worker can compute.

    Examples
    --------
    >>> Costs(worker=0.01, task=1e-3, byte=1e-8, bytes=1e5, start=3.0).served
    0.002
    """

    worker: float
    task: float
    byte: float
    bytes: float
    start: float

    @property
    def served(self) -> float:
        """Seconds of the process that hands out shards for each of them, s."""
        return self.task + self.byte * self.bytes

    def load(self, shard: float, workers: int) -> float:
        """Share of its time for which that process is at work, rho."""
        return workers * self.served / shard

    def per_shard(self, shard: float, workers: int) -> float:
        """Overhead of a long sweep with shards of `shard` seconds, as a share of its computing; inf from rho = 1."""
        rho = self.load(shard, workers)
        if rho >= 1.0:
            return inf
        return (self.worker + self.served * rho / (2.0 * (1.0 - rho))) / shard

    def once(self, shard: float, workers: int) -> float:
        """Seconds of every worker, at most, at the begin and the end of a sweep."""
        return self.start + workers * self.served + shard

    def overhead(self, shard: float, workers: int, computing: float) -> float:
        """Overhead of a sweep of `computing` seconds on one core, as a share of them."""
        return self.per_shard(shard, workers) + self.once(shard, workers) * workers / computing

    def shortest_shard(self, workers: int, share: float) -> float:
        """Seconds of the shortest shards with which a long sweep costs at most `share` more than its computing.

        Examples
        --------
        >>> costs = Costs(worker=0.01, task=2e-3, byte=0.0, bytes=0.0, start=3.0)
        >>> shortest = costs.shortest_shard(1000, 0.05)
        >>> round(shortest, 2), round(costs.per_shard(shortest, 1000), 9)
        (2.02, 0.05)
        """
        least = workers * self.served
        below, above = least, max(2.0 * least, 2.0 * (self.worker + self.served) / share)
        for _ in range(80):  # bisection: the overhead falls with the length of the shards
            middle = (below + above) / 2.0
            below, above = (middle, above) if self.per_shard(middle, workers) > share else (below, middle)
        return above

    def shortest_sweep(self, shard: float, workers: int, share: float) -> float:
        """Seconds that a sweep has to take on these workers for a total overhead of `share`; inf if none is enough."""
        left = share - self.per_shard(shard, workers)
        return self.once(shard, workers) / left if left > 0.0 else inf


# Dask, client, scheduler and workers on two cores: on more of their own rather smaller
MEASURED = Costs(worker=0.009, task=0.0089, byte=1.15e-8, bytes=1.117e5, start=2.1)
