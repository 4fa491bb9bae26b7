"""Fits of residuals: NIST's certified regressions, and many fits of three peaks.

python benchmarks/fits.py nist --solver jaxmin minpack optimistix
python benchmarks/fits.py nist --dtype float32
python benchmarks/fits.py peaks --fits 2000
"""

import argparse
import time
import warnings

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxmin
from jaxmin.datasets import nist

# Of MINPACK and optimistix, as tight as they stay sensible.
TIGHT = 1e-12


def _jaxmin(residuals, start):
    res = jaxmin.minimize(residuals, jnp.asarray(start), method="levenberg_marquardt")
    return res.x, int(res.nfev), jaxmin.Status(int(res.status)).name, bool(res.success)


def _minpack(residuals, start):
    fun, jac = jax.jit(residuals), jax.jit(jax.jacfwd(residuals))
    settings = {"method": "lm", "xtol": TIGHT, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 5000}
    res = scipy.optimize.least_squares(
        lambda b: np.asarray(fun(b)), start, jac=lambda b: np.asarray(jac(b)), **settings
    )
    return res.x, res.nfev, str(res.status), res.success


def _optimistix(residuals, start):
    import optimistix

    solver = optimistix.LevenbergMarquardt(rtol=TIGHT, atol=TIGHT)
    fun = lambda b, _: residuals(b)
    res = optimistix.least_squares(fun, solver, jnp.asarray(start), max_steps=5000, throw=False)
    success = bool(res.result == optimistix.RESULTS.successful)
    return res.value, int(res.stats["num_steps"]), str(success), success


SOLVERS = {"jaxmin": _jaxmin, "minpack": _minpack, "optimistix": _optimistix}


def digits(b, certified):
    """The decimal digits of the worst parameter."""
    error = np.abs(np.asarray(b, float) - certified) / np.abs(certified)
    return float(np.min(-np.log10(np.maximum(np.where(np.isnan(error), 10, error), 1e-16))))


def regressions(solvers, dtype):
    """Each data set from both starts: digits, evaluations, status."""
    total = {solver: [0, 0] for solver in solvers}
    print(f"{'':10}" + "".join(f"{solver:>44}" for solver in solvers))
    for name in nist.NAMES:
        data, model = nist.load(name), nist.model(name)
        x, y = data.x.astype(dtype), data.y.astype(dtype)
        residuals = lambda b, model=model, x=x, y=y: model(b, x) - y
        line = f"{name:10}"
        for solver in solvers:
            for start in data.starts.astype(dtype):
                b, evaluations, status, success = SOLVERS[solver](residuals, start)
                agree = digits(b, data.certified)
                total[solver][0] += agree >= 6
                total[solver][1] += evaluations
                line += f"{agree:6.1f} {evaluations:5d} {status[:7]:>7}{'' if success else '!':1}"
            line += "  "
        print(line, flush=True)
    for solver, (solved, evaluations) in total.items():
        print(f"{solver}: {solved} of {2 * len(nist.NAMES)} to six digits, {evaluations} evaluations")


def peaks(count, dtype):
    """Many fits of three Gaussians with bounds: 9 parameters, 100 points."""
    rng, t = np.random.default_rng(1), np.linspace(0, 1, 100).astype(dtype)
    centres = np.array([0.2, 0.5, 0.8]) + rng.uniform(-0.05, 0.05, (count, 3))
    truth = np.concatenate([rng.uniform(0.5, 2, (count, 3)), centres, rng.uniform(0.04, 0.1, (count, 3))], axis=1)

    def model(b):
        return sum(b[i] * jnp.exp(-0.5 * ((t - b[3 + i]) / b[6 + i]) ** 2) for i in range(3))

    y = np.asarray(jax.vmap(model)(truth.astype(dtype))) + 0.02 * rng.normal(size=(count, 100)).astype(dtype)
    x0 = np.tile(np.array([1, 1, 1, 0.2, 0.5, 0.8, 0.07, 0.07, 0.07], dtype), (count, 1))
    low = np.array([0, 0, 0, 0, 0.3, 0.6, 0.01, 0.01, 0.01], dtype)
    bounds = jaxmin.Bounds(low, np.array([5, 5, 5, 0.4, 0.7, 1, 0.3, 0.3, 0.3], dtype))
    residuals = lambda b, y: model(b) - y
    found = {}
    for name, fun, method in (
        ("lbfgs", jaxmin.sum_of_squares(residuals), "lbfgs"),
        ("levenberg_marquardt", residuals, "levenberg_marquardt"),
    ):
        for _ in range(2):  # the first call compiles
            begin = time.process_time()
            found[name] = jax.block_until_ready(jaxmin.minimize_many(fun, x0, args=(y,), bounds=bounds, method=method))
            spent = time.process_time() - begin
        res = found[name]
        print(f"{name}: {spent / count * 1e6:.0f} us a fit, {float(np.mean(res.nfev)):.1f} evaluations, ", end="")
        print(f"{np.mean(res.success):.2%} successes", flush=True)
    least = np.min([res.fun for res in found.values()], axis=0)
    for name, res in found.items():
        print(f"{name}: {np.mean(res.fun <= least * (1 + 1e-4)):.2%} at the least cost found")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nist", "peaks"))
    parser.add_argument("--solver", nargs="+", default=["jaxmin"], choices=SOLVERS)
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--fits", type=int, default=2000)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    warnings.simplefilter("ignore")
    if options.what == "nist":
        regressions(options.solver, options.dtype)
    else:
        peaks(options.fits, options.dtype)


if __name__ == "__main__":
    main()
