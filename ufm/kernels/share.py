"""What one thread has of a large run: some of the parts that its samples are cut into."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ufm.kernels.contract import Chain, Share, Step
from ufm.kernels.lanes import aligned


def share_of(
    problem: Any, chain: Chain, step: Step, ends: np.ndarray, first: int
) -> tuple[Chain, Step, Share]:
    """The chain, the step and the rest that concerns the parts between `ends`, the first of them that number of all.

    The step is that of all trained blocks but H, which every part takes by itself.
    """
    (features, d, samples), K = (int(number) for number in chain.table[0]), problem.classes
    columns, widest, parts = int(ends[-1] - ends[0]), int(np.diff(ends).max()), list(pairwise(ends))
    order = [name for name in problem.order if name != "H"]
    order.insert(len(problem.trained) - 1 if "H" in problem.trained else len(order), "H")
    sizes = {name: int(np.prod(problem.shapes[name])) for name in order} | {"H": d * columns}
    here = dict(zip(order, np.cumsum([0, *sizes.values()][:-1]).tolist(), strict=True))
    others = [name for name in order if name != "H"]
    weights = [(here[f"W{layer}"], *problem.shapes[f"W{layer}"]) for layer in range(1, problem.depth + 1)]
    trained = [name for name in order if name in problem.trained]
    is_features = np.array([name == "H" for name in problem.trained])
    decay = step.decay.reshape(len(problem.trained), -1)
    coupled = np.array([step.coupled[problem.offsets[name]] for name in trained], step.coupled.dtype)
    blocks = [(here[name], *(*problem.shapes[name], 1)[:2]) for name in problem.trained if name != "H"]
    length, dtype = (sum(problem.widths) + K) * widest, chain.parameters.dtype
    own_chain = chain._replace(
        table=np.array([(here["H"], d, columns), *weights], np.int64),
        bias=here.get("b", -1),
        scale=chain.scale or 1.0 / samples,
    )
    own_step = step._replace(
        hyper=step.hyper.copy(),  # Adam writes its corrections there
        decay=decay[~is_features].ravel(),
        coupled=np.repeat(coupled, [sizes[name] for name in trained]),
        table=np.array(blocks, np.int64).reshape(-1, 3),
    )
    share = Share(
        first=first,
        ends=ends,
        spans=np.array([np.clip(chain.segments, *part) - part[0] for part in parts], np.int64),
        targets=np.concatenate([chain.targets[:, slice(*part)].ravel() for part in parts]),
        features=features,
        samples=samples,
        blocks=np.array([(problem.offsets[name], here[name], sizes[name]) for name in others], np.int64),
        tables=np.array([[(here["H"] + d * (a - ends[0]), d, b - a)] for a, b in parts], np.int64),
        decay=decay[is_features].ravel(),
        X=aligned(length, dtype),
        D=aligned(length, dtype),
        work=np.zeros(3 * widest, dtype),
    )
    return own_chain, own_step, share


def copy_share(chain: Chain, share: Share, whole: np.ndarray, own: np.ndarray, back: bool) -> None:
    """Copy what a thread has of a vector laid out as the state of the run, or as its trained blocks; or `back`."""
    (here, d, _), samples, there = chain.table[0], share.samples, share.features
    pairs = [(whole[a : a + n], own[b : b + n]) for a, b, n in share.blocks]
    if here < own.size:
        columns = whole[there : there + d * samples].reshape(d, samples)
        for begin, end in pairwise(share.ends):
            place = here + d * (begin - share.ends[0])
            pairs.append((columns[:, begin:end], own[place : place + d * (end - begin)].reshape(d, -1)))
    for of_whole, of_own in pairs:
        source, target = (of_own, of_whole) if back else (of_whole, of_own)
        target[:] = source
