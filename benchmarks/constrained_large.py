"""Large constrained CUTEst problems, solved by the augmented Lagrangian without a Jacobian: a table.

python benchmarks/constrained_large.py
python benchmarks/constrained_large.py --problems HAGER2 --inner lbfgs --rho 1 10
"""

import argparse
import time

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
from constrained_problems import load

import jaxmin

PROBLEMS = ("ORTHREGC", "HAGER2", "DTOC4", "EIGENB2", "LISWET1")


def solved(problem, method, limits):
    """The result and its CPU seconds, without those of the compilation where a second solve is short."""
    rows = jaxmin.NonlinearConstraint(problem.c, 0.0, problem.upper_c)
    begin = time.process_time()
    res = jaxmin.minimize(
        problem.f,
        problem.x0,
        method=method,
        constraints=rows,
        bounds=jaxmin.Bounds(problem.lower, problem.upper) if problem.bounded else None,
        options=limits,
    )
    jax.block_until_ready(res.x)
    return res, time.process_time() - begin


def row(name, inner, rho, limits):
    problem = load(name)
    res, seconds = solved(problem, jaxmin.augmented_lagrangian(inner, rho), limits)
    g = float(jnp.max(jnp.abs(res.jac)))
    return (
        f"| {name} | {problem.n} | {problem.m_eq} | {problem.m_ineq} | {inner} | "
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
