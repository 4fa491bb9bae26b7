"""Callbacks and printed lines: in order, from inside the compiled loop, and nothing added where none is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from problems import rosenbrock

import jaxmin
from jaxmin import _watch, minimize

START = [-1.2, 1.0]
CALLBACK = 99


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "cg", "gradient_descent", "trust_ncg", "nesterov"])
def test_each_iterate_is_shown_once_and_in_order(method):
    seen = []

    def callback(intermediate_result):
        seen.append((int(intermediate_result.nit), float(intermediate_result.fun), intermediate_result.x))

    options = {"maxiter": 30} | ({"learning_rate": 1e-4, "mass": 0.5} if method == "nesterov" else {})
    res = minimize(rosenbrock, START, method=method, callback=callback, options=options)
    assert [nit for nit, _, _ in seen] == list(range(1, int(res.nit) + 1))
    for _, f, x in seen:
        assert isinstance(x, np.ndarray)
        np.testing.assert_allclose(f, rosenbrock(x), rtol=1e-12, atol=1e-18)
    assert np.array_equal(seen[-1][2], res.x)
    assert np.array_equal(minimize(rosenbrock, START, method=method, options=options).x, res.x)


def test_the_older_form_is_given_x_built_like_x0():
    seen = []
    x0 = {"a": jnp.array([3.0, 4.0], "float32"), "name": "kept"}
    res = minimize(lambda p: jnp.sum(p["a"] ** 2), x0, callback=seen.append)
    assert len(seen) == res.nit
    assert seen[-1]["name"] == "kept" and seen[-1]["a"].dtype == np.float32
    assert np.array_equal(seen[-1]["a"], res.x["a"])


def stop_by_exception(x):
    if x[0] > 0:
        raise StopIteration


@pytest.mark.parametrize("callback", [stop_by_exception, lambda x: x[0] > 0, lambda x: bool(x[0] > 0)])
@pytest.mark.parametrize("outer", [lambda solve: solve, jax.jit], ids=["alone", "jit"])
def test_a_callback_ends_the_solve_at_the_iterate_it_was_shown(callback, outer):
    res = outer(lambda x0: minimize(rosenbrock, x0, callback=callback))(jnp.array(START))
    assert (int(res.status), res.success) == (CALLBACK, False)
    assert res.x[0] > 0
    shorter = minimize(rosenbrock, START, options={"maxiter": int(res.nit) - 1})
    assert shorter.x[0] <= 0


def test_it_stops_where_scipy_stops():
    """The iterates agree as long as both take unit steps."""
    fun = lambda x: jnp.sum(jnp.array([1.0, 2.0, 4.0]) * (x - 1) ** 2)
    value_and_grad = jax.jit(jax.value_and_grad(fun))
    told = [lambda intermediate_result: counts.append(1) or (len(counts) == 2 and exec("raise StopIteration"))]
    results = []
    for solve in (
        lambda c: minimize(fun, np.zeros(3), callback=c),
        lambda c: scipy.optimize.minimize(
            lambda x: tuple(map(np.asarray, value_and_grad(x))), np.zeros(3), jac=True, method="L-BFGS-B", callback=c
        ),
    ):
        counts = []
        results.append(solve(told[0]))
    assert [(int(r.nit), int(r.status)) for r in results] == [(2, CALLBACK)] * 2


@pytest.mark.parametrize("answer", [None, 1, "stop", np.array([True, True])])
def test_other_answers_do_not_end_it(answer):
    assert minimize(rosenbrock, START, callback=lambda x: answer).success


def test_an_exception_of_the_callback_is_raised_as_it_was():
    def callback(x):
        if x[0] > -1:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        minimize(rosenbrock, START, callback=callback)
    assert caught.traceback[-1].name == "callback"


def test_in_a_batch_a_callback_ends_its_own_lane():
    starts = jnp.array([START, [2.0, 2.0], [0.5, 0.5]])
    seen = []

    def callback(x):
        seen.append(x)
        return x[0] > 1.5

    batch = jax.vmap(lambda x0: minimize(rosenbrock, x0, callback=callback))(starts)
    alone = [minimize(rosenbrock, x0, callback=lambda x: x[0] > 1.5) for x0 in starts]
    assert batch.status.tolist() == [int(res.status) for res in alone]
    assert CALLBACK in batch.status.tolist() and 0 in batch.status.tolist()
    assert batch.nit.tolist() == [int(res.nit) for res in alone]
    assert len(seen) == int(batch.nit.sum())


def test_disp_prints_a_line_an_iteration_and_nothing_else(capfd):
    res = minimize(rosenbrock, START, options={"disp": True})
    jax.vmap(lambda x0: minimize(rosenbrock, x0, options={"disp": True}).x)(jnp.array([START]))
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 * int(res.nit)
    assert lines[0].split()[:2] == ["iteration", "1"] and all("|g|" in line for line in lines)


def test_a_new_callback_compiles_nothing(caplog):
    minimize(rosenbrock, START, callback=lambda x: None)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        minimize(rosenbrock, START, callback=lambda x: False)
    assert not [r for r in caplog.records if r.getMessage().startswith("Compiling") and "solve" in r.getMessage()]


def test_without_a_callback_the_program_asks_nobody():
    text = str(jax.make_jaxpr(lambda x: minimize(rosenbrock, x, options={"disp": False}).x)(jnp.array(START)))
    watched = str(jax.make_jaxpr(lambda x: minimize(rosenbrock, x, callback=print).x)(jnp.array(START)))
    assert "callback" not in text and "pure_callback" in watched


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="callback=3"):
        minimize(rosenbrock, START, callback=3)


# ---- history


@pytest.mark.parametrize("length", [1, 7, 200, True])
@pytest.mark.parametrize("method", ["lbfgs", "trust_ncg", "nelder_mead"])
def test_history_holds_the_last_iterates(method, length):
    seen = []

    def callback(intermediate_result):
        seen.append([float(v) for v in (intermediate_result.nit, intermediate_result.fun, intermediate_result.nfev)])

    options = {"history": length, "maxiter": 60}
    res = minimize(rosenbrock, START, method=method, callback=callback, options=options)
    rows = 61 if length is True else length
    history = res.history
    assert all(part.shape == (rows,) for part in jax.tree.leaves(history))
    kept = min(rows, int(res.nit) + 1)
    assert history.nit[:kept].tolist() == list(range(int(res.nit) + 1 - kept, int(res.nit) + 1))
    assert np.all(history.nit[kept:] == -1) and np.all(np.isnan(history.fun[kept:]))
    last = min(kept, len(seen))
    told = np.stack([history.nit, history.fun, history.nfev], axis=1)[kept - last : kept]
    np.testing.assert_allclose(told, seen[len(seen) - last :], rtol=1e-12)
    assert history.fun[kept - 1] == res.fun
    if res.jac is not None:
        assert history.gnorm[kept - 1] == np.abs(res.jac).max()


def test_history_in_a_batch_is_each_lanes_own():
    starts = jnp.array([START, [2.0, 2.0]])
    solve = lambda x0: minimize(rosenbrock, x0, options={"history": 5}).history
    for lane, x0 in enumerate(starts):
        for part, alone in zip(*map(jax.tree.leaves, (jax.vmap(solve)(starts), solve(x0))), strict=True):
            np.testing.assert_allclose(part[lane], alone, rtol=1e-6)  # batched code rounds otherwise on the way


@pytest.mark.parametrize("length", [0, -3, 2.5, "all"])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(ValueError, match=r"options\['history'\]"):
        minimize(rosenbrock, START, options={"history": length})


def test_names_are_public():
    assert jaxmin.STATUS[CALLBACK].success is False


@pytest.mark.parametrize(
    "call",
    [
        lambda solve: solve(1.0),
        lambda solve: jax.grad(solve)(1.0),
        lambda solve: jax.vmap(solve)(jnp.ones(2)),
        lambda solve: jax.vmap(jax.grad(solve))(jnp.ones(2)),
    ],
    ids=["alone", "grad", "vmap", "vmap of grad"],
)
def test_an_exception_is_raised_through_transformations_too(call):
    def callback(x):
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        call(lambda a: minimize(lambda x: jnp.sum((x - a) ** 2), jnp.zeros(2), callback=callback).fun)
    assert not _watch._watchers or all(watcher.compiled for watcher in _watch._watchers.values())


def test_a_callback_is_given_the_arrays_of_x0_that_do_not_vary():
    seen = []
    x0 = {"w": jnp.zeros(2), "flags": jnp.array([True, False])}
    fun = lambda p: jnp.sum((p["w"] - p["flags"]) ** 2)
    jax.jit(lambda p: minimize(fun, p, callback=seen.append).x["w"])(x0).block_until_ready()
    assert seen and seen[-1]["flags"].tolist() == [True, False]
