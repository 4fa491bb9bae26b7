"""The small constrained CUTEst problems that sif2jax writes in JAX, as functions of one flat vector."""

import functools
import importlib
import importlib.util
import json
import pathlib
import re
import sys
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cutest_problems import x64
from jax.flatten_util import ravel_pytree

LIST = pathlib.Path(__file__).with_suffix(".json")
FOLDERS = ("_constrained_minimisation", "_quadratic_problems", "_nonlinear_equations")
NO_BOUND = 1e20  # a bound this large is none


class Problem(NamedTuple):
    """min f(x) with c(x)[:m_eq] = 0, c(x)[m_eq:] >= 0, lower <= x <= upper."""

    name: str
    f: Any  # [n] -> scalar
    c: Any  # [n] -> [m_eq + m_ineq]
    m_eq: int
    m_ineq: int
    lower: Any  # [n], float64
    upper: Any
    x0: Any  # [n], float64, within the bounds

    @property
    def n(self):
        return self.x0.size

    @property
    def upper_c(self):
        """Upper bounds of c; the lower ones are zeros."""
        return np.repeat([0.0, np.inf], [self.m_eq, self.m_ineq])

    @property
    def bounded(self):
        return bool(np.any(np.isfinite(self.lower) | np.isfinite(self.upper)))


def listed():
    """The names, smallest first, each with n, m_eq, m_ineq, its kind and the least f known.

    A problem is "judged", "unbounded" below, or "infeasible", as sif2jax 0.0.8 writes it.
    """
    return json.loads(LIST.read_text("utf-8"))


def load(name):
    """A problem by its name."""
    with x64(True):
        return posed(_class(name)())


def posed(problem):
    """The problem with x, c and the bounds flat; f and c come out in the dtype of x."""
    x0, unravel = ravel_pytree(problem.y0)
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(side)) for side in jax.eval_shape(problem.constraint, problem.y0)
    ]

    def c(x):
        leaves = jax.tree.leaves(problem.constraint(unravel_like(x)))
        return jnp.concatenate([jnp.ravel(leaf).astype(x.dtype) for leaf in leaves])

    def unravel_like(x):
        return jax.tree.map(lambda leaf: leaf.astype(x.dtype), unravel(x))

    def f(x):
        return jnp.reshape(problem.objective(unravel_like(x), problem.args), ()).astype(x.dtype)

    x0 = np.asarray(x0, np.float64)
    lower, upper = _sides(getattr(problem, "bounds", None), x0.size)
    return Problem(problem.name, f, c, *sizes, lower, upper, np.clip(x0, lower, upper))


def _sides(bounds, n):
    if bounds is None:
        return np.full(n, -np.inf), np.full(n, np.inf)
    lower, upper = (np.asarray(ravel_pytree(side)[0], np.float64) for side in bounds)
    return np.where(lower <= -NO_BOUND, -np.inf, lower), np.where(upper >= NO_BOUND, np.inf, upper)


def _class(name):
    """The class of a problem, from its own file."""
    root = _root()
    for folder in FOLDERS:
        for path in sorted((root / "cutest" / folder).rglob("*.py")):
            if path.name != "__init__.py" and re.search(rf"^class {name}\(", path.read_text("utf-8"), re.MULTILINE):
                module = ".".join(("sif2jax", *path.relative_to(root).with_suffix("").parts))
                return getattr(importlib.import_module(module), name)
    raise LookupError(f"sif2jax has no problem {name}")


@functools.cache
def _root():
    """The folder of sif2jax. Its packages are left without contents: importing all problems takes half a minute."""
    root = pathlib.Path(importlib.util.find_spec("sif2jax").submodule_search_locations[0])
    if "sif2jax" not in sys.modules:
        for folder in (root, root / "cutest", *(root / "cutest" / folder for folder in FOLDERS)):
            name = ".".join(("sif2jax", *folder.relative_to(root).parts))
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(folder)]
    return root
