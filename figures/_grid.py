"""The grid of runs of Zhao et al., on the unconstrained features model: what three figures draw from.

Six optimizers, six momenta, six decays, three learning rates and, where the paper has two architectures and three
data sets, six seeds: 3,888 runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import xarray

import ufm
from ufm.sweeps import Plan, plan
from ufm.theory import row_sum

SOURCE = f"simulation by this package on the grid of {row_sum.PAPER}, appendix on hyper-parameters"
START = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(1.0))
METRICS = ("nc0", "nc1", "nc2", "nc3")
LAW, NOT_ASKED, NO_LAW = "ufm.row_sum_law", "not asked", -1.0
JUDGED = ("holds", "fails", "inconclusive")


class Family(NamedTuple):
    """An optimizer with its place of weight decay, and what it varies."""

    name: str
    base: str
    optimizer: Any
    coupled: bool
    rates: tuple[float, ...]
    decays: tuple[float, ...]


SMALL, LARGE = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5), (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)
OF_SGD, OF_OTHERS = (0.001, 0.01, 0.0679), (0.001, 0.005, 0.01)
FAMILIES = (
    Family("SGD", "SGD", ufm.Momentum, True, OF_SGD, SMALL),
    Family("SGDW", "SGD", ufm.Momentum, False, OF_SGD, SMALL),
    Family("Adam", "Adam", ufm.Adam, True, OF_OTHERS, SMALL),
    Family("AdamW", "Adam", ufm.Adam, False, OF_OTHERS, LARGE),
    Family("Signum", "Signum", ufm.Signum, True, OF_OTHERS, SMALL),
    Family("SignumW", "Signum", ufm.Signum, False, OF_OTHERS, LARGE),
)
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)


class Size(NamedTuple):
    """What the quick figures have less of."""

    problem: ufm.UFM
    momenta: tuple[float, ...]
    rates: slice
    decays: slice
    seeds: int
    steps: int
    records: int


FULL = Size(ufm.UFM(classes=10, width=64, per_class=5), MOMENTA, slice(None), slice(None), 6, 10_000, 130)
QUICK = Size(ufm.UFM(classes=4, width=8, per_class=2), (0.0, 0.9), slice(1, 3), slice(0, 6, 2), 2, 1_000, 40)


@lru_cache(maxsize=1)
def paper_grid(quick: bool) -> xarray.Dataset:
    """Metrics at the end of every run, computed once for all figures of a process.

    Returns
    -------
    Dataset
        ``nc0`` ... ``nc3`` over (optimizer, momentum, rate, level, seed), with the value of lr and decay at each
        rate and level; ``nc0_start`` and ``nc0_peak``, at the start and at most; ``holds``, ``fails`` and
        ``inconclusive``, 1 where that is the verdict on the row-sum law, which SGD alone is asked for; ``ratio``, the
        largest error over what round-off may cause; ``control``, the same for a law with a decay wrong by 1e-6;
        ``law``, the prediction at the end. These three are negative where there is no law.
    """
    size = QUICK if quick else FULL
    parts = [_family(family, size) for family in FAMILIES]
    data = xarray.concat(parts, "optimizer", coords="different", compat="equals", join="exact")
    data = data.assign_coords(base=("optimizer", [family.base for family in FAMILIES]))
    data["coupled"] = ("optimizer", np.array([family.coupled for family in FAMILIES], np.int8))
    data.attrs = {
        "source": SOURCE,
        "runs": int(np.prod(list(data["nc0"].shape))),
        "settings": (
            f"{size.problem!r}, {START!r}, {size.steps} steps, lr / 10 at one and two thirds, decay of W and H, seeds "
            f"0 to {size.seeds - 1}; {'; '.join(map(repr, FAMILIES))}"
        ),
    }
    return data


def plan_of(family: Family, size: Size) -> Plan:
    """The sweep over the runs of a family."""
    return plan(
        size.problem,
        family.optimizer,
        momentum=list(size.momenta),
        lr=[ufm.StepDecay(rate) for rate in family.rates[size.rates]],
        total_decay=list(family.decays[size.decays]),
        coupled_share=float(family.coupled),
        seed=range(size.seeds),
        steps=size.steps,
        init=START,
        record=ufm.LogSpaced(size.records),
        metrics=METRICS,
        claims=(LAW,) if family.base == "SGD" else (),
    )


def _family(family: Family, size: Size) -> xarray.Dataset:
    rates, decays = family.rates[size.rates], family.decays[size.decays]
    is_sgd = family.base == "SGD"
    found = plan_of(family, size).run().rename(lr="rate", total_decay="level")
    order = ("momentum", "rate", "level", "seed")
    final, alpha = found.isel(record=-1), found["nc0"]
    data = xarray.Dataset({name: final[name].transpose(*order) for name in METRICS})
    data["nc0_start"] = alpha.isel(record=0).transpose(*order)
    data["nc0_peak"] = alpha.max("record").transpose(*order)
    verdict = found["verdict"].isel(claim=0).transpose(*order).values if is_sgd else NOT_ASKED
    for name in JUDGED:
        data[name.replace(" ", "_")] = (
            order,
            np.broadcast_to(verdict == name, data["nc0"].shape).astype(np.int8),
        )
    for name in ("ratio", "control"):
        values = found[name].isel(claim=0).transpose(*order).values if is_sgd else NO_LAW
        data[name] = (order, np.broadcast_to(values, data["nc0"].shape))
    growth = np.full((len(size.momenta), len(rates), len(decays), 1), NO_LAW)
    for at in np.ndindex(growth.shape[:3]) if is_sgd else ():
        growth[at] = row_sum.nc0(
            size.steps,
            beta=size.momenta[at[0]],
            coupled=family.coupled * decays[at[2]],
            decoupled=(not family.coupled) * decays[at[2]],
            schedule=ufm.StepDecay(rates[at[1]]).rates(size.steps),
        )
    data["law"] = (order, growth * data["nc0_start"].values)
    data = data.drop_vars(["rate", "level", "step", "claim"], errors="ignore")
    return data.assign_coords(
        optimizer=family.name, lr=("rate", np.array(rates)), decay=("level", np.array(decays))
    )
