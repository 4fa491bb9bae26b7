"""An Equinox module as x0 comes back whole, with its static leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import along, assert_trees_close, mostly_float64

from jaxmin import minimize

eqx = pytest.importorskip("equinox")

# ---- a model with static leaves, an equation solved inside


class Decay(eqx.Module):
    """y' = network(y) - gamma, by Euler's rule from y = 0."""

    mlp: eqx.nn.MLP
    log_gamma: jax.Array
    note: None
    solver: str
    steps: int = eqx.field(static=True)

    def __call__(self, ts):
        def step(y, dt):
            y = y + dt * (self.mlp(y) - jnp.exp(self.log_gamma))
            return y, y

        y0 = jnp.zeros(1, ts.dtype)
        return jnp.append(y0, jax.lax.scan(step, y0, jnp.diff(ts))[1])


def misfit(model, ts, ys):
    return jnp.mean((model(ts) - ys) ** 2)


def decay(dtype):
    """The model, and the data: 1 - e^-t at 31 times."""
    mlp = eqx.nn.MLP(1, 1, 5, 2, activation=jnp.tanh, dtype=dtype, key=jax.random.key(0))
    ts = jnp.linspace(0, 3, 31, dtype=dtype)
    return Decay(mlp, jnp.full(1, -3, dtype), None, "euler", 30), (ts, 1 - jnp.exp(-ts))


@functools.cache
def fitted(search, dtype):
    """The fit stopped after 0, 1, …, 100 iterations."""
    model, data = decay(dtype)

    def solve(maxiter):
        options = {"maxiter": maxiter, "gtol": -1.0}
        return minimize(misfit, model, data, "lbfgs", linesearch=search, options=options)

    return along(range(101), lambda maxiter: eqx.filter(solve(maxiter), eqx.is_array))


@mostly_float64
@pytest.mark.parametrize("search", ("backtracking", "wolfe"))
def test_a_network_in_an_equation_is_fitted(search, dtype):
    history = fitted(search, dtype)
    assert history.fun[-1] <= 1e-6 < 1e-3 < history.fun[0]
    assert history.nit[-1] <= 100 and history.nit[-1] < history.nfev[-1] < 200
    # No rise but by rounding, which at 1e-10, of residuals in float32, is some thousandths.
    above_floor = np.asarray(history.fun) > 1e-9
    assert (np.diff(history.fun)[above_floor[1:]] <= 0).all()
    assert (history.fun <= 1.01 * np.minimum.accumulate(history.fun)).all()


def test_a_module_goes_in_whole_and_comes_back_with_its_static_leaves():
    model, data = decay("float32")
    for solve in (minimize, eqx.filter_jit(minimize)):
        res = solve(misfit, model, data)
        assert jax.tree.structure(res.x) == jax.tree.structure(model)
        assert (res.x.solver, res.x.note, res.x.steps) == ("euler", None, 30)
        assert res.x.mlp.activation is model.mlp.activation
        np.testing.assert_allclose(misfit(res.x, *data), res.fun, rtol=1e-4)
    params, static = eqx.partition(model, eqx.is_array)
    apart = minimize(lambda params, *data: misfit(eqx.combine(params, static), *data), params, data)
    assert_trees_close(apart.x, eqx.filter(res.x, eqx.is_array), rtol=1e-3, atol=1e-4)


def test_a_transformation_sees_the_arrays_of_a_module_alone():
    optax = pytest.importorskip("optax")
    model, data = decay("float64")
    seen, adam = [], optax.adam(1e-2)
    noting = optax.GradientTransformation(lambda params: seen.append(params) or adam.init(params), adam.update)
    res = minimize(misfit, model, data, noting, options={"maxiter": 3})
    arrays = eqx.filter(model, eqx.is_array)
    assert {jax.tree.structure(params) for params in seen} == {jax.tree.structure(arrays)}
    value_and_grad, state = eqx.filter_jit(eqx.filter_value_and_grad(misfit)), adam.init(arrays)
    for _ in range(3):
        _, grads = value_and_grad(model, *data)
        updates, state = adam.update(grads, state)
        model = eqx.apply_updates(model, updates)
    assert_trees_close(eqx.filter(res.x, eqx.is_array), eqx.filter(model, eqx.is_array), rtol=1e-10)


def test_a_loop_without_a_reverse_mode_is_jaxs_own_error():
    model, data = decay("float64")

    def forward_only(model, ts, ys):
        return jax.lax.while_loop(lambda c: c < 3, lambda c: c * (2 + model.log_gamma[0] ** 2), misfit(model, ts, ys))

    with pytest.raises(ValueError, match=r"Reverse-mode differentiation does not work for lax.while_loop"):
        minimize(forward_only, model, data)
