"""Evaluations of Powell's method against SciPy's, on the test problems from tests/problems.py, free and in a box.

    python benchmarks/powell.py

Both with their default tolerances, which are the same, in float64; jaxmin in float32 besides. The boxes hold the start
and cut the first coordinate off half-way to where SciPy's free solve ended.
"""

import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxmin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from problems import ALL

_AGREE = 1e-5  # ends as low as one another: their f differ by no more, relative to max(|f|, 1)


def scipy_solve(fun, x0, bounds):
    fun = jax.jit(fun)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's arithmetic with infinite values
        lifted = lambda x: float(jnp.nan_to_num(fun(jnp.asarray(x)), nan=jnp.inf))
        return scipy.optimize.minimize(lifted, x0, method="Powell", bounds=bounds)


def half_way(x0, x):
    """Bounds 10 around both points, and between them for the first coordinate."""
    low, high = np.minimum(x0, x) - 10, np.maximum(x0, x) + 10
    side = high if x[0] > x0[0] else low
    side[0] = (x0[0] + x[0]) / 2
    return list(zip(low, high))


def compare(boxed):
    ratios, lower, higher = [], 0, 0
    for name, problem in ALL.items():
        x0 = np.asarray(problem.x0, float)
        bounds = half_way(x0, scipy_solve(problem.fun, x0, None).x) if boxed else None
        theirs = scipy_solve(problem.fun, x0, bounds)
        ours, single = (
            jaxmin.minimize(problem.fun, x0.astype(dtype), method="powell", bounds=bounds)
            for dtype in ("float64", "float32")
        )
        difference = (float(ours.fun) - theirs.fun) / max(abs(theirs.fun), 1)
        lower, higher = lower + (difference < -_AGREE), higher + (difference > _AGREE)
        if abs(difference) <= _AGREE:
            ratios.append(int(ours.nfev) / theirs.nfev)
        figures = [(theirs.nfev, theirs.fun)] + [(int(res.nfev), float(res.fun)) for res in (ours, single)]
        ends = " ".join("ended" if success else "stopped" for success in (theirs.success, ours.success, single.success))
        print(f"{name:22}" + "".join(f"{nfev:7d} {f:11.3e}" for nfev, f in figures), ends, flush=True)
    mean = np.exp(np.mean(np.log(ratios)))
    print(f"as low as one another on {len(ratios)}, with {mean:.2f} of SciPy's evaluations (geometric mean)")
    print(f"jaxmin lower on {lower}, SciPy lower on {higher}\n")


def main():
    jax.config.update("jax_enable_x64", True)
    for boxed in (False, True):
        print(f"{'in a box' if boxed else 'free':22}{'SciPy':>19}{'jaxmin':>19}{'float32':>19}")
        compare(boxed)


if __name__ == "__main__":
    main()
