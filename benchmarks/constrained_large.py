"""Large constrained CUTEst problems, solved by the augmented Lagrangian without a Jacobian: a table.

python benchmarks/constrained_large.py
python benchmarks/constrained_large.py --problems HAGER2 --inner lbfgs --rho 1 10
"""

import argparse
import functools
import importlib
import importlib.util
import pathlib
import re
import sys
import time
import types
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxmin

PROBLEMS = ("ORTHREGC", "HAGER2", "DTOC4", "EIGENB2", "LISWET1")
FOLDERS = ("_constrained_minimisation", "_quadratic_problems")


class Problem(NamedTuple):
    """min f(x) with c(x)[:m_eq] = 0, c(x)[m_eq:] >= 0, lower <= x <= upper; all flat."""

    f: Any
    c: Any
    x0: Any
    m_eq: int
    m: int
    bounds: Any  # (lower, upper), or None


def load(name):
    """A problem of sif2jax, from its own file: importing all of them takes half a minute."""
    root = _root()
    for folder in FOLDERS:
        for path in sorted((root / "cutest" / folder).rglob("*.py")):
            if path.name != "__init__.py" and re.search(rf"^class {name}\(", path.read_text("utf-8"), re.MULTILINE):
                module = ".".join(("sif2jax", *path.relative_to(root).with_suffix("").parts))
                return _posed(getattr(importlib.import_module(module), name)())
    raise SystemExit(f"sif2jax has no problem {name}")


@functools.cache
def _root():
    """The folder of sif2jax. Its packages are left without contents."""
    root = pathlib.Path(importlib.util.find_spec("sif2jax").submodule_search_locations[0])
    parts = [root / "cutest" / part for part in FOLDERS]
    inside = [path for part in parts for path in sorted(part.rglob("*")) if path.is_dir()]
    for folder in (root, root / "cutest", *parts, *inside):
        name = ".".join(("sif2jax", *folder.relative_to(root).parts))
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    return root


def _posed(problem):
    x0, unravel = ravel_pytree(problem.y0)
    sides = jax.eval_shape(problem.constraint, problem.y0)
    m_eq, m_in = (sum(leaf.size for leaf in jax.tree.leaves(side)) for side in sides)

    def c(x):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(problem.constraint(unravel(x)))])

    def f(x):
        return jnp.reshape(problem.objective(unravel(x), problem.args), ())

    bounds = getattr(problem, "bounds", None)
    if bounds is not None:
        lower, upper = (np.asarray(ravel_pytree(side)[0]) for side in bounds)
        bounds = (np.where(lower <= -1e20, -np.inf, lower), np.where(upper >= 1e20, np.inf, upper))
        x0 = jnp.clip(x0, *bounds)
    return Problem(f, c, x0, m_eq, m_eq + m_in, bounds)


def solved(problem, method, limits):
    """The result and its CPU seconds, without those of the compilation where a second solve is short."""
    upper = np.repeat([0.0, np.inf], [problem.m_eq, problem.m - problem.m_eq])
    rows = jaxmin.NonlinearConstraint(problem.c, 0.0, upper)
    begin = time.process_time()
    res = jaxmin.minimize(
        problem.f,
        problem.x0,
        method=method,
        constraints=rows,
        bounds=None if problem.bounds is None else jaxmin.Bounds(*problem.bounds),
        options=limits,
    )
    jax.block_until_ready(res.x)
    return res, time.process_time() - begin


def row(name, inner, rho, limits):
    problem = load(name)
    res, seconds = solved(problem, jaxmin.augmented_lagrangian(inner, rho), limits)
    g = float(jnp.max(jnp.abs(res.jac)))
    return (
        f"| {name} | {problem.x0.size} | {problem.m_eq} | {problem.m - problem.m_eq} | {inner} | "
        f"{jaxmin.Status(int(res.status)).name} | {float(res.fun):.8g} | {int(res.nfev)} | "
        f"{0 if res.nhev is None else int(res.nhev)} | {seconds:.1f} | {float(res.constr_violation):.1e} | "
        f"{float(res.optimality) / max(g, 1):.1e} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--inner", nargs="+", default=["trust_ncg"])
    parser.add_argument("--rho", nargs="+", type=float, default=[None])
    parser.add_argument("--maxfun", type=int, default=5000)
    parser.add_argument("--maxiter", type=int, default=5000)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    names = "problem, n, equations, inequalities, inner, status, f, evaluations, products, CPU s, violation, optimality"
    print(f"| {names.replace(', ', ' | ')} |\n|{'---|' * len(names.split(', '))}")
    for name in options.problems:
        for inner in options.inner:
            for rho in options.rho:
                limits = {"maxiter": options.maxiter, "maxfun": options.maxfun}
                print(row(name, inner, rho, limits), flush=True)


if __name__ == "__main__":
    main()
