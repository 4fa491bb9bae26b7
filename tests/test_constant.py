"""A function that certainly has no minimum to be found, since it does not depend on x, is named in a warning."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ONE_STEP

import jaxmin
from jaxmin import minimize
from jaxmin._problem import dependence

X0 = jnp.array([3.0, -2.0])
CONSTANT = {
    "x0 in place of x": lambda x: jnp.sum(X0**2),
    "a number": lambda x: 3.0,
    "inside jit": jax.jit(lambda x: jnp.sum(X0**2)),
    "a scan of x0": lambda x: jax.lax.scan(lambda c, _: (2 * c, None), jnp.sum(X0), None, length=3)[0],
    "the shape of x": lambda x: jnp.asarray(x.size, float),
}
STEPS = {
    "stop_gradient": lambda x: jnp.sum(jax.lax.stop_gradient(x) ** 2),
    "stop_gradient inside jit": jax.jit(lambda x: jax.nn.relu(jnp.sum(jax.lax.stop_gradient(x)))),
    "whole numbers": lambda x: jnp.sum(x.astype(int) ** 2).astype(float),
    "floor": lambda x: jnp.sum(jnp.floor(x) ** 2),
    "round": lambda x: jnp.sum(jnp.round(x)),
    "a comparison": lambda x: jnp.where(x[0] > 0, 1.0, 2.0),
    "a branch": lambda x: jax.lax.cond(x[0] > 0, lambda: 1.0, lambda: 2.0),
    "NumPy's numbers": lambda x: jnp.sum(jnp.sign(x) * np.ones(2)),
}


def host(x):
    """The host is given no x, and may know it all the same."""
    return jax.pure_callback(lambda: np.zeros(()), jax.ShapeDtypeStruct((), X0.dtype))


@jax.custom_vjp
def straight_through(x):
    return jnp.sum(jnp.round(x) ** 2)


straight_through.defvjp(lambda x: (straight_through(x), x), lambda x, cotangent: (2 * x * cotangent,))


def by_a_reference(x):
    ref = jax.new_ref(jnp.zeros(()))
    ref[...] = jnp.sum(x**2)
    return ref[...]


FINE = {
    "times 0": lambda x: 3 + 0 * x[0],
    "linear": jnp.sum,
    "one variable": lambda x: x[1] ** 2,
    "flat at x0": lambda x: jnp.sum(jnp.maximum(x - 9, 0) ** 2),
    "partly stopped": lambda x: jax.lax.stop_gradient(x[0]) * x[1] ** 2,
    "a loop": lambda x: jax.lax.fori_loop(0, 3, lambda _, c: c + 1, 0 * jnp.sum(x)),
    "a rule of its own": straight_through,
}
WITHOUT_GRADIENT = {"a host": host} | STEPS


def says(words, fun, call=minimize, **more):
    """The call warns once, on a line of this file."""
    with pytest.warns(RuntimeWarning) as caught:
        res = call(fun, X0, **more)
    assert len(caught) == 1
    assert words in str(caught[0].message)
    assert caught[0].filename == __file__
    return res


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("method", (ONE_STEP, "nelder_mead"), ids=("with a gradient", "without"))
def test_a_function_that_does_not_depend_on_x(name, method):
    res = says("fun does not depend on x", CONSTANT[name], method=method, options={"maxiter": 3})
    np.testing.assert_array_equal(res.x, X0)


@pytest.mark.parametrize("name", STEPS)
def test_a_function_whose_gradient_is_0_everywhere(name):
    says("the gradient of fun is 0 at every x", STEPS[name], method=ONE_STEP)


@pytest.mark.parametrize("name", FINE)
def test_no_false_alarm(name):
    minimize(FINE[name], X0, method=ONE_STEP, options={"maxiter": 3})  # a warning is an error


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_steps_are_for_methods_without_gradients_and_for_jac(name):
    fun = WITHOUT_GRADIENT[name]
    minimize(fun, X0, method="nelder_mead", options={"maxiter": 3})
    minimize(fun, X0, jac=lambda x: 2 * x, method=ONE_STEP)


def test_a_reference_may_hold_x():
    assert dependence.flaw(jax.make_jaxpr(by_a_reference)(X0).jaxpr, 1, 1, by_ad=False) is None


def test_a_gradient_by_hand_counts():
    minimize(lambda x: 3.0, X0, jac=lambda x: 2 * x, options={"maxiter": 3})
    minimize(lambda x: (3.0, 2 * x), X0, jac=True, options={"maxiter": 3})
    says("does not depend on x", lambda x: 3.0, jac=lambda x: jnp.zeros(2))


def test_each_call_warns_and_a_program_from_the_cache_too():
    for _ in range(2):
        says("does not depend on x", CONSTANT["a number"])


def test_under_jit_and_vmap():
    for transform in (jax.jit, jax.vmap):
        says(
            "does not depend on x", CONSTANT["a number"], lambda fun, x0, t=transform: t(lambda x: minimize(fun, x))(x0)
        )


def test_a_solver_says_it_when_it_begins():
    solver = jaxmin.Solver(CONSTANT["a number"])
    state = says("does not depend on x", solver, lambda solver, x0: solver.init(x0))
    assert solver.step(state).done


def test_many_problems_say_it_once():
    says(
        "does not depend on x",
        lambda x, a: a,
        lambda fun, x0: jaxmin.minimize_many(fun, np.ones((9, 2)), (np.ones(9),)),
    )


def test_nothing_varies_in_an_x0_of_no_numbers():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(jnp.sum, jnp.zeros(0))


def test_pytrees():
    tree = {"a": X0, "b": (1.0, None)}
    for fun, words in (
        (lambda x: jnp.sum(tree["a"] ** 2), "does not depend on x"),
        (lambda x: jnp.sum(jnp.floor(x["a"])) + jnp.floor(x["b"][0]), "the gradient of fun is 0"),
    ):
        says(words, fun, lambda fun, _: minimize(fun, tree))
    minimize(lambda x: x["b"][0] ** 2, tree)


def test_check_derivatives_says_the_same():
    check = lambda fun: jaxmin.check_derivatives(fun, X0 + 0.25)
    assert "fun does not depend on x" in str(check(CONSTANT["x0 in place of x"]))
    assert "the gradient of fun is 0 at every x" in str(check(STEPS["floor"]))
    stopped = check(STEPS["stop_gradient"])
    assert not stopped.ok
    assert "the gradient of fun is 0 at every x" in str(stopped)
    assert "is fun constant" in str(check(FINE["times 0"]))
