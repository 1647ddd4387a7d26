"""Compiled kernels: the only place that imports numba. Nothing here is public."""
