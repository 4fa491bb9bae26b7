"""Starts are even in their bounds, the same for the same key, and drawn under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype

import jaxmin
from jaxmin import Bounds, starts
from jaxmin._api import sobol

KEY = jax.random.key(0)
PAIRS = [(-2, 2), (0, 10), (5, 5)]
each_kind = pytest.mark.parametrize("kind", ["sobol", "latin", "normal"])
each_even_kind = pytest.mark.parametrize("kind", ["sobol", "latin"])


def strata(points, n):
    """In which of n equal parts of [0, 1] each point lies, sorted for each variable."""
    return np.sort(np.floor(np.asarray(points) * n).astype(int), axis=0)


def unit(d):
    return Bounds(jnp.zeros(d), jnp.ones(d))


# ---- what is even


@pytest.mark.parametrize(("kind", "n"), [("latin", 1), ("latin", 37), ("latin", 64), ("sobol", 64), ("sobol", 1024)])
@pytest.mark.parametrize("seed", range(3))
def test_each_stratum_is_hit_once(kind, n, seed):
    points = starts(jax.random.key(seed), unit(20), n, kind)
    np.testing.assert_array_equal(strata(points, n), np.tile(np.arange(n)[:, None], 20))


def test_sobol_points_are_even_in_two_dimensions():
    """Of 64 points each of 8 x 8 squares holds one: for the first two dimensions, whatever the scrambling."""
    for seed in range(5):
        cells = np.floor(np.asarray(starts(jax.random.key(seed), unit(2), 64)) * 8).astype(int)
        assert len({tuple(cell) for cell in cells}) == 64


@each_even_kind
@pytest.mark.parametrize("d", [2, 5])
def test_the_discrepancy_is_below_that_of_uniform_draws(kind, d):
    qmc = pytest.importorskip("scipy.stats").qmc
    ours = [qmc.discrepancy(np.asarray(starts(jax.random.key(seed), unit(d), 128, kind))) for seed in range(5)]
    uniform = [qmc.discrepancy(np.random.default_rng(seed).uniform(size=(128, d))) for seed in range(5)]
    assert max(ours) < min(uniform)
    if kind == "sobol":
        theirs = [qmc.discrepancy(qmc.Sobol(d, rng=seed).random(128)) for seed in range(5)]
        assert np.mean(ours) < 1.5 * np.mean(theirs)


def test_the_direction_numbers_are_those_of_scipy():
    """The first 2^k points without scrambling, as a set: SciPy has them in the order of Gray's code."""
    qmc = pytest.importorskip("scipy.stats").qmc
    theirs = qmc.Sobol(sobol.DIMENSIONS, scramble=False).random(256)
    ours = np.zeros((256, sobol.DIMENSIONS), np.uint32)
    for j in range(8):
        ours ^= np.where((np.arange(256) >> j & 1)[:, None] == 1, sobol.directions(sobol.DIMENSIONS)[:, j], 0)
    order = lambda points: points[np.lexsort(points.T)]
    np.testing.assert_array_equal(order(ours / 2.0**32), order(theirs))


def test_normal_draws_have_their_mean_and_scale():
    bounds = Bounds(jnp.array([-100.0, 0.0]), jnp.array([100.0, 1.0]))
    points = starts(KEY, bounds, 4000, "normal", mean=jnp.array([3.0, 0.5]), scale=jnp.array([2.0, 100.0]))
    np.testing.assert_allclose(points.mean(0), [3, 0.5], atol=0.15)
    np.testing.assert_allclose(points.std(0), [2, 12**-0.5], rtol=0.1)  # the second is all but uniform
    free = starts(KEY, None, 4000, "normal", mean={"w": jnp.ones(3)}, scale=2.0)
    assert free["w"].shape == (4000, 3) and abs(float(free["w"].std()) - 2) < 0.1
    default = starts(KEY, [(0, 8)], 4000, "normal")
    np.testing.assert_allclose(default.mean(), 4, atol=0.2)
    np.testing.assert_allclose(default.std(), 2 * 0.88, rtol=0.1)  # a normal cut at two deviations has 0.88 of one


# ---- what is drawn


@each_kind
@each_dtype
def test_points_are_in_their_bounds_and_dtype(kind, dtype):
    low, high = (jnp.array(side, dtype) for side in ([-1e-3, 1e6, 5.0], [1e3, 1e6 + 1, 5.0]))
    points = starts(KEY, Bounds(low, high), 500, kind)
    assert points.shape == (500, 3) and points.dtype == dtype
    assert bool(jnp.all((low[None] <= points) & (points <= high[None])))
    assert bool(jnp.all(points[:, 2] == 5)) and bool(jnp.all(jnp.ptp(points[:, :2], axis=0) > 0.5))


@each_kind
def test_the_same_key_gives_the_same_points_also_under_jit_and_vmap(kind):
    draw = lambda key, low: starts(key, Bounds(low, 3.0), 16, kind)
    low, keys = jnp.array([0.0, -1.0]), jax.random.split(KEY, 4)
    one = draw(KEY, low)
    np.testing.assert_array_equal(one, draw(KEY, low))
    np.testing.assert_allclose(one, jax.jit(draw)(KEY, low), rtol=1e-12)
    assert not np.any(one == draw(keys[1], low))
    many = jax.vmap(draw, (0, None))(keys, low)
    np.testing.assert_allclose(many, [draw(key, low) for key in keys], rtol=1e-12)
    static = jax.jit(starts, static_argnums=(2, 3))(KEY, Bounds(low, 3.0), 16, kind)
    np.testing.assert_allclose(one, static, rtol=1e-12)


@each_kind
def test_pytrees(kind):
    tree = Bounds({"w": jnp.zeros((2, 3), "float32"), "b": -1.0}, {"w": jnp.ones((2, 3), "float32"), "b": 2})
    points = starts(KEY, tree, 8, kind)
    assert points["w"].shape == (8, 2, 3) and points["b"].shape == (8,)
    assert points["w"].dtype == jnp.float32 and points["b"].dtype == jnp.float64
    shared = starts(KEY, Bounds(tree.lower, 5.0), 8, kind)
    assert jax.tree.structure(shared) == jax.tree.structure(points)
    assert starts(KEY, Bounds(0.0, 1.0), 8, kind).shape == (8,)


@each_kind
def test_forms_of_bounds_agree(kind):
    optimize = pytest.importorskip("scipy.optimize")
    forms = [
        [(0, 1), (2, 4)],
        np.array([[0.0, 1.0], [2.0, 4.0]]),
        Bounds([0, 2], [1, 4]),
        optimize.Bounds([0, 2], [1, 4]),
    ]
    points = [starts(KEY, bounds, 8, kind) for bounds in forms]
    assert points[0].shape == (8, 2)
    for other in points[1:]:
        np.testing.assert_array_equal(points[0], other)


def test_they_find_the_best_of_many_minima():
    def rastrigin(x):
        return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    points = starts(KEY, [(-5.12, 5.12)] * 2, 256)
    res = jaxmin.minimize_many(rastrigin, points, best_of=256)
    assert res.success.all() and res.fun[0] < 1e-8


# ---- what is refused

BAD = {
    "no key": (TypeError, "jax.random.key", lambda: starts(0, PAIRS, 4)),
    "n": (ValueError, "n=0", lambda: starts(KEY, PAIRS, 0)),
    "kind": (ValueError, "'sobol', 'latin', 'normal'", lambda: starts(KEY, PAIRS, 4, "halton")),
    "no bounds": (ValueError, "finite", lambda: starts(KEY, None, 4)),
    "half open": (ValueError, "finite", lambda: starts(KEY, [(0, None)], 4, "latin")),
    "normal without a scale": (ValueError, "finite", lambda: starts(KEY, [(0, None)], 4, "normal", mean=1.0)),
    "crossed": (ValueError, "above", lambda: starts(KEY, [(1, 0)], 4)),
    "no pairs": (ValueError, "pairs", lambda: starts(KEY, [1, 2], 4)),
    "words": (TypeError, "real number", lambda: starts(KEY, Bounds("a", 1.0), 4)),
    "complex": (TypeError, "real number", lambda: starts(KEY, Bounds(0.0, 1j), 4)),
    "shapes": (ValueError, "shape", lambda: starts(KEY, Bounds(jnp.zeros(2), jnp.ones(3)), 4)),
    "trees": (ValueError, "built as", lambda: starts(KEY, Bounds({"a": 0.0}, {"b": 1.0}), 4)),
    "a set": (TypeError, "set", lambda: starts(KEY, jaxmin.sets.simplex(), 4)),
    "many variables": (ValueError, "37", lambda: starts(KEY, [(0, 1)] * 38, 4)),
    "a mean for another kind": (ValueError, "normal", lambda: starts(KEY, PAIRS, 4, mean=0.0)),
    "a negative scale": (ValueError, "negative", lambda: starts(KEY, PAIRS, 4, "normal", scale=-1.0)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_right_is_refused(name):
    kind, words, call = BAD[name]
    with pytest.raises(kind, match=words):
        call()


@each_kind
def test_traced_bounds_without_an_inside_give_nan(kind):
    points = jax.jit(lambda low: starts(KEY, Bounds(low, 1.0), 4, kind))(jnp.array([0.0, 2.0]))
    assert np.isfinite(points[:, 0]).all() and np.isnan(points[:, 1]).all()


@each_kind
def test_known_bounds_are_checked_under_jit(kind):
    with pytest.raises(ValueError, match="above"):
        jax.jit(lambda key: starts(key, [(1, 0)], 4, kind))(KEY)
    with pytest.raises(ValueError, match="finite"):
        jax.jit(lambda key: starts(key, [(1, None)], 4, kind))(KEY)


def test_the_dtype_is_also_that_of_the_mean():
    assert starts(KEY, None, 4, "normal", mean=jnp.zeros(2, "float32"), scale=1.0).dtype == jnp.float32
