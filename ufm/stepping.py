"""What the loops around compiled steps share: how long a chunk is, the progress bar, garbage collection at rest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ufm.checks import flag

CHUNK_SECONDS = 0.2  # how long compiled code runs before Python looks at Ctrl-C and the progress bar


@contextmanager
def progress_bar(progress: bool | None, total: int, start: int) -> Iterator[Callable[[int], None]]:
    """A function that shows the step it is given, on a bar over `total` steps; it shows nothing unless asked to."""
    if progress is None or not flag("progress", progress):
        yield lambda step: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=start, unit="step", unit_scale=True) as bar:
        yield lambda step: bar.update(step - bar.n) and None


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Pause garbage collection: while numba and matplotlib build their objects there is none to find.

    What was built counts as old when it ends: else the next collection would look through all of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
