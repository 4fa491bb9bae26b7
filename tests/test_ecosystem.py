"""Five ways to optimize in JAX, each as one call of minimize; and methods of jaxmin in other libraries' loops.

Optax with a nested search, Equinox modules, saddle points by the extra-gradient method, the triples of
jax.example_libraries, Flax NNX. The building blocks alone are in test_transforms.py.
"""

import functools
import pickle
import subprocess
import sys

import equinox as eqx
import flax
import jax
import jax.example_libraries.optimizers as library
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import linen, nnx
from problems import OPTIMIZERS, recorded, rosenbrock

import jaxmin
from jaxmin import Status, minimize, transforms
from jaxmin.transforms import Transformation, from_triple

each_dtype = pytest.mark.parametrize("dtype", ("float32", "float64"))


def wide(dtype):
    """64-bit types on for float64 alone: Optax's stored gradients of a float32 value fail where they are on."""
    return jax.enable_x64(dtype == "float64")


def along(limits, solve):
    """The results of the solves that stop at each of the limits, from one program."""
    return jax.lax.map(solve, jnp.asarray(limits))


def assert_trees_close(tree, wanted, **tolerance):
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **tolerance)


# ---- Optax: a search inside the transformation, and further arguments

START, SHIFT = [1.0, 2.0, 3.0], np.array([4, 5, 6], np.int32)
VALUES = [155, 55.80000, 20.08801, 7.231681, 2.603405, 0.937226]


def objective(x, y):
    assert y.dtype == np.int32  # handed over as it is
    return jnp.sum((x + y) ** 2)


def searched_descent():
    return optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True))


def hand_written(tx, x, steps):
    """The loop of Optax's documentation: the values at x0 and after each step, and the state."""
    value_and_grad = optax.value_and_grad_from_state(objective)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, SHIFT, state=state)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=objective, y=SHIFT)
        return optax.apply_updates(x, updates), state

    state, values = tx.init(x), [objective(x, SHIFT)]
    for _ in range(steps):
        x, state = step(x, state)
        values.append(objective(x, SHIFT))
    return np.array(values), state


@each_dtype
def test_descent_with_optaxs_search_rule_takes_the_known_steps(dtype):
    search = jaxmin.backtracking(
        sufficient=1e-4, interpolate=False, decrease=0.8, increase=1.5, max_step=1.0, max_trials=15
    )

    def solve(**options):
        options |= {"learning_rate": 1.0}
        return minimize(objective, jnp.asarray(START, dtype), SHIFT, "sgd", linesearch=search, options=options)

    for k, value in enumerate(VALUES):
        res = solve(maxiter=k)
        assert (res.nit, res.nfev, res.status) == (k, 1 + 2 * k, Status.MAXITER)
        np.testing.assert_allclose(res.fun, value, atol=1e-4)
    res = solve(maxiter=50, gtol=1e-5)
    assert res.status == Status.CONVERGED and res.nit <= 31 and res.nfev <= 2 * res.nit + 1
    np.testing.assert_allclose(res.x, -SHIFT, atol=1e-5)


@each_dtype
@pytest.mark.parametrize("search", ("backtracking", "wolfe", "hager_zhang"))
def test_lbfgs_needs_three_iterations_and_four_evaluations(search, dtype):
    res = minimize(objective, jnp.asarray(START, dtype), SHIFT, "lbfgs", linesearch=search)
    assert res.success and res.nit <= 3 and res.nfev <= 4
    np.testing.assert_allclose(res.x, -SHIFT, atol=1e-5)


ARGS = {
    "an array": (objective, SHIFT),
    "a tuple": (objective, (SHIFT,)),
    "a list is one argument": (lambda x, ys: objective(x, ys[0]), [SHIFT]),
    "two": (lambda x, y, scale: scale * objective(x, y), (SHIFT, 2.0)),
    "one that is not used": (lambda x, y, unused: objective(x, y), (SHIFT, 7)),
}


@pytest.mark.parametrize("name", ARGS)
@pytest.mark.parametrize("method", ["lbfgs", searched_descent()], ids=["lbfgs", "optax"])
def test_args_reach_the_function_and_the_search_inside(method, name):
    fun, args = ARGS[name]
    res = minimize(fun, jnp.array(START), args, method)
    assert res.success
    np.testing.assert_allclose(res.x, -SHIFT, atol=1e-5)


@each_dtype
def test_values_are_those_of_the_hand_written_loop(dtype):
    with wide(dtype):
        x0, tx = jnp.asarray(START, dtype), searched_descent()

        def solve(k):
            return minimize(objective, x0, SHIFT, tx, options={"maxiter": k, "gtol": -1.0})

        res = along(range(31), solve)
        wanted, _ = hand_written(tx, x0, 30)
        np.testing.assert_allclose(res.fun, wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(res.fun[:6], VALUES, rtol=1e-5)
        assert res.nit.tolist() == list(range(31))
        assert res.nfev.tolist()[:21] == [1 + 2 * k for k in range(21)]  # rounding decides later ones in float32


@pytest.mark.parametrize("make", [searched_descent, optax.lbfgs])
def test_every_evaluation_of_a_nested_search_is_counted(make):
    fun, points = recorded(rosenbrock)
    res = jax.block_until_ready(minimize(fun, jnp.array([-1.2, 1.0]), method=make(), options={"maxiter": 20}))
    jax.effects_barrier()
    assert res.nfev == len(points) > 21


def test_value_and_gradient_in_the_state_are_those_of_a_fresh_evaluation():
    """Bit for bit: each step halves the distance, so that nothing is rounded."""
    x, tx = jnp.array(START), optax.chain(optax.sgd(0.25), optax.scale_by_backtracking_linesearch(15, store_grad=True))
    stored = jaxmin.value_and_grad_from_state(objective)
    fresh, state = jax.value_and_grad(objective), tx.init(x)
    for _ in range(3):
        value, grad = stored(x, SHIFT, state=state)
        assert_trees_close((value, grad), fresh(x, SHIFT), rtol=0)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=objective, y=SHIFT)
        x = optax.apply_updates(x, updates)
    search = state[-1]
    for missing in (jnp.nan, jnp.inf):
        spoilt = (state[0], search._replace(value=missing * search.value, grad=0 * search.grad))
        assert_trees_close(stored(x, SHIFT, state=spoilt), fresh(x, SHIFT), rtol=0)
    with pytest.raises(ValueError, match=r"state.*'value'.*'grad'"):
        stored(x, SHIFT, state=optax.adam(0.1).init(x))


@pytest.mark.parametrize("method", ["lbfgs", searched_descent(), optax.lbfgs()], ids=["lbfgs", "chain", "optax.lbfgs"])
def test_each_lane_of_a_batch_of_args_is_its_single_run(method):
    shifts = np.random.default_rng(0).normal(size=(8, 2)) * np.geomspace(0.1, 3, 8)[:, None]
    fun = lambda x, y: rosenbrock(x) + jnp.sum(jnp.cosh(x + y))

    @jax.jit
    def solve(y):
        return minimize(fun, jnp.array([-1.2, 1.0]), y, method, options={"maxiter": 12, "gtol": 1e-3})

    lanes = jax.vmap(solve)(jnp.asarray(shifts))
    assert len(set(lanes.nfev.tolist())) > 1
    for i, y in enumerate(shifts):
        lane, alone = jax.tree.map(lambda u, i=i: u[i], lanes), solve(y)
        assert (lane.nit, lane.nfev, lane.status) == (alone.nit, alone.nfev, alone.status)
        np.testing.assert_allclose(lane.x, alone.x, rtol=1e-9)


@pytest.mark.parametrize("make", [optax.lbfgs, searched_descent])
def test_fun_and_jac_are_those_of_x_where_a_link_moves_the_point_after_the_search(make):
    for tx in (optax.chain(make(), optax.scale(0.5)), transforms.chain(make(), optax.scale(0.5))):
        res = minimize(objective, jnp.array(START), SHIFT, tx, options={"maxiter": 3})
        f, g = jax.value_and_grad(objective)(res.x, SHIFT)
        assert 1e-3 < f < 155  # still on the way
        np.testing.assert_allclose(res.fun, f, rtol=1e-14)
        np.testing.assert_allclose(res.jac, g, rtol=1e-14)


def halving():
    """Halves its step until the value falls; it tells nobody how often."""

    def update(grads, state, params=None, *, value, value_fn):
        t = jax.lax.while_loop(lambda t: value_fn(params - t * grads) >= value, lambda t: t / 2, jnp.ones(()))
        return -t * grads, state

    return Transformation(lambda params: (), update)


def test_evaluations_of_a_search_that_reports_none_are_not_made_up():
    res = minimize(rosenbrock, jnp.array([-1.2, 1.0]), method=halving(), options={"maxiter": 20})
    assert (res.nfev, res.nit) == (-1, 20) and res.fun < 5


def test_a_step_that_needs_the_value_is_told_it():
    """Polyak's: the value over the squared gradient, from a minimum of 0."""
    res = minimize(objective, jnp.array(START), SHIFT, optax.polyak_sgd(max_learning_rate=10.0), options={"maxiter": 1})
    np.testing.assert_allclose(res.x, (np.array(START) - SHIFT) / 2, rtol=1e-12)
    assert res.nfev == 2


class Descent:
    """An optimizer whose rate can be set between calls."""

    rate = 0.1

    def init(self, params):
        return ()

    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: -self.rate * g, grads), state


def test_a_rate_changed_between_calls_is_seen():
    tx, moved = Descent(), []
    for tx.rate in (0.1, 0.25):
        moved.append(minimize(objective, jnp.array(START), SHIFT, tx, options={"maxiter": 1}).x)
    np.testing.assert_allclose(
        moved, [0.8 * np.array(START) - 0.2 * SHIFT, 0.5 * (np.array(START) - SHIFT)], atol=1e-15
    )


ANEW = {
    "adam": lambda: optax.adam(0.1),
    "chain": searched_descent,
    "schedule": lambda: optax.sgd(optax.exponential_decay(0.1, 10, 0.5)),
    "triple": lambda: library.adam(0.1),
    "ours": lambda: transforms.chain(transforms.clip_by_global_norm(1.0), transforms.adam(0.1)),
    "name": lambda: "adam",
}


@pytest.mark.parametrize("name", ANEW)
def test_an_equal_transformation_built_anew_compiles_nothing(name, caplog):
    def solve(maxiter):
        options = {"maxiter": maxiter} | ({"learning_rate": 0.1} if name == "name" else {})
        return minimize(objective, jnp.array(START), SHIFT, ANEW[name](), options=options)

    solve(2)
    with jax.log_compiles():
        res = solve(3)
        assert not [record for record in caplog.records if record.getMessage().startswith("Compiling")]
        jax.jit(lambda x: x + 1)(1)
    assert res.nit == 3
    assert [record for record in caplog.records if record.getMessage().startswith("Compiling")]  # it would be seen


# ---- Equinox: a model with static leaves, an equation solved inside


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


@each_dtype
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


# ---- saddle points: the extra-gradient method on parts of the parameters


def game(p):
    return p["x"] * p["y"]


PARTITIONS = {"jaxmin": transforms.partition, "optax": optax.partition, "multi_transform": optax.multi_transform}
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

    one, two = moved(jnp.ones(3), transforms.sgd(-0.1)), moved(jnp.full(3, 5.0), optax.adam(0.1))
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
        params = optax.apply_updates(params, updates)
        iterates.append(params)
        if len(iterates) % 2 == 0:  # half-way
            leaves, tree = pickle.loads(pickle.dumps([np.asarray(a) for a in jax.tree.leaves(state)])), state
            state = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    radii = [np.hypot(p["x"], p["y"]) for p in iterates]
    np.testing.assert_allclose(radii[::2], [2**0.5, 1.40720, 1.40021], rtol=1e-5)


# ---- jax.example_libraries: triples, by name and as they are

each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


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


# ---- Flax: NNX modules, their optimizer, Linen


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


@each_dtype
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
@pytest.mark.parametrize("method", ["lbfgs", "lbfgs wolfe", "gradient_descent"])
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


# ---- methods of jaxmin in Optax's loops

VALLEY = jnp.array([-1.2, 1.0])


def optax_run(tx, params, fun, steps, value_and_grad=None):
    """Optax's loop, compiled; the parameters and the state after it."""
    value_and_grad = value_and_grad or (lambda params, state: jax.value_and_grad(fun)(params))

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value)
        return (optax.apply_updates(params, updates), state), None

    loop = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[0])
    return loop(params)


WAYS = {
    "alone": lambda method: method,
    "as_optax": jaxmin.as_optax,
    "last in a chain": lambda method: optax.chain(optax.identity(), jaxmin.as_optax(method)),
    "last in our chain": lambda method: transforms.chain(optax.identity(), method),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["lbfgs", "bfgs", "cg"])
def test_a_method_in_optaxs_loop_goes_where_minimize_goes(name, way):
    method = getattr(jaxmin, name)()
    steps = 20 if name == "cg" else 30  # where nothing is learnt, a rounding grows tenfold in three evaluations
    res = minimize(rosenbrock, VALLEY, method=method, options={"maxfun": steps, "gtol": -1.0})
    _, state = optax_run(WAYS[way](method), VALLEY, rosenbrock, steps)
    found = jaxmin.iterate(state)
    np.testing.assert_allclose(found.x, res.x, rtol=1e-6)
    np.testing.assert_allclose(found.f, res.fun, rtol=1e-6, atol=1e-20)
    np.testing.assert_allclose(found.f, rosenbrock(found.x), rtol=1e-12, atol=1e-28)


def test_optaxs_look_ups_find_the_gradient_norm_and_evaluate_at_each_trial():
    tx = jaxmin.as_optax(jaxmin.lbfgs())
    _, state = optax_run(tx, VALLEY, rosenbrock, 60, optax.value_and_grad_from_state(rosenbrock))
    found = jaxmin.iterate(state)
    np.testing.assert_allclose(found.x, 1, atol=1e-5)
    assert optax.tree.norm(optax.tree.get(state, "grad")) <= 1e-5
    np.testing.assert_array_equal(optax.tree.get(state, "grad"), found.g)


@pytest.mark.parametrize("way", PARTITIONS)
def test_a_method_moves_its_group_while_the_others_are_frozen(way):
    params = {"w": VALLEY, "c": jnp.ones(2)}
    fun = lambda p: rosenbrock(p["w"]) + jnp.sum((p["c"] - 3) ** 2)
    members = {"moving": jaxmin.as_optax(jaxmin.lbfgs()), "frozen": optax.set_to_zero()}
    after, state = optax_run(PARTITIONS[way](members, {"w": "moving", "c": "frozen"}), params, fun, 60)
    np.testing.assert_array_equal(after["c"], params["c"])
    np.testing.assert_allclose(jaxmin.iterate(state).x["w"], 1, atol=1e-5)


def test_iterate_of_a_state_without_one_says_so():
    with pytest.raises(ValueError, match=r"state.*no iterate"):
        jaxmin.iterate(optax.adam(0.1).init(VALLEY))


# ---- errors


def squares(x):
    return jnp.sum(x**2)


def passing(update):
    return {"method": Transformation(lambda params: (), update)}


REFUSED = {
    "an argument nobody offers": (
        TypeError,
        ("'grad_fn'", "nobody offers", "value, grad, value_fn"),
        passing(lambda grads, state, params=None, *, grad_fn: (grads, state)),
    ),
    "an update of two arguments": (TypeError, ("method", "3 were given"), passing(lambda grads, state: (grads, state))),
    "updates of another tree": (
        TypeError,
        ("method", str(jax.tree.structure({"step": 0})), str(jax.tree.structure(0))),
        passing(lambda grads, state, params=None: ({"step": grads}, state)),
    ),
    "updates of another shape": (
        (TypeError, ValueError),
        ("method", "(1,)", "(2,)"),
        passing(lambda grads, state, params=None: (grads[:1], state)),
    ),
    "a state of another tree": (
        TypeError,
        ("method", "state", str(jax.tree.structure(())), str(jax.tree.structure((0,)))),
        passing(lambda grads, state, params=None: (grads, (*state, grads))),
    ),
    "params of its own": (
        TypeError,
        ("method", "x0's arrays as params"),
        {"method": optax.lookahead(optax.sgd(0.1), 5, 0.5)},
    ),
    "gradients of its own": (
        TypeError,
        ("method", "grad_fn"),
        {"method": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True)},
    ),
    "optax's builder": (TypeError, ("method", "call it", "adam"), {"method": optax.adam}),
    "jaxmin's builder": (TypeError, ("method", "call it", "lbfgs"), {"method": jaxmin.lbfgs}),
    "the library's builder": (TypeError, ("method", "call it", "adam"), {"method": library.adam}),
    "a line search": (TypeError, ("method", "linesearch"), {"method": jaxmin.wolfe()}),
    "a direction": (TypeError, ("method", "Direction", "descend"), {"method": jaxmin.Direction(tuple, tuple)}),
    "a rate in words": (TypeError, ("learning_rate='0.1'",), {"method": "adam", "options": {"learning_rate": "0.1"}}),
    "rates": (TypeError, ("learning_rate=[0.1]",), {"method": "sgd", "options": {"learning_rate": [0.1]}}),
    "no rate": (ValueError, ("options", "'adam'", "'learning_rate'"), {"method": "adam"}),
    "an option of its builder": (
        ValueError,
        ("options", "'clip'", "built"),
        {"method": optax.adam(0.1), "options": {"clip": 1}},
    ),
    "a search beside a built method": (
        ValueError,
        ("linesearch", "built"),
        {"method": jaxmin.lbfgs(), "linesearch": "wolfe"},
    ),
    "a gradient of another tree": (
        ValueError,
        ("jac", str(jax.tree.structure({"step": 0})), str(jax.tree.structure(0))),
        {"method": optax.adam(0.1), "jac": lambda x: {"step": x}},
    ),
}


@pytest.mark.filterwarnings("ignore")  # lookahead's own
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_method_is_one_clear_error(name):
    kind, words, given = REFUSED[name]
    with pytest.raises(kind) as caught:
        minimize(squares, jnp.ones(2), **given)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {caught.value!s}"


@pytest.mark.parametrize("wrap", [lambda method: method, jaxmin.as_optax], ids=["alone", "as_optax"])
def test_a_gradient_tree_that_does_not_match_names_both_trees(wrap):
    tx, params, grads = wrap(jaxmin.lbfgs()), {"w": jnp.ones(2)}, {"bias": jnp.ones(2)}
    with pytest.raises(TypeError) as caught:
        tx.update(grads, tx.init(params), params, value=jnp.ones(()))
    for tree in (grads, params):
        assert str(jax.tree.structure(tree)) in str(caught.value)


def test_a_gradient_tree_that_a_triple_does_not_know_names_both_trees():
    tx, params, grads = from_triple(library.adam(0.1)), {"w": jnp.ones(2)}, {"bias": jnp.ones(2)}
    with pytest.raises(TypeError) as caught:
        tx.update(grads, tx.init(params), params)
    for tree in (grads, params):
        assert str(jax.tree.structure(tree)) in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda method: method, jaxmin.as_optax], ids=["alone", "as_optax"])
def test_a_method_without_the_value_says_so(wrap):
    tx = wrap(jaxmin.lbfgs())
    with pytest.raises(TypeError, match="value"):
        tx.update(VALLEY, tx.init(VALLEY), VALLEY)


def test_a_value_that_is_a_python_number_is_as_good():
    method, grad = jaxmin.lbfgs(), jax.grad(rosenbrock)(VALLEY)
    updates = [
        method.update(grad, method.init(VALLEY), VALLEY, value=kind(rosenbrock(VALLEY)))[0]
        for kind in (jnp.asarray, float)
    ]
    np.testing.assert_array_equal(*updates)


def test_as_optax_refuses_what_is_no_transformation():
    with pytest.raises(TypeError, match=r"method.*jaxmin.lbfgs\(\)"):
        jaxmin.as_optax(jaxmin.lbfgs)


# ---- the package


def test_import_brings_in_no_other_library():
    code = (
        "import sys, jaxmin; print(sorted({'optax', 'equinox', 'flax'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
