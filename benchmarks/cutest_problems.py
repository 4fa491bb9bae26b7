"""The CUTEst problems that sif2jax writes in JAX, and how they are posed to a solver."""

import contextlib

import jax
import numpy as np


@contextlib.contextmanager
def x64(enabled):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def load(which):
    """The problems of a set, by name. Importing sif2jax takes half a minute and turns x64 on."""
    import sif2jax

    return {problem.name: problem for problem in getattr(sif2jax, f"{which}_minimisation_problems")}


def posed(problem, dtype):
    """x0 as one flat vector, inside the box, and the box, (lower, upper) or None, in the dtype of the run."""
    with x64(True):
        x0 = np.asarray(problem.y0)
        if x0.ndim != 1:
            raise TypeError(f"x0 has the shape {x0.shape}")
        bounds = getattr(problem, "bounds", None)
        if bounds is not None:
            bounds = tuple(np.broadcast_to(np.asarray(side), x0.shape).astype(dtype) for side in bounds)
            x0 = np.clip(x0, *bounds)
            bounds = bounds if np.any(np.isfinite(bounds)) else None
        return x0.astype(dtype), bounds
