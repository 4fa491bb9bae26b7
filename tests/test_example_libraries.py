"""Optimizers of jax.example_libraries are methods by name and as triples, and take their own loop's steps."""

import pickle

import jax
import jax.example_libraries.optimizers as library
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import START, along, assert_trees_close
from problems import OPTIMIZERS

from jaxmin import minimize, transforms
from jaxmin.transforms import from_triple

# By default three of them; the others with `pytest -m slow`.
_ALWAYS = ("sgd", "adam", "sm3")
each_optimizer = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.slow) for name in OPTIMIZERS]
)


def quadratic(params):
    leaves = jax.tree.leaves(params)
    return sum(curvature / 2 * jnp.sum((leaf - 1) ** 2) for curvature, leaf in enumerate(leaves, 1))


def nested(dtype="float64"):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {"w": draw(2, 2), "b": ((draw(2), draw()),)}


def eager(triple, count, state=None, first=0):
    """The library's own loop, not compiled: sm3's cannot be."""
    init, update, get_params = triple
    state, grad = init(nested()) if state is None else state, jax.jit(jax.grad(quadratic))
    for i in range(first, first + count):
        state = update(i, grad(get_params(state)), state)
    return state


@each_optimizer
def test_an_optimizer_of_the_library_is_a_method_by_name_and_as_a_triple(name):
    triple = getattr(library, name)(*OPTIMIZERS[name])
    state = eager(triple, 20)
    after20, loss200 = triple[2](state), quadratic(triple[2](eager(triple, 180, state, 20)))
    own = {"learning_rate": OPTIMIZERS[name][0]} | dict(zip(["mass"], OPTIMIZERS[name][1:]))
    for method, options in ((triple, {}), (name, own)):

        def solve(k, method=method, options=options):
            return minimize(quadratic, nested(), method=method, options=options | {"maxiter": k, "gtol": -1.0})

        res = along([20, 200], solve)
        assert_trees_close(jax.tree.map(lambda leaf: leaf[0], res.x), after20, rtol=1e-5)
        assert res.fun[1] <= 10 * loss200 + 1e-10
        assert res.nit.tolist() == [20, 200] and res.nfev.tolist() == [21, 201]


@library.optimizer
def signed(rate, decay):
    """A user's own: the sign of a moving average."""

    def init(x0):
        return x0, jnp.zeros_like(x0)

    def update(i, g, state):
        x, m = state
        m = decay * m + (1 - decay) * g
        return x - rate / (i + 1) * jnp.sign(m), m

    return init, update, lambda state: state[0]


def test_a_users_own_triple_is_a_method():
    triple = signed(0.5, 0.9)
    res = minimize(quadratic, nested(), method=triple, options={"maxiter": 20})
    assert res.nit == 20
    assert_trees_close(res.x, triple[2](eager(triple, 20)), rtol=1e-12)


def test_a_schedule_is_told_the_iteration_index():
    rate = transforms.piecewise_constant([0, 1], [0.5, 0.25, 0.125])
    for method, options in (("sgd", {"learning_rate": rate}), (library.sgd(rate), {}), (transforms.sgd(rate), {})):
        res = minimize(lambda x: 3 * x, 0.0, method=method, options=options | {"maxiter": 4})
        assert res.x == -3 * (0.5 + 0.25 + 0.125 + 0.125)


@pytest.mark.parametrize(("clip", "factor"), [(6.5, 0.5), (13, 1), (20.0, 1)])
def test_clip_shortens_the_gradient_of_all_leaves(clip, factor):
    slopes = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([12.0])}
    fun = lambda p: jnp.sum(p["a"] * slopes["a"]) + jnp.sum(p["b"] * slopes["b"])
    zero = jax.tree.map(jnp.zeros_like, slopes)
    res = minimize(fun, zero, method="sgd", options={"learning_rate": 1, "clip": clip, "maxiter": 1})
    assert_trees_close(res.x, jax.tree.map(lambda s: -factor * s, slopes), rtol=1e-15)
    assert_trees_close(res.jac, slopes, rtol=0)  # that of fun, not what the optimizer was given


def test_zero_gradients_under_clip_are_no_nan():
    options = {"learning_rate": 1.0, "clip": 1.0, "gtol": -1.0, "maxiter": 2}
    res = minimize(lambda x: 0 * jnp.sum(x), START, method="adam", options=options)
    np.testing.assert_array_equal(res.x, START)


@each_optimizer
def test_a_triples_state_can_be_packed_and_saved_and_goes_on(name):
    triple = getattr(library, name)(*OPTIMIZERS[name])
    tx, params, grad = from_triple(triple), nested(), jax.grad(quadratic)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(grad(params), state, params)
        return transforms.apply_updates(params, updates), state

    def go(count, params, state):
        for _ in range(count):
            params, state = step(params, state)
        return params, state

    whole, _ = go(7, params, tx.init(params))
    params, state = go(3, params, tx.init(params))
    theirs = state.rest.combine(state.arrays)
    again = library.pack_optimizer_state(library.unpack_optimizer_state(theirs))
    assert jax.tree.structure(again) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    leaves, tree = jax.tree.flatten(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    saved = pickle.loads(pickle.dumps([np.asarray(leaf) for leaf in leaves]))
    assert_trees_close(go(4, params, tree.unflatten(saved))[0], whole, rtol=1e-14)


def test_a_gradient_tree_that_a_triple_does_not_know_names_both_trees():
    tx, params, grads = from_triple(library.adam(0.1)), {"w": jnp.ones(2)}, {"bias": jnp.ones(2)}
    with pytest.raises(TypeError) as caught:
        tx.update(grads, tx.init(params), params)
    for tree in (grads, params):
        assert str(jax.tree.structure(tree)) in str(caught.value)
