"""Under vmap no lane of a batch changes another, over whatever differs between them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DTYPES

import jaxmin
from jaxmin import Bounds, minimize
from jaxmin._driver import batch as _batches

STARTS = np.random.default_rng(5).uniform(-2, 2, (8, 2))


def valley(x, steepness):
    return jnp.sum(steepness * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        # By default float32 for one of them; the others with `pytest -m slow`.
        pytest.param(method, dtype, marks=() if dtype == "float64" or method == "lbfgs" else pytest.mark.slow)
        for method in ("lbfgs", "bfgs", "cg", "trust_ncg", "nelder_mead")
        for dtype in DTYPES
    ],
)
def test_a_lane_that_takes_long_and_one_of_nan_change_no_other(method, dtype):
    solve = jax.jit(jax.vmap(lambda x, a: minimize(valley, x, (a,), method)))
    starts, steepness = STARTS.astype(dtype), np.ones(8, dtype)
    calm = solve(starts, steepness)
    hard = solve(starts, np.where(np.arange(8) == 3, 1e6, steepness).astype(dtype))
    broken = solve(np.where(np.arange(8)[:, None] == 3, np.nan, starts).astype(dtype), steepness)
    others = np.arange(8) != 3
    for other in (hard, broken):
        for one, two in zip(jax.tree.leaves(calm), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(one[others], two[others])
    if method != "nelder_mead":
        assert broken.status[3] == 3
    assert hard.nfev[3] > (2 if method == "nelder_mead" else 5) * calm.nfev[3]  # which stops at 200 n


def test_nested():
    weights = np.array([1.0, 3.0, 10.0])
    one = jax.vmap(jax.vmap(lambda x, a: minimize(valley, x, (a,)), (0, None)), (None, 0))(STARTS, weights)
    two = jax.vmap(lambda x: jax.vmap(lambda a: minimize(valley, x, (a,)))(weights))(STARTS)
    assert one.x.shape == (3, 8, 2) and one.success.all()
    np.testing.assert_allclose(one.x, np.swapaxes(two.x, 0, 1), atol=1e-4)
    np.testing.assert_array_equal(one.status, two.status.T)


@pytest.fixture
def small_blocks(monkeypatch):
    """As if a cache held no more than a few lanes."""
    sizes = []
    fold = _batches._folded

    def folded(leaf, blocks, lanes):
        sizes.append((blocks, lanes))
        return fold(leaf, blocks, lanes)

    monkeypatch.setattr(_batches, "_BLOCK", 3000)
    monkeypatch.setattr(_batches, "_BLOCK_MAX", 3000)
    monkeypatch.setattr(_batches, "_folded", folded)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    return sizes


SLOWLY = (pytest.param(name, marks=pytest.mark.slow) for name in ("bfgs", "cg", "newton_cg"))


@pytest.mark.parametrize("method", ("lbfgs", "trust_ncg", "nelder_mead", *SLOWLY))
def test_blocks_of_lanes_that_wait_for_each_other_give_what_each_gives_alone(small_blocks, method):
    def bowl(x, a, b):
        return jnp.sum(a * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2) + b["shift"] * jnp.sum(x)

    starts = np.random.default_rng(7).uniform(-2, 2, (23, 2))
    steepness = np.where(np.arange(23) % 5, 2.0, 300.0)
    # Along cg's path a rounding grows tenfold every three evaluations.
    options = {"history": 3, "maxiter": 12 if method == "cg" else 200}
    solve = jax.jit(lambda x, a, b: minimize(bowl, x, (a, b), method, options=options))
    batch = jax.vmap(solve, (0, 0, None))(starts, steepness, {"shift": 0.1})
    assert len(set(batch.nfev.tolist())) > 3
    assert small_blocks and all(blocks > 1 and blocks * lanes >= 23 for blocks, lanes in small_blocks)
    for i in (0, 1, 11, 22):
        one = solve(starts[i], steepness[i], {"shift": 0.1})
        for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(batch), strict=True):
            np.testing.assert_allclose(ours, theirs[i], rtol=1e-6, atol=1e-9)


def test_blocks_in_blocks(small_blocks):
    def bowl(x, a, c):
        return jnp.sum(jnp.cosh(x - a)) + c * jnp.sum(x**2)

    starts, shifts, weights = np.ones((7, 3)), np.linspace(0, 1, 5), np.linspace(1, 2, 2)
    solve = lambda x, a, c: minimize(bowl, x, (a, c)).x
    over_x = jax.vmap(solve, (0, None, None))
    over_all = jax.jit(jax.vmap(jax.vmap(over_x, (None, 0, None)), (None, None, 0)))
    x = over_all(starts, shifts, weights)
    assert x.shape == (2, 5, 7, 3) and small_blocks
    np.testing.assert_allclose(x[1, 3, 2], solve(starts[2], shifts[3], weights[1]), atol=1e-7)


def test_derivatives_through_blocks(small_blocks):
    starts = np.ones((30, 2))
    solve = lambda x, a: minimize(lambda x, a: jnp.sum((x - a) ** 2 + x**4 / 8), x, (a,)).x[0]
    slope = jax.vmap(jax.grad(solve, 1), (0, None))(starts, 1.0)
    assert small_blocks
    np.testing.assert_allclose(slope, jax.grad(solve, 1)(starts[0], 1.0), rtol=1e-6)
    total = jax.grad(lambda a: jnp.sum(jax.vmap(solve, (0, None))(starts, a)))(1.0)
    np.testing.assert_allclose(total, np.sum(slope), rtol=1e-6)


def _method_with(kind, c):
    """A method that got hold of c in one of many ways; c is 1."""
    plain = jaxmin.bfgs()
    if kind == "a partial":
        return plain._replace(update=partial(lambda c, *a, **k: plain.update(a[0] * c, *a[1:], **k), c))
    if kind == "a default":
        return plain._replace(update=lambda g, s, x, /, *, value, box=None, c=c: plain.update(g * c, s, x, value=value))
    if kind == "a line search":
        search = jaxmin.backtracking()
        return jaxmin.bfgs(linesearch=search._replace(init=lambda start, t: search.init(start, t * c)))
    if kind == "a dictionary of mixed keys":
        known = {1: c, "a": c}
        return plain._replace(update=lambda g, s, x, /, **k: plain.update(g * known[1], s, x, **k))
    return plain._replace(update=lambda g, s, x, /, *, value, **k: plain.update(g * c, s, x, value=value))


@pytest.mark.parametrize("kind", ("a closure", "a partial", "a default", "a line search", "a dictionary of mixed keys"))
def test_a_method_of_ones_own_may_hold_what_is_batched(kind):
    """And keeps its inverse Hessian when its lane has ended."""
    solve = lambda x, c: minimize(valley, x, (3.0,), method=_method_with(kind, c))
    batch = jax.vmap(solve)(STARTS, np.ones(8))
    for i in (0, 4, 7):
        one = solve(STARTS[i], 1.0)
        assert one.nfev == batch.nfev[i]
        np.testing.assert_allclose(batch.hess_inv[i], one.hess_inv, rtol=1e-6)


def test_a_method_made_of_a_method():
    class State(NamedTuple):
        trial: Any
        iterate: Any
        accepted: Any
        nit: Any
        status: Any
        inner: Any

    def around(inner):
        return State(inner.trial, inner.iterate, inner.accepted, inner.nit, inner.status, inner)

    plain = jaxmin.cg()

    def update(g, state, x, /, *, value, **_):
        step, inner = plain.update(g, state.inner, x, value=value)
        return step, around(inner)

    solve = lambda x: minimize(valley, x, (3.0,), method=jaxmin.Method(lambda x: around(plain.init(x)), update))
    np.testing.assert_allclose(jax.vmap(solve)(STARTS).x[3], solve(STARTS[3]).x, rtol=1e-9)


def test_no_lanes_at_all():
    res = jax.vmap(lambda x: minimize(valley, x, (3.0,)))(np.zeros((0, 2)))
    assert res.x.shape == (0, 2) and res.status.shape == (0,)


@pytest.mark.parametrize("where", ("fun", "hess"))
def test_the_axis_of_a_batch_may_be_named(where):
    index = lambda at: 0 * jax.lax.axis_index("lanes") if where == at else 0
    fun = lambda x: jnp.sum((x - 1) ** 2) + index("fun")
    hess = lambda x: 2 * jnp.eye(2) + index("hess")
    solve = lambda x: minimize(fun, x, method="trust_exact", hess=hess).x
    np.testing.assert_allclose(jax.vmap(solve, axis_name="lanes")(STARTS), np.ones((8, 2)), atol=1e-6)


def test_lanes_too_large_for_a_cache_stay_together(small_blocks):
    fun = lambda x, a: jnp.sum((x - a) ** 2)
    x = jax.vmap(lambda x, a: minimize(fun, x, (a,)).x)(np.ones((6, 200)), np.arange(6.0))
    assert not small_blocks
    np.testing.assert_allclose(x[:, 7], np.arange(6), atol=1e-6)


OVER = {
    "x0": (lambda x, a, u, t: minimize(valley, x, (3.0,)), (0, None, None, None)),
    "x0, by columns": (lambda x, a, u, t: minimize(valley, x, (3.0,)), (1, None, None, None)),
    "args": (lambda x, a, u, t: minimize(valley, x[0], (a,)), (None, 0, None, None)),
    "upper bounds": (
        lambda x, a, u, t: minimize(valley, x[0], (3.0,), bounds=Bounds(-np.inf, u)),
        (None, None, 0, None),
    ),
    "pairs of bounds": (
        lambda x, a, u, t: minimize(valley, x[0], (3.0,), bounds=[(None, u), (-1, None)]),
        (None, None, 0, None),
    ),
    "tolerances": (lambda x, a, u, t: minimize(valley, x[0], (3.0,), options={"gtol": t}), (None, None, None, 0)),
    "limits": (
        lambda x, a, u, t: minimize(valley, x[0], (3.0,), options={"maxiter": jnp.round(5 + 5 * u)}),
        (None, None, 0, None),
    ),
    "a closure": (lambda x, a, u, t: minimize(lambda x: valley(x, a), x[0]), (None, 0, None, None)),
    "all": (
        lambda x, a, u, t: minimize(valley, x, (a,), "bfgs", bounds=Bounds(-np.inf, u), tol=t),
        (0, 0, 0, 0),
    ),
}


@pytest.mark.parametrize("over", OVER)
def test_over(over):
    solve, axes = OVER[over]
    given = STARTS, np.linspace(1, 9, 8), np.linspace(0.2, 2, 8), np.geomspace(1e-8, 1e-2, 8)
    given = (given[0].T if axes[0] == 1 else given[0], *given[1:])
    lanes = jax.vmap(solve, axes)(*given)
    for i in range(8):
        alone = solve(*(u if axis is None else np.take(u, i, axis) for u, axis in zip(given, axes)))
        lane = jax.tree.map(lambda u, i=i: u[i], lanes)
        assert (lane.status, lane.nit, lane.nfev) == (alone.status, alone.nit, alone.nfev)
        np.testing.assert_allclose(lane.x, alone.x, rtol=1e-8, atol=1e-10)
