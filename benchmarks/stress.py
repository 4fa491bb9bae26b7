"""False claims of success: thousands of hard solves by every method, judged by themselves in float64.

    python benchmarks/stress.py
    python benchmarks/stress.py --kinds quadratic units --methods lbfgs bfgs --each 50 --jsonl stress.jsonl

A claim is right where f is within 1e-3 of the least f, in units of the problem, or where the gradient, without the
variables that a bound holds, is within gtol up to the rounding of the dtype. Each other claim is false, and printed.
A method without gradients claims no more than that the last values of f, and the last points, lie close together. That
need not be at a minimum, so such methods are not run by default.
"""

import argparse
from typing import Any, NamedTuple

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import records

import jaxmin
from jaxmin._cache.registry import entries

GAP = 1e-3
GTOL = 1e-5
DTYPES = ("float64", "float32")


class Kind(NamedTuple):
    fun: Any  # (x, data) -> f
    x0: Any  # [problems, n]
    data: Any  # a tuple of arrays [problems, ...]
    least: Any  # [problems] the least f, or a bound below it
    scale: Any = 1.0  # [problems] or a number: the unit of f
    bounds: Any = None  # (lower, upper), numbers
    gtol: float = GTOL


def rotation(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def quadratic(rng, count):
    """Condition numbers up to 1e14, six variables, in a random basis."""
    roots = []
    for condition in np.linspace(0, 14, count):
        roots.append(np.sqrt(np.logspace(0, condition, 6))[:, None] * rotation(rng, 6) / 10 ** (condition / 4))
    fun = lambda x, data: 0.5 * jnp.sum((data[0] @ (x - data[1])) ** 2)
    return Kind(fun, rng.standard_normal((count, 6)), (np.array(roots), rng.standard_normal((count, 6))), 0.0)


def valley(rng, count):
    """Rosenbrock's function, its valley up to 1e8 times as steep as it is long."""
    fun = lambda x, data: data[0] * jnp.sum((x[1:] - x[:-1] ** 2) ** 2) + jnp.sum((1 - x[:-1]) ** 2)
    return Kind(fun, rng.uniform(-2, 2, (count, 4)), (np.logspace(0, 8, count),), 0.0)


def separable(rng, count):
    """Logistic regression on data that a plane separates: the minimum is at infinity."""
    rows = rng.standard_normal((count, 40, 3))
    labels = np.sign(np.einsum("ijk,ik->ij", rows, rng.standard_normal((count, 3))))
    fun = lambda w, data: jnp.mean(jnp.logaddexp(0, -data[1] * (data[0] @ w)))
    return Kind(fun, np.zeros((count, 3)), (rows, labels), 0.0)


def power(rng, count):
    """|x - c|^p for p from 1.2 to 8."""
    fun = lambda x, data: jnp.sum(jnp.abs(x - data[1]) ** data[0])
    return Kind(fun, rng.uniform(-3, 3, (count, 3)), (np.linspace(1.2, 8, count), rng.uniform(-1, 1, (count, 3))), 0.0)


def plateau(rng, count):
    """A well in a plain that is nearly flat."""
    fun = lambda x, data: -jnp.exp(-0.5 * jnp.sum((x - data[0]) ** 2)) + 1e-3 * jnp.sum((x - data[0]) ** 2)
    return Kind(fun, rng.uniform(-4, 4, (count, 2)), (rng.uniform(-1, 1, (count, 2)),), -1.0)


def cliff(rng, count):
    """An exponential wall beside a gentle slope."""
    fun = lambda x, data: ((x[0] - 3) / 100) ** 2 - (x[0] - x[1]) + jnp.exp(data[0] * (x[0] - x[1]))
    k = np.linspace(1, 30, count)
    return Kind(fun, rng.uniform(-1, 1, (count, 2)), (k,), (1 + np.log(k)) / k)


def barrier(rng, count):
    """Logarithmic barriers; f is NaN behind them."""
    mu, a = 10 ** rng.uniform(-6, 2, (count, 3)), 10 ** rng.uniform(-1, 1, (count, 3))
    fun = lambda x, data: jnp.sum(data[1] * x) - jnp.sum(data[0] * jnp.log(x))
    return Kind(fun, rng.uniform(0.1, 5, (count, 3)), (mu, a), np.sum(mu - mu * np.log(mu / a), axis=1))


def noise(rng, count):
    """Ripples far below the size of f, which no gradient shows."""
    fun = lambda x, data: jnp.sum((x - data[1]) ** 2) + data[0] * jnp.round(jnp.sum(jnp.sin(1e4 * x)), 3)
    height = 10 ** rng.uniform(-9, -4, count)
    return Kind(fun, rng.standard_normal((count, 3)), (height, rng.standard_normal((count, 3))), -3e-4)


def units(rng, count):
    """f in units from 1e-10 to 1e10, x in others."""
    of_f, of_x = 10 ** rng.uniform(-10, 10, count), 10 ** rng.uniform(-10, 10, count)

    def fun(x, data):
        of_f, of_x, shift = data
        z = x / of_x - shift
        return of_f * (jnp.sum(z**2) + z[0] * z[1] + jnp.sum(z**4))

    shift = rng.standard_normal((count, 2))
    return Kind(fun, of_x[:, None] * rng.standard_normal((count, 2)), (of_f, of_x, shift), 0.0, of_f)


def bounded(rng, count):
    """Quadratics in a box that holds some of the variables."""
    kind = quadratic(rng, count)
    center = 2 * rng.standard_normal((count, 6))
    return kind._replace(x0=np.clip(kind.x0, 0, 1), data=(kind.data[0], center), least=-np.inf, bounds=(0.0, 1.0))


def near_bound(rng, count):
    """A steep bowl whose minimum is nearer to the bound than gtol."""
    fun = lambda x, data: jnp.sum(1e8 * (x - data[0]) ** 2)
    center = 10 ** rng.uniform(-7, -5, (count, 2))
    return Kind(fun, 10 ** rng.uniform(-7, -4, (count, 2)), (center,), 0.0, bounds=(0.0, 1.0))


KINDS = {
    function.__name__: function
    for function in (
        quadratic, valley, separable, power, plateau, cliff, barrier, noise, units, bounded, near_bound,
    )
}  # fmt: skip


def solved(kind, method, dtype):
    """x, f, status and success of all problems of a kind, in one batch."""
    cast = lambda leaf: np.asarray(leaf, dtype)
    bounds = None if kind.bounds is None else jaxmin.Bounds(*kind.bounds)
    solve = lambda x0, data: jaxmin.minimize(kind.fun, x0, (data,), method, bounds=bounds)
    return jax.jit(jax.vmap(solve))(cast(kind.x0), tuple(map(cast, kind.data)))


def is_right(kind, res, dtype):
    """Whether the answers may say success, [problems] bool."""
    data = tuple(np.asarray(np.asarray(leaf, dtype), np.float64) for leaf in kind.data)
    x = np.asarray(res.x, np.float64)
    f, g = map(np.asarray, jax.vmap(jax.value_and_grad(kind.fun))(x, data))
    if kind.bounds is not None:
        lower, upper = kind.bounds
        g = np.where(((x <= lower) & (g >= 0)) | ((x >= upper) & (g <= 0)), 0, g)
    size = np.abs(g).max(axis=1)
    eps = float(np.finfo(dtype).eps)
    # How far the rounding of x moves the gradient: that of x changed by one unit in the last place.
    moved = np.asarray(jax.vmap(jax.grad(kind.fun))(x * (1 + eps), data))
    rounding = np.abs(moved - np.asarray(jax.vmap(jax.grad(kind.fun))(x, data))).max(axis=1)
    flat = size <= 1.01 * kind.gtol * np.maximum(1, np.abs(f)) + (0 if dtype == "float64" else 4 * rounding)
    return (f - kind.least <= GAP * np.maximum(kind.scale, np.abs(kind.least))) | flat


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    every = entries("methods")
    default = [name for name, entry in every.items() if "grad" in entry.build().wants]
    parser.add_argument("--methods", nargs="+", default=default, choices=every)
    parser.add_argument("--each", type=int, default=20, help="problems of each kind")
    records.add_option(parser)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    file = records.Writer(options.jsonl, records.setting(each=options.each))
    print(f"{'kind':<12}{'method':<18}{'dtype':<9}{'solves':>7}{'success':>9}{'right':>7}{'false':>7}")
    solves = claims = false = 0
    for name in options.kinds:
        kind = KINDS[name](np.random.default_rng(0), options.each)
        for method in options.methods:
            if kind.bounds is not None and "box" not in entries("methods")[method].build().wants:
                continue
            for dtype in DTYPES:
                res = solved(kind, method, dtype)
                success, right = np.asarray(res.success), is_right(kind, res, dtype)
                wrong = np.flatnonzero(success & ~right)
                row = {"solves": success.size, "success": int(success.sum()), "right": int(right.sum())}
                row |= {"false": wrong.size, "which": wrong.tolist()}
                file.write({"kind": name, "method": method, "dtype": dtype, **row})
                counts = f"{row['solves']:>7}{row['success']:>9}{row['right']:>7}{row['false']:>7}"
                print(f"{name:<12}{method:<18}{dtype:<9}{counts}", flush=True)
                for i in wrong:
                    one = jax.tree.map(lambda leaf, i=i: leaf[i], res)
                    print(f"    {i}: x = {np.asarray(one.x)}, fun = {float(one.fun):.6g}. {one.message}")
                solves, claims, false = solves + success.size, claims + row["success"], false + row["false"]
        jax.clear_caches()
    print(f"{solves} solves, {claims} claims of success, {false} false")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
