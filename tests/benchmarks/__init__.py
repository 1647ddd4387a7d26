"""Times of a step, against peers and against the bounds of the processor: `python -m tests.benchmarks`."""
