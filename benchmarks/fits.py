"""Fits of residuals: NIST's certified regressions, many fits of three peaks, and what float32 says of its fits.

python benchmarks/fits.py nist --solver jaxmin minpack optimistix
python benchmarks/fits.py nist --dtype float32
python benchmarks/fits.py peaks --fits 2000 --peers 200
python benchmarks/fits.py float32 --fits 2000
"""

import argparse
import collections
import functools
import time
import warnings
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import fit_kinds
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxmin
from jaxmin.datasets import nist

METHOD = "levenberg_marquardt"
# Of MINPACK and optimistix, as tight as they stay sensible.
TIGHT = 1e-12
# A cost this near to the least one is good, and one beyond is wrong; both are relative.
GOOD, WRONG = 1e-4, 1e-2


# ---- NIST


class Found(NamedTuple):
    b: Any  # [p]
    evaluations: int
    status: str
    success: bool
    errors: Any = None  # [p] standard errors


def _jaxmin(residuals, start):
    res = jaxmin.minimize(residuals, jnp.asarray(start), method=METHOD)
    status = jaxmin.Status(int(res.status)).name
    return Found(res.x, int(res.nfev), status, bool(res.success), res.standard_errors())


def _minpack(residuals, start):
    fun, jac = jax.jit(residuals), jax.jit(jax.jacfwd(residuals))
    settings = {"method": "lm", "xtol": TIGHT, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 5000}
    res = scipy.optimize.least_squares(
        lambda b: np.asarray(fun(b)), start, jac=lambda b: np.asarray(jac(b)), **settings
    )
    return Found(res.x, res.nfev, str(res.status), res.success)


def _optimistix(residuals, start):
    import optimistix

    solver = optimistix.LevenbergMarquardt(rtol=TIGHT, atol=TIGHT)
    fun = lambda b, _: residuals(b)
    res = optimistix.least_squares(fun, solver, jnp.asarray(start), max_steps=5000, throw=False)
    success = bool(res.result == optimistix.RESULTS.successful)
    return Found(res.value, int(res.stats["num_steps"]), str(success), success)


SOLVERS = {"jaxmin": _jaxmin, "minpack": _minpack, "optimistix": _optimistix}


def digits(b, certified):
    """The decimal digits of the worst parameter."""
    error = np.abs(np.asarray(b, float) - certified) / np.abs(certified)
    return float(np.min(-np.log10(np.maximum(np.where(np.isnan(error), 10, error), 1e-16))))


class Judged(NamedTuple):
    name: str
    fit: Found
    digits: float  # of the worst parameter
    excess: float  # of the sum of squares, relative to the least one
    digits_of_errors: float


class Regression(NamedTuple):
    """A data set as a dtype has it: that is the problem."""

    residuals: Any  # b -> [m], in the dtype of b
    cost: Any  # b -> half the sum of squares, in float64
    least: float  # the least cost


@functools.cache  # for all solvers and both starts
def regression(name, dtype):
    data, model = nist.load(name), nist.model(name)
    x, y = data.x.astype(dtype), data.y.astype(dtype)
    residuals = lambda b: model(b, x.astype(b.dtype)) - y.astype(b.dtype)
    cost = lambda b: float(jnp.sum(residuals(jnp.asarray(b, float)) ** 2) / 2)
    least = cost(jaxmin.minimize(residuals, jnp.asarray(data.certified), method=METHOD).x)
    return Regression(residuals, cost, least)


def judge(data, solve, start, dtype):
    """One fit of a data set, and how good it is."""
    problem = regression(data.name, dtype)
    fit = solve(problem.residuals, start.astype(dtype))
    of_errors = np.nan if fit.errors is None else digits(fit.errors, data.deviation)
    return Judged(data.name, fit, digits(fit.b, data.certified), problem.cost(fit.b) / problem.least - 1, of_errors)


def regressions(solvers, dtype):
    """Each data set from both starts: digits, evaluations, status; then what they add up to."""
    found = {solver: [] for solver in solvers}
    print(f"{'':10}" + "".join(f"{solver:>44}" for solver in solvers))
    for name in nist.NAMES:
        data, line = nist.load(name), f"{name:10}"
        for solver, judged in found.items():
            for start in data.starts:
                judged.append(judge(data, SOLVERS[solver], start, dtype))
                fit = judged[-1].fit
                line += (
                    f"{judged[-1].digits:6.1f} {fit.evaluations:5d} {fit.status[:7]:>7}{'' if fit.success else '!':1}"
                )
            line += "  "
        print(line, flush=True)
    for solver, judged in found.items():
        summary(solver, judged)


def summary(solver, judged):
    """What the fits of a solver add up to."""
    evaluations = sum(one.fit.evaluations for one in judged)
    digits = np.array([one.digits for one in judged])
    print(f"{solver}: {np.sum(digits >= 6)} of {len(judged)} to six digits, {evaluations} evaluations")
    for label, least, most in (("6 and more", 6, 99), ("4 to 6", 4, 6), ("2 to 4", 2, 4), ("fewer", -99, 2)):
        statuses = collections.Counter(one.fit.status for one in judged if least <= one.digits < most)
        print(f"  {label:10} {statuses.total():2}, {dict(statuses)}")
    successes = [one for one in judged if one.fit.success]
    near = sum(one.excess <= GOOD for one in successes)
    far = [one.name for one in successes if one.excess > WRONG]
    print(f"  {len(successes)} successes: {near} within {GOOD:g} of the least sum of squares, beyond {WRONG:g} {far}")
    if solver == "jaxmin":
        errors = np.array([one.digits_of_errors for one in judged])
        counts = ", ".join(f"{np.sum(errors >= least)} to {least} digits" for least in (6, 4, 2))
        print(f"  standard errors: {counts}; the worst: {judged[np.argmin(errors)].name}")


# ---- many fits


class Work(NamedTuple):
    """Fits of one kind, all from one start."""

    residuals: Any  # (b [p], y [m], sigma [m]) -> [m]
    start: Any  # [p]
    y: Any  # [fits, m]
    sigma: Any  # [fits, m]
    bounds: Any

    @classmethod
    def of(cls, name, count, dtype):
        rng = np.random.default_rng(0)
        kind = fit_kinds.KINDS[name](rng, count)
        y, sigma = (u.astype(dtype) for u in kind.data(rng))
        residuals = lambda b, y, sigma: (kind.model(b, jnp.asarray(kind.t, y.dtype)) - y) / sigma
        return cls(residuals, kind.start, y, sigma, kind.bounds)

    def solved(self, dtype, method=METHOD, x0=None):
        """The result of all of them, from x0 [fits, p] or from the start."""
        fun = self.residuals if method == METHOD else jaxmin.sum_of_squares(self.residuals)
        x0 = np.broadcast_to(self.start, (len(self.y), self.start.size)) if x0 is None else np.asarray(x0)
        bounds = None if self.bounds is None else jaxmin.Bounds(*(side.astype(dtype) for side in self.bounds))
        args = self.y.astype(dtype), self.sigma.astype(dtype)
        return jaxmin.minimize_many(fun, x0.astype(dtype), args=args, bounds=bounds, method=method)

    def cost(self, x):
        """[fits] half the sums of squares at x, computed in float64."""
        wide = (np.asarray(u, float) for u in (x, self.y, self.sigma))
        return np.asarray(jax.vmap(lambda *u: jnp.sum(self.residuals(*u) ** 2) / 2)(*wide))


def timed(solve):
    """(seconds of processor time, the result) of a second call: the first one compiles."""
    for _ in range(2):
        begin = time.process_time()
        result = jax.block_until_ready(solve())
        spent = time.process_time() - begin
    return spent, result


def scipys(work):
    """``curve_fit`` as SciPy's users call it, in a loop: NumPy, and derivatives by differences."""
    t = np.linspace(0, 1, work.y.shape[1])

    def model(t, *b):
        return sum(b[i] * np.exp(-0.5 * ((t - b[3 + i]) / b[6 + i]) ** 2) for i in range(3))

    fits = [
        scipy.optimize.curve_fit(model, t, y.astype(float), work.start, bounds=work.bounds, full_output=True)
        for y in work.y
    ]
    return np.array([fit[0] for fit in fits]), np.array([fit[2]["nfev"] for fit in fits]), np.ones(len(fits), bool)


def optimistixs(work):
    """optimistix's Levenberg-Marquardt under ``vmap``. It has no bounds."""
    import optimistix

    tol = 1e-8 if work.y.dtype == np.float64 else 1e-5
    solver = optimistix.LevenbergMarquardt(rtol=tol, atol=tol)

    @jax.jit
    @jax.vmap
    def solve(y, sigma):
        fun = lambda b, _: work.residuals(b, y, sigma)
        start = jnp.asarray(work.start, y.dtype)
        res = optimistix.least_squares(fun, solver, start, max_steps=500, throw=False)
        return res.value, res.stats["num_steps"], res.result == optimistix.RESULTS.successful

    def solved():
        with jax.enable_x64(work.y.dtype == np.float64):  # it would mix both dtypes in float32
            return solve(work.y, work.sigma)

    return solved


def peaks(count, peers, dtype):
    """Many fits of three Gaussians with bounds: processor time of a fit, evaluations, successes, and the costs."""
    work = Work.of("peaks", count, dtype)
    few = work._replace(y=work.y[:peers], sigma=work.sigma[:peers])
    found = {}
    for name in ("lbfgs", METHOD):
        spent, res = timed(lambda name=name: work.solved(dtype, name))
        found[name] = spent / count, res.x, res.nfev, res.success
    of_peers = {"curve_fit of SciPy": lambda: scipys(few), "optimistix LevenbergMarquardt": optimistixs(few)}
    for name, solve in of_peers.items():
        spent, res = timed(solve)
        found[name] = spent / peers, *res
    costs = [few.cost(x[:peers]) for _, x, _, _ in found.values()]
    least = np.min(costs, axis=0)
    print(f"{'':32}{'us a fit':>9}{'evaluations':>12}{'success':>9}{'least cost':>11}")
    for (name, (spent, _, nfev, success)), cost in zip(found.items(), costs, strict=True):
        near = np.mean(cost <= least * (1 + GOOD))
        print(f"{name:32}{spent * 1e6:9.0f}{np.mean(nfev):12.1f}{np.mean(success):9.2%}{near:11.2%}", flush=True)


def in_float32(count):
    """How many good fits say success, and whether a wrong one does; the judge is the minimum that float64 finds.

    A float64 solve begins where the float32 one ended, with the same data. Where it finds no minimum, the fit is not
    judged.
    """
    print(f"{'kind':8}{'judged':>8}{'good':>7}{'success':>9}{'wrong':>7}{'success':>9}   statuses")
    total = np.zeros(5, int)
    for name in fit_kinds.KINDS:
        work = Work.of(name, count, "float32")
        res = work.solved("float32")
        best = work.solved("float64", x0=res.x)
        gap = work.cost(res.x) / np.asarray(best.fun) - 1
        judged, success = np.asarray(best.success), np.asarray(res.success)
        good, wrong = judged & (gap <= GOOD), judged & ~(gap <= WRONG)
        row = np.array([np.sum(u) for u in (judged, good, good & success, wrong, wrong & success)])
        total += row
        statuses = collections.Counter(jaxmin.Status(int(code)).name for code in res.status)
        print(f"{name:8}" + _counts(row) + f"   {dict(statuses)}", flush=True)
    print(f"{'all':8}" + _counts(total))
    print(f"{total[2] / total[1]:.2%} of the good ones say success, {total[4]} of {total[3]} wrong ones do")


def _counts(row):
    return "".join(f"{n:>{width}}" for n, width in zip(row, (8, 7, 9, 7, 9), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nist", "peaks", "float32"))
    parser.add_argument("--solver", nargs="+", default=["jaxmin"], choices=SOLVERS)
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--fits", type=int, default=2000, help="of peaks, or of each kind")
    parser.add_argument("--peers", type=int, default=200, help="those of the peaks that SciPy and optimistix fit too")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    if options.what == "nist":
        regressions(options.solver, options.dtype)
    elif options.what == "peaks":
        peaks(options.fits, min(options.peers, options.fits), options.dtype)
    else:
        in_float32(options.fits)


if __name__ == "__main__":
    main()
