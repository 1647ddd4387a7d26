"""What the threads of a large run have: the columns of H, part by part, together; each its own copy of the weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ufm.kernels.contract import Chain, Columns, Share, Step
from ufm.kernels.lanes import aligned


def _decay(problem: Any, step: Step, features: bool) -> np.ndarray:
    """The decay of the step of H, or of all other trained blocks."""
    wanted = np.array([(name == "H") == features for name in problem.trained])
    return step.decay.reshape(len(problem.trained), -1)[wanted].ravel()


def columns_of(problem: Any, chain: Chain, step: Step, ends: np.ndarray) -> Columns:
    """The parts between `ends`, with room for the columns of H."""
    (offset, d, samples), parts = (int(number) for number in chain.table[0]), list(pairwise(ends))
    dtype, trains = step.coupled.dtype, "H" in problem.trained
    H, m, v = (np.zeros(size, dtype) for size in (d * samples, *[trains * d * samples] * 2))
    return Columns(
        ends=ends,
        spans=np.array([np.clip(chain.segments, *part) - part[0] for part in parts], np.int64),
        targets=np.concatenate([chain.targets[:, slice(*part)].ravel() for part in parts]),
        H=H,
        m=m,
        v=v,
        tables=np.array([[(0, d, end - begin)] for begin, end in parts], np.int64),
        decay=_decay(problem, step, features=True),
        coupled=step.coupled[offset : offset + 1].copy() if trains else np.zeros(1, dtype),
        offset=offset,
        samples=samples,
    )


def share_of(
    problem: Any, chain: Chain, step: Step, columns: Columns, own: range
) -> tuple[Chain, Step, Share]:
    """The chain, the step and the rest of the thread that looks at its `own` parts first.

    The step is that of all trained blocks but H, which every part takes by itself.
    """
    d, widest = int(chain.table[0, 1]), int(np.diff(columns.ends).max())
    names = [name for name in problem.order if name != "H"]
    sizes = [int(np.prod(problem.shapes[name])) for name in names]
    here = dict(zip(names, np.cumsum([0, *sizes][:-1]).tolist(), strict=True))
    weights = [(here[f"W{layer}"], *problem.shapes[f"W{layer}"]) for layer in range(1, problem.depth + 1)]
    trained = [name for name in problem.trained if name != "H"]
    coupled = [
        np.repeat(step.coupled[problem.offsets[name]], np.prod(problem.shapes[name])) for name in trained
    ]
    blocks = [(here[name], *(*problem.shapes[name], 1)[:2]) for name in trained]
    length, dtype = (sum(problem.widths) + problem.classes) * widest, chain.parameters.dtype
    own_chain = chain._replace(
        table=np.array([(0, d, 0), *weights], np.int64),
        bias=here.get("b", -1),
        scale=chain.scale or 1.0 / columns.samples,
    )
    own_step = step._replace(
        hyper=step.hyper.copy(),  # Adam writes its corrections there
        decay=_decay(problem, step, features=False),
        coupled=np.concatenate([np.zeros(0, dtype), *coupled]),
        table=np.array(blocks, np.int64).reshape(-1, 3),
    )
    # of the parts of others those first that they come to last
    others = [part for part in reversed(range(len(columns.spans))) if part not in own]
    share = Share(
        first=int(own.start == 0),
        order=np.array([*own, *others], np.int64),
        blocks=np.array(
            [(problem.offsets[name], here[name], size) for name, size in zip(names, sizes, strict=True)],
            np.int64,
        ),
        G=aligned(d * widest, dtype),
        X=aligned(length, dtype),
        D=aligned(length, dtype),
        work=np.zeros(3 * widest, dtype),
    )
    return own_chain, own_step, share


def copy_columns(columns: Columns, d: int, whole: np.ndarray, own: np.ndarray, back: bool) -> None:
    """Copy the d rows of H from a vector laid out as the state of the run to that of all parts; or `back`."""
    if own.size == 0:
        return
    rows = whole[columns.offset : columns.offset + own.size].reshape(d, -1)
    for begin, end in pairwise(columns.ends):
        part = own[d * begin : d * end].reshape(d, -1)
        if back:
            rows[:, begin:end] = part
        else:
            part[:] = rows[:, begin:end]


def copy_weights(share: Share, whole: np.ndarray, own: np.ndarray, back: bool) -> None:
    """Copy the other blocks from such a vector to that of a thread, of both as far as they go; or `back`."""
    for there, here, size in share.blocks:
        if here < own.size:
            if back:
                whole[there : there + size] = own[here : here + size]
            else:
                own[here : here + size] = whole[there : there + size]
