"""A solve by single steps has the numbers of minimize, bit for bit."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import compilations, identical, mostly_float64
from problems import rosenbrock

import jaxmin
from jaxmin import Solver, Status, minimize
from jaxmin._cache.registry import entries

START = [-1.2, 1.0, -1.2, 1.0]
# Every native method, a transformation by name, one of another library, and one with a search inside.
METHODS = {name: (name, {}) for name in entries("methods")} | {
    "adam by name": ("adam", {"learning_rate": 0.1}),
    "optax.adam": (optax.adam(0.1), {}),
    "optax.lbfgs": (optax.lbfgs(), {}),
}
# By default one of each kind: gradients, Hessians, products, values, transformations; the rest with `pytest -m slow`.
_ALWAYS = ("lbfgs", "trust_exact", "newton_cg", "nelder_mead", "adam by name", "optax.lbfgs")
each_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.slow) for name in METHODS]
)
# XLA compiles the loop of a transformation without a search a little otherwise where its start is not known to it.
_ROUNDED = {("adam by name", "float32"), ("optax.adam", "float32")}


def valley(x, a):
    return rosenbrock(x) + (a - 1) * x[0]


def both(method, dtype="float64", maxiter=25, **more):
    """A Solver with its start, and the result of minimize."""
    method, options = METHODS[method]
    settings = {"method": method, "options": options | {"maxiter": maxiter}, **more}
    x0 = jnp.asarray(START, dtype)
    return Solver(valley, **settings), x0, minimize(valley, x0, (1.0,), **settings)


def trips(res):
    return int(res.nfev) + (0 if res.nhev is None else int(res.nhev))


def same(a, b, rounded):
    if not rounded:
        return identical(a, b)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-4), a, b)
    return True


@pytest.mark.rounding
@mostly_float64
@each_method
def test_steps_by_hand_are_minimize_bit_for_bit(method, dtype):
    solver, x0, res = both(method, dtype)
    state, steps = solver.init(x0, 1.0), 0
    step = jax.jit(solver.step)
    while not state.done:
        state, steps = step(state), steps + 1
    assert same(solver.result(state), res, (method, dtype) in _ROUNDED)
    assert (method, dtype) in _ROUNDED or identical(state, solver.run(solver.init(x0, 1.0)))
    assert METHODS[method][0] not in entries("methods") or steps == trips(res)
    assert identical((state.nit, state.nfev, state.status), (res.nit, res.nfev, res.status))
    assert identical(state.x, solver.result(state).x)
    assert identical(step(state), state) and identical(solver.run(state), state)  # nothing changes after the end


@pytest.mark.rounding
@mostly_float64
@each_method
def test_run_is_minimize_bit_for_bit(method, dtype):
    solver, x0, res = both(method, dtype)
    assert same(solver.result(solver.run(solver.init(x0, 1.0))), res, (method, dtype) in _ROUNDED)
    whole = jax.jit(lambda x0, a: solver.result(solver.run(solver.init(x0, a))))
    assert identical(whole(x0, 1.0), jax.jit(lambda x0, a: minimize(valley, x0, (a,), **solver._settings))(x0, 1.0))


@pytest.mark.rounding
@each_method
def test_steps_outside_jit_and_runs_of_some_steps(method):
    solver, x0, res = both(method, maxiter=6)
    by_step = by_run = solver.init(x0, 1.0)
    for _ in range(trips(res) + 1):
        by_step = solver.step(by_step)
    for steps in (0, 1, 3, 2, 1000):
        by_run = solver.run(by_run, max_steps=steps)
    assert identical(solver.result(by_step), res) and identical(by_run, by_step)


@pytest.mark.rounding
@pytest.mark.parametrize("method", ["lbfgs", "trust_ncg", "nelder_mead", "optax.adam"])
def test_steps_in_a_scan(method):
    solver, x0, res = both(method)

    @jax.jit
    def scanned(x0):
        step = lambda state, _: (solver.step(state), state.fun)
        return jax.lax.scan(step, solver.init(x0, 1.0), length=trips(res) + 3)

    state, values = scanned(x0)
    assert identical(jax.jit(solver.result)(state), res)
    assert np.isnan(values[0]) and values[-1] == res.fun and values.shape == (trips(res) + 3,)


@pytest.mark.rounding
@pytest.mark.parametrize("method", ["lbfgs", "nelder_mead", "optax.adam"])
def test_lanes_of_a_batch_step_alone(method):
    solver, _, _ = both(method, maxiter=150)
    starts = jnp.array([START, [2.0, 2.0, 1.0, 0.0], [np.nan, 0.0, 0.0, 0.0], [1.0] * 4])
    states = jax.vmap(solver.init, in_axes=(0, None))(starts, 1.0)
    step = jax.jit(jax.vmap(solver.step))
    for _ in range(1000):
        states = states if states.done.all() else step(states)
    assert states.done.tolist() == [True] * 4
    batch = jax.vmap(lambda x0: minimize(valley, x0, (1.0,), **solver._settings))(starts)
    assert identical(jax.vmap(solver.result)(states), batch)
    assert states.x.shape == (4, 4) and len(set(batch.nit.tolist())) > 1
    with pytest.raises(ValueError, match=r"a batch of shape \(4,\); use jax\.vmap"):
        solver.step(states)


def test_all_settings_reach_the_solve():
    def fun(x, data, scale):
        residual = scale * (x["w"] - data["target"])
        return (jnp.sum(residual**2), residual), {"w": 2 * scale * residual, "flag": None}

    x0 = {"w": jnp.zeros(3), "flag": True}
    data = {"target": jnp.array([1.0, -2.0, 3.0]), "name": "kept"}
    settings = {
        "jac": True, "has_aux": True, "bounds": jaxmin.Bounds(-1.0, 2.0), "linesearch": "wolfe", "tol": 1e-9,
        "options": {"history": 5, "history_x": True, "maxcor": 3},
    }  # fmt: skip
    solver = Solver(fun, "L-BFGS-B", **settings)
    res = minimize(fun, x0, (data, 2.0), "L-BFGS-B", **settings)
    stepped = solver.result(solver.run(solver.init(x0, data, 2.0)))
    assert identical(stepped, res) and stepped.active_mask["w"].tolist() == [0, -1, 1]
    assert stepped.x["flag"] is True and stepped.aux.shape == (3,)


def test_a_number_in_args_stays_weakly_typed():
    """A float64 array would widen the objective, and a saved file has no other."""
    x0 = jnp.asarray(START, "float32")
    solver = Solver(valley)
    state = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, solver.init(x0, 1.0)))
    res = minimize(valley, x0, (1.0,))
    assert res.fun.dtype == "float32" and identical(solver.result(solver.run(state)), res)


def test_numbers_that_steer_python_are_no_arrays():
    fun = lambda x, n: sum(jnp.sum((x - k) ** 2) for k in range(n))
    state = Solver(fun).init(jnp.zeros(2), 3)
    assert state.args == []
    assert identical(Solver(fun).result(Solver(fun).run(state)), minimize(fun, jnp.zeros(2), (3,)))


def test_before_the_first_step_nothing_is_known():
    calls = []
    fun = lambda x: jax.debug.callback(lambda: calls.append(1)) or jnp.sum(x**2)
    solver = Solver(fun)
    state = solver.init([3.0, 4.0])
    jax.effects_barrier()
    assert not calls and (int(state.nit), int(state.nfev), int(state.status)) == (-1, 0, Status.RUNNING)
    assert np.isnan(state.fun) and state.x.tolist() == [3.0, 4.0] and not state.done
    res = solver.result(state)
    assert np.isnan(res.fun) and res.status == Status.RUNNING and not res.success and "not ended" in res.message
    jax.effects_barrier()
    assert not calls
    state = solver.step(state)
    jax.effects_barrier()
    assert len(calls) == 1 and (int(state.nit), int(state.nfev), float(state.fun)) == (0, 1, 25.0)


def test_the_state_is_a_pytree_of_arrays():
    state = Solver(valley).init(START, 1.0)
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in jax.tree.leaves(state))
    stepped = Solver(valley).step(state)
    assert jax.tree.structure(stepped) == jax.tree.structure(state)
    shapes = [[(u.shape, u.dtype) for u in jax.tree.leaves(each)] for each in (state, stepped)]
    assert shapes[0] == shapes[1]
    again = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(again) == jax.tree.structure(state) and identical(again, state)
    assert "nit=-1" in repr(state) and repr(jax.eval_shape(lambda: state)) == "SolverState(...)"


def test_what_fun_closes_over_may_be_traced():
    target = jnp.array([1.0, 2.0])

    @jax.jit
    def solve(target):
        solver = Solver(lambda x: jnp.sum((x - target) ** 2))
        return jax.lax.fori_loop(0, 10, lambda _, state: solver.step(state), solver.init(jnp.zeros(2))).x

    assert identical(solve(target), minimize(lambda x: jnp.sum((x - target) ** 2), jnp.zeros(2)).x)


def test_one_program_whatever_the_numbers():
    solver, other = Solver(valley, bounds=[(-5, 5)] * 4), Solver(valley, bounds=[(-4, 4)] * 4, options={"gtol": 1e-3})
    solver.run(solver.step(solver.init(START, 1.0)))
    with compilations() as programs:
        other.run(other.init([1.0, 2.0, 3.0, 4.0], 2.0), max_steps=7)
    assert not [program for program in programs if "run" in program]


def test_callbacks_are_called_in_a_run_too():
    seen = []
    solver = Solver(rosenbrock, callback=lambda x: seen.append(x) or len(seen) == 3)
    state = solver.run(solver.init(START))
    assert state.status == Status.CALLBACK and len(seen) == 3 and np.array_equal(seen[-1], state.x)
    solver = Solver(rosenbrock, callback=jaxmin.traced(lambda intermediate_result: intermediate_result.nit == 3))
    assert identical(solver.run(solver.init(START)).x, state.x)

    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        solver = Solver(rosenbrock, callback=broken)
        solver.run(solver.init(START))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (
            TypeError,
            "Solver: unknown keyword 'args'; the choices are fun, method, jac",
            lambda: Solver(valley, args=(1.0,)),
        ),
        (TypeError, "unknown keyword .progress.", lambda: Solver(valley, progress=True)),
        (ValueError, "method='best': unknown", lambda: Solver(valley, "best").init(START, 1.0)),
        (TypeError, "fun=3", lambda: Solver(3).init(START)),
        (TypeError, "state=3: give a SolverState, from solver.init", lambda: Solver(valley).step(3)),
        (ValueError, "max_steps=-1", lambda: Solver(valley).run(Solver(valley).init(START, 1.0), max_steps=-1)),
        (
            TypeError,
            "max_steps=.*float.*whole number",
            lambda: jax.jit(Solver(valley).run)(Solver(valley).init(START, 1.0), 2.5),
        ),
        (TypeError, "max_steps=2.5", lambda: Solver(valley).run(Solver(valley).init(START, 1.0), max_steps=2.5)),
        (
            ValueError,
            "state: of another solver, with another method",
            lambda: Solver(valley).step(Solver(valley, "bfgs").init(START, 1.0)),
        ),
        (
            ValueError,
            "state: of another solver, with another method",
            lambda: Solver(valley, "cg").result(Solver(valley).init(START, 1.0)),
        ),
        (ValueError, "state: of another solver", lambda: Solver(_wide).step(Solver(_narrow).init(_HALF))),
    ],
)
def test_what_cannot_be_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


_HALF = jnp.zeros(2, "float32")
_narrow = lambda x: jnp.sum(x**2)
_wide = lambda x: jnp.sum(x.astype("float64") ** 2)


def test_what_is_held_still_may_be_stepped_inside_a_derivative():
    """Also by linearisation, which wants to know each step's values by themselves."""
    solver = Solver(rosenbrock)

    def inner(a):
        return solver.run(solver.init(a * jnp.array([-1.2, 1.0]))).x

    def by_hand(a):
        method = jaxmin.lbfgs()

        def step(carry, _):
            x, state = carry
            value, grad = jax.value_and_grad(rosenbrock)(x)
            updates, state = method.update(grad, state, x, value=value)
            return (x + updates, state), None

        x = a * jnp.array([-1.2, 1.0])
        return jax.lax.scan(step, (x, method.init(x)), length=5)[0][0]

    for still in (inner, by_hand):
        total = lambda a, still=still: jnp.sum(a**2 * jax.lax.stop_gradient(still(a)))
        np.testing.assert_allclose(jax.grad(total)(1.0), 2 * np.sum(still(1.0)), rtol=1e-9)
        value, _ = jax.linearize(still, 1.0)
        np.testing.assert_allclose(value, still(1.0), rtol=1e-9)


def test_steps_may_be_counted_by_an_array():
    solver = Solver(valley)
    state = solver.init(START, 1.0)
    expected = solver.run(state, 3)
    assert identical(solver.run(state, jnp.int32(3)), expected)
    assert identical(jax.jit(solver.run)(state, np.int32(3)), expected)


@pytest.mark.parametrize(
    ("method", "derivative"),
    [
        # By default both for one of them; the others with `pytest -m slow`.
        pytest.param(
            method, derivative, marks=() if method == "lbfgs" or derivative is jax.jacrev else pytest.mark.slow
        )
        for method in ("lbfgs", "nelder_mead", "adam")
        for derivative in (jax.jacfwd, jax.jacrev)
    ],
)
def test_steps_have_no_derivatives(method, derivative):
    """Those of the numbers on the way are not those of a solution."""
    solver = Solver(valley, method, options={"learning_rate": 0.1} if method == "adam" else {})
    state = solver.init(START, 1.0)
    for steps in (solver.run, solver.step, jax.jit(solver.step)):
        slope = derivative(lambda a, steps=steps: solver.result(steps(solver.init(START, a))).x)(1.0)
        assert np.isnan(slope).all()
    # Of what else goes on around it there are.
    fun = solver.run(state).fun
    assert derivative(lambda a: a * solver.run(state).fun)(1.0) == fun


@pytest.mark.parametrize("axes", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_a_state_is_loaded_to_where_x0_and_args_are(tmp_path, axes):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(axes,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x0, a = jax.device_put((jnp.array(START), 1.0), everywhere)
    solver = Solver(valley)
    solver.save(tmp_path / "state.npz", solver.step(solver.init(x0, a)))
    loaded = solver.load(tmp_path / "state.npz", x0, a)
    for leaf, like in zip(*map(jax.tree.leaves, (loaded, solver.init(x0, a))), strict=True):
        assert leaf.sharding == like.sharding
    assert everywhere in [leaf.sharding for leaf in jax.tree.leaves(loaded)]
    assert identical(solver.run(loaded), solver.run(solver.init(x0, a)))
