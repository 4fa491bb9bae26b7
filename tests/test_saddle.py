"""The extra-gradient method finds saddle points that descent and ascent leave."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PARTITIONS, along, each_dtype

from jaxmin import Status, minimize, transforms


def game(p):
    return p["x"] * p["y"]


ONES = {"x": 1.0, "y": 1.0}


def players(way, make=transforms.extra_gradient):
    return PARTITIONS[way]({"down": make(0.1), "up": make(-0.1)}, {"x": "down", "y": "up"})


@pytest.mark.parametrize("way", PARTITIONS)
def test_extra_gradient_finds_a_saddle_point(way):
    counts = [2, 4, 100, 1000, 2000, 15_000]
    res = along(counts, lambda k: minimize(game, ONES, method=players(way), options={"maxiter": k}))
    r = np.hypot(res.x["x"], res.x["y"])
    np.testing.assert_allclose(r[:5], [1.40720, 1.40021, 1.10279, 0.117566, 0.0097734], rtol=1e-5)
    assert r[3] < 0.12
    assert res.nit.tolist()[:5] == counts[:5] and res.nfev.tolist() == res.njev.tolist() == (res.nit + 1).tolist()
    assert res.status.tolist() == [Status.MAXITER] * 5 + [Status.CONVERGED]
    assert max(abs(res.x["x"][-1]), abs(res.x["y"][-1])) <= 1e-5  # the gradient norm, which the stop is by


def test_descent_and_ascent_go_away_from_it():
    res = minimize(game, ONES, method=players("jaxmin", transforms.sgd), options={"maxiter": 2000})
    assert np.hypot(res.x["x"], res.x["y"]) > 2e4 and not res.success


@pytest.mark.parametrize("way", PARTITIONS)
def test_what_one_group_does_depends_on_its_own_leaves_alone(way):
    def moved(y0, other):
        tx = PARTITIONS[way]({"a": transforms.extra_gradient(0.1), "b": other}, {"x": "a", "y": "b"})
        fun = lambda p: jnp.sum(jnp.cosh(p["x"])) - jnp.sum(p["y"] ** 2)
        return minimize(fun, {"x": jnp.ones(2), "y": y0}, method=tx, options={"maxiter": 5}).x

    one, two = moved(jnp.ones(3), transforms.sgd(-0.1)), moved(jnp.full(3, 5.0), pytest.importorskip("optax").adam(0.1))
    np.testing.assert_array_equal(one["x"], two["x"])
    assert not np.allclose(one["y"], two["y"])


@each_dtype
def test_extra_gradient_minimizes_too_at_two_gradients_a_step(dtype):
    fun = lambda x: jnp.sum((x - 1) ** 2 * jnp.arange(1, 4, dtype=dtype))
    res = minimize(fun, jnp.zeros(3, dtype), method="extra_gradient", options={"learning_rate": 0.1})
    assert res.status == Status.CONVERGED and res.njev == res.nfev == res.nit + 1
    x = np.zeros(3)
    for _ in range(res.nit // 2):
        x -= 0.2 * np.arange(1, 4) * (x - 0.2 * np.arange(1, 4) * (x - 1) - 1)
    if res.nit % 2:
        x -= 0.2 * np.arange(1, 4) * (x - 1)
    np.testing.assert_allclose(res.x, x, atol=1e-6)
    np.testing.assert_allclose(res.x, 1, atol=1e-5)


@pytest.mark.parametrize("way", PARTITIONS)
def test_a_state_saved_in_the_middle_of_a_pair_goes_on(way):
    tx, params = players(way), {"x": jnp.ones(()), "y": jnp.ones(())}
    iterates, state = [params], tx.init(params)
    for _ in range(4):
        updates, state = tx.update(jax.grad(game)(params), state, params)
        params = transforms.apply_updates(params, updates)
        iterates.append(params)
        if len(iterates) % 2 == 0:  # half-way
            leaves, tree = pickle.loads(pickle.dumps([np.asarray(a) for a in jax.tree.leaves(state)])), state
            state = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    radii = [np.hypot(p["x"], p["y"]) for p in iterates]
    np.testing.assert_allclose(radii[::2], [2**0.5, 1.40720, 1.40021], rtol=1e-5)
