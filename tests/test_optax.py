"""Optax's transformations run in minimize, with a search nested in them or not, and methods run in Optax's loops.

The building blocks alone are in test_transforms.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PARTITIONS, START, along, assert_built_anew, assert_refused, assert_trees_close, mostly_float64
from problems import recorded, rosenbrock

import jaxmin
from jaxmin import Status, minimize, transforms

optax = pytest.importorskip("optax")
contrib = pytest.importorskip("optax.contrib")


def wide(dtype):
    """64-bit types on for float64 alone: Optax's stored gradients of a float32 value fail where they are on."""
    return jax.enable_x64(dtype == "float64")


# ---- a search inside the transformation, and further arguments

FAR, SHIFT = [1.0, 2.0, 3.0], np.array([4, 5, 6], np.int32)
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


@mostly_float64
def test_descent_with_optaxs_search_rule_takes_the_known_steps(dtype):
    search = jaxmin.backtracking(
        sufficient=1e-4, interpolate=False, decrease=0.8, increase=1.5, max_step=1.0, max_trials=15
    )

    def solve(**options):
        options |= {"learning_rate": 1.0}
        return minimize(objective, jnp.asarray(FAR, dtype), SHIFT, "sgd", linesearch=search, options=options)

    for k, value in enumerate(VALUES):
        res = solve(maxiter=k)
        assert (res.nit, res.nfev, res.status) == (k, 1 + 2 * k, Status.MAXITER)
        np.testing.assert_allclose(res.fun, value, atol=1e-4)
    res = solve(maxiter=50, gtol=1e-5)
    assert res.status == Status.CONVERGED and res.nit <= 31 and res.nfev <= 2 * res.nit + 1
    np.testing.assert_allclose(res.x, -SHIFT, atol=1e-5)


@mostly_float64
@pytest.mark.parametrize("search", ("backtracking", "wolfe", "hager_zhang"))
def test_lbfgs_needs_three_iterations_and_four_evaluations(search, dtype):
    res = minimize(objective, jnp.asarray(FAR, dtype), SHIFT, "lbfgs", linesearch=search)
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
    res = minimize(fun, jnp.array(FAR), args, method)
    assert res.success
    np.testing.assert_allclose(res.x, -SHIFT, atol=1e-5)


@mostly_float64
def test_values_are_those_of_the_hand_written_loop(dtype):
    with wide(dtype):
        x0, tx = jnp.asarray(FAR, dtype), searched_descent()

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
    res = jax.block_until_ready(minimize(fun, jnp.array(START), method=make(), options={"maxiter": 20}))
    jax.effects_barrier()
    assert res.nfev == len(points) > 21


def test_value_and_gradient_in_the_state_are_those_of_a_fresh_evaluation():
    """Bit for bit: each step halves the distance, so that nothing is rounded."""
    x, tx = jnp.array(FAR), optax.chain(optax.sgd(0.25), optax.scale_by_backtracking_linesearch(15, store_grad=True))
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
@pytest.mark.rounding
def test_each_lane_of_a_batch_of_args_is_its_single_run(method):
    shifts = np.random.default_rng(0).normal(size=(8, 2)) * np.geomspace(0.1, 3, 8)[:, None]
    fun = lambda x, y: rosenbrock(x) + jnp.sum(jnp.cosh(x + y))

    @jax.jit
    def solve(y):
        return minimize(fun, jnp.array(START), y, method, options={"maxiter": 12, "gtol": 1e-3})

    lanes = jax.vmap(solve)(jnp.asarray(shifts))
    assert len(set(lanes.nfev.tolist())) > 1
    for i, y in enumerate(shifts):
        lane, alone = jax.tree.map(lambda u, i=i: u[i], lanes), solve(y)
        assert (lane.nit, lane.nfev, lane.status) == (alone.nit, alone.nfev, alone.status)
        np.testing.assert_allclose(lane.x, alone.x, rtol=1e-9)


@pytest.mark.parametrize("make", [optax.lbfgs, searched_descent])
def test_fun_and_jac_are_those_of_x_where_a_link_moves_the_point_after_the_search(make):
    for tx in (optax.chain(make(), optax.scale(0.5)), transforms.chain(make(), optax.scale(0.5))):
        res = minimize(objective, jnp.array(FAR), SHIFT, tx, options={"maxiter": 3})
        f, g = jax.value_and_grad(objective)(res.x, SHIFT)
        assert 1e-3 < f < 155  # still on the way
        np.testing.assert_allclose(res.fun, f, rtol=1e-14)
        np.testing.assert_allclose(res.jac, g, rtol=1e-14)


def test_a_step_that_needs_the_value_is_told_it():
    """Polyak's: the value over the squared gradient, from a minimum of 0."""
    res = minimize(objective, jnp.array(FAR), SHIFT, optax.polyak_sgd(max_learning_rate=10.0), options={"maxiter": 1})
    np.testing.assert_allclose(res.x, (np.array(FAR) - SHIFT) / 2, rtol=1e-12)
    assert res.nfev == 2


ANEW = {
    "adam": lambda: optax.adam(0.1),
    "chain": searched_descent,
    "schedule": lambda: optax.sgd(optax.exponential_decay(0.1, 10, 0.5)),
}


@pytest.mark.parametrize("name", ANEW)
def test_an_equal_transformation_built_anew_compiles_nothing(name):
    assert_built_anew(ANEW[name])


# ---- methods of jaxmin in Optax's loops

VALLEY = jnp.array(START)


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

REFUSED = {
    "params of its own": (
        TypeError,
        ("method", "the arrays of x0 as params"),
        {"method": optax.lookahead(optax.sgd(0.1), 5, 0.5)},
    ),
    "gradients of its own": (
        TypeError,
        ("method", "grad_fn"),
        {"method": contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True)},
    ),
    "optax's builder": (TypeError, ("method", "call it", "adam"), {"method": optax.adam}),
    "an option of its builder": (
        ValueError,
        ("options", "'clip'", "built"),
        {"method": optax.adam(0.1), "options": {"clip": 1}},
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
    assert_refused(*REFUSED[name])
