"""NNX modules and Linen's parameters can be x0, and methods of jaxmin run in NNX's optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import START, assert_trees_close, mostly_float64
from problems import rosenbrock

import jaxmin
from jaxmin import minimize, transforms

flax = pytest.importorskip("flax")
linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")


class Offset(nnx.Variable):
    pass


class Count(nnx.Variable):
    pass


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear1 = nnx.Linear(2, 3, rngs=rngs)
        self.linear2 = nnx.Linear(3, 4, rngs=rngs)
        self.offset = Offset(jnp.zeros(4, "float32"))

    def __call__(self, x):
        return self.linear2(self.linear1(x)) + self.offset[...][None]


def net_data(dtype="float32"):
    return jax.random.normal(jax.random.key(0), (1, 2), "float32").astype(dtype), jnp.ones((1, 4), dtype)


def net_loss(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


def changed(before, after):
    """Whether each part of the model is another: the offset, the first and the second layer."""
    parts = [lambda m: m.offset[...], lambda m: m.linear1.kernel[...], lambda m: m.linear2.kernel[...]]
    return [not np.array_equal(part(before), part(after)) for part in parts]


FILTERS = {
    "default": (None, [False, True, True]),
    "Param": (nnx.Param, [False, True, True]),
    "Offset": (Offset, [True, False, False]),
    "both": ((nnx.Param, Offset), [True, True, True]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_filter_says_which_variables_of_an_nnx_module_vary(name):
    wrt, mask = FILTERS[name]
    model, data = Net(), net_data()
    before = nnx.clone(model)
    res = minimize(net_loss, model, data, options={} if wrt is None else {"wrt": wrt})
    assert isinstance(res.x, Net) and changed(model, res.x) == mask and not any(changed(model, before))
    assert res.fun <= 1e-6 and res.nit <= 15
    np.testing.assert_allclose(net_loss(res.x, *data), res.fun, atol=1e-9)


@mostly_float64
def test_a_state_that_was_split_off_merges_back(dtype):
    model, data = Net(), net_data(dtype)
    graph, *states = nnx.split(model, nnx.Param, ...)
    params, rest = jax.tree.map(lambda leaf: leaf.astype(dtype), states)
    loss = lambda params, *data: net_loss(nnx.merge(graph, params, rest), *data)
    np.testing.assert_allclose(loss(params, *data), 2.3359997, rtol=1e-5)
    res = minimize(loss, params, data)
    assert res.fun <= 1e-6 and res.nit <= 15
    merged = nnx.merge(graph, res.x, rest)
    nnx.update(model, res.x)
    for solved in (merged, model):
        np.testing.assert_allclose(net_loss(solved, *data), res.fun, atol=1e-9)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(res.x)} == {dtype}


def test_adam_on_a_module_takes_the_step_of_nnxs_optimizer():
    optax = pytest.importorskip("optax")
    model, data = Net(), net_data()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    res = minimize(net_loss, model, data, optax.adam(1e-3), options={"maxiter": 1})
    optimizer.update(model, nnx.grad(net_loss)(model, *data))
    np.testing.assert_allclose([res.fun, net_loss(model, *data)], 2.310461, rtol=1e-5)
    assert_trees_close(nnx.to_pure_dict(nnx.state(res.x)), nnx.to_pure_dict(nnx.state(model)), rtol=1e-6)


def nnx_run(tx, kind, steps):
    """NNX's own loop with the arguments that searches want: the losses, the optimizer and the model."""
    model, data = Net(), net_data()
    optimizer = kind(model, tx, wrt=nnx.Param)
    graph, _, rest = nnx.split(model, nnx.Param, ...)

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(net_loss)(model, *data)
        extra = {"value": value, "grad": grads, "value_fn": lambda p: net_loss(nnx.merge(graph, p, rest), *data)}
        optimizer.update(*([grads] if kind is nnx.ModelAndOptimizer else [model, grads]), **extra)
        return value

    values, accepted = [], []
    for k in range(steps):
        if kind is nnx.ModelAndOptimizer:
            model = optimizer.model
        values.append(float(step(model, optimizer)))
        assert int(optimizer.step[...]) == k + 1
        if isinstance(tx, jaxmin.Method):
            accepted.append(float(jaxmin.iterate(optimizer.opt_state).f))
    return values, accepted, optimizer, model


KINDS = {"Optimizer": nnx.Optimizer, "ModelAndOptimizer": nnx.ModelAndOptimizer}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["lbfgs", pytest.param("lbfgs wolfe", marks=pytest.mark.slow), "gradient_descent"])
@pytest.mark.rounding
def test_a_method_drops_into_nnxs_optimizer_at_one_evaluation_a_step(method, kind):
    name, *search = method.split()
    tx = getattr(jaxmin, name)(**({"linesearch": search[0]} if search else {}))
    values, accepted, optimizer, model = nnx_run(tx, KINDS[kind], 20)
    assert accepted[0] == values[0] and set(accepted) <= set(values)
    assert (np.diff(accepted) <= 0).all() and accepted[-1] < accepted[0]
    if name == "lbfgs":
        assert accepted[-1] <= 1e-4
    nnx.update(model, jaxmin.iterate(optimizer.opt_state).x)
    np.testing.assert_allclose(net_loss(model, *net_data()), accepted[-1], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_extra_gradient_in_nnxs_optimizer_is_the_loop_by_hand(kind):
    values, *_ = nnx_run(transforms.extra_gradient(0.1), KINDS[kind], 10)
    graph, params, rest = nnx.split(Net(), nnx.Param, ...)
    value_and_grad = jax.jit(jax.value_and_grad(lambda p: net_loss(nnx.merge(graph, p, rest), *net_data())))
    wanted, start = [], params
    for k in range(10):
        value, grad = value_and_grad(params)
        wanted.append(value)
        start = params if k % 2 == 0 else start
        params = jax.tree.map(lambda p, g: p - 0.1 * g, start, grad)
    np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)


class Normed(nnx.Module):
    """A layer with running means, and a count of its calls."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.out = nnx.Linear(3, 1, rngs=rngs)
        self.calls = Count(jnp.zeros((), "int32"))

    def __call__(self, x):
        self.calls[...] += 1
        return self.out(self.norm(self.linear(x)))


def test_auxiliary_state_comes_back_as_aux_and_leaks_nowhere():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=shape), "float32") for shape in ((20, 2), (20, 1)))

    def loss(model, x, y):
        error = jnp.mean((model(x) - y) ** 2)
        return error, nnx.to_pure_dict(nnx.state(model, (nnx.BatchStat, Count)))

    model = Normed()
    res = minimize(loss, model, (x, y), has_aux=True, options={"maxiter": 5})
    assert res.aux["calls"] == 1
    for kept in (model, res.x):
        assert kept.calls[...] == 0 and not kept.norm.mean[...].any()
    value, aux = loss(nnx.clone(res.x), x, y)
    np.testing.assert_allclose(value, res.fun, rtol=1e-5)
    assert_trees_close(res.aux, aux, rtol=1e-5, atol=1e-6)
    assert np.abs(res.aux["norm"]["mean"]).max() > 0
    nnx.update(res.x, res.aux)
    assert res.x.calls[...] == 1


@pytest.mark.parametrize("wrap", [dict, flax.core.freeze])
def test_parameters_of_linen_come_back_as_they_went_in(wrap):
    x, y = net_data()
    model = linen.Dense(4)
    params = wrap(model.init(jax.random.key(0), x))
    res = minimize(lambda params, x, y: jnp.mean((model.apply(params, x) - y) ** 2), params, (x, y))
    assert jax.tree.structure(res.x) == jax.tree.structure(params) and type(res.x) is type(params)
    assert res.fun <= 1e-6 and res.nit <= 15


def test_a_filter_without_an_nnx_module_is_refused():
    with pytest.raises(ValueError, match=r"wrt.*Param.*NNX"):
        minimize(rosenbrock, START, options={"wrt": nnx.Param})
