"""Callbacks and printed lines come in order from inside the compiled loop, which is unchanged where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import START, compilations
from problems import rosenbrock

import jaxmin
from jaxmin import Status, minimize
from jaxmin._driver import callbacks as _watch


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "cg", "gradient_descent", "trust_ncg", "nesterov"])
@pytest.mark.rounding
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
    assert (int(res.status), res.success) == (Status.CALLBACK, False)
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
    assert [(int(r.nit), int(r.status)) for r in results] == [(2, Status.CALLBACK)] * 2


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
    assert Status.CALLBACK in batch.status.tolist() and 0 in batch.status.tolist()
    assert batch.nit.tolist() == [int(res.nit) for res in alone]
    assert len(seen) == int(batch.nit.sum())


def test_disp_prints_a_line_an_iteration_and_nothing_else(capfd):
    res = minimize(rosenbrock, START, options={"disp": True})
    jax.vmap(lambda x0: minimize(rosenbrock, x0, options={"disp": True}).x)(jnp.array([START]))
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 * int(res.nit)
    assert lines[0].split()[:2] == ["iteration", "1"] and all("|g|" in line for line in lines)


def test_disp_of_a_method_without_gradient_shows_none(capfd):
    minimize(rosenbrock, START, method="nelder_mead", options={"disp": True, "maxiter": 3})
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 3 and not any("|g|" in line for line in lines) and all("evaluations" in line for line in lines)


def test_disp_of_a_batch_names_the_lanes(capfd):
    starts = jnp.array([[START, [2.0, 2.0], [0.5, 0.5]]])
    res = jax.vmap(jax.vmap(lambda x0: minimize(rosenbrock, x0, options={"disp": True})))(starts)
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    for lane in range(3):
        own = [line for line in lines if line[:3] == ["lane", "0,", str(lane)]]
        assert [int(line[4]) for line in own] == list(range(1, int(res.nit[0, lane]) + 1))


def test_an_exception_in_one_lane_ends_all():
    seen = []

    def callback(x):
        seen.append(x)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        jax.vmap(lambda x0: minimize(rosenbrock, x0, callback=callback))(jnp.array([START, [2.0, 2.0], [0.5, 0.5]]))
    assert len(seen) == 1


def test_a_new_callback_compiles_nothing():
    minimize(rosenbrock, START, callback=lambda x: None)
    with compilations() as programs:
        minimize(rosenbrock, START, callback=lambda x: False)
    assert not [program for program in programs if "solve" in program]


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


@pytest.mark.parametrize("method", ["lbfgs", "newton_cg"])
def test_in_a_box_what_is_shown_is_the_norm_that_gtol_is_compared_with(monkeypatch, capfd, method):
    bars = Bars(monkeypatch)
    in_box = {"method": method, "bounds": [(None, 0.5), (None, None)]}
    res = minimize(rosenbrock, START, options={"history": True, "disp": True}, **in_box)
    assert res.success and res.active_mask.tolist() == [1, 0] and abs(res.jac[0]) > 0.5
    assert res.history.gnorm[int(res.nit)] == res.gnorm <= 1e-5
    assert f"|g| = {float(res.gnorm):<10.3g} " in capfd.readouterr().out.splitlines()[-1]
    minimize(rosenbrock, START, progress=True, **in_box)
    assert bars.made[0].figures[-1]["|g|"] == f"{float(res.gnorm):.3g}"


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
    assert Status.CALLBACK.success is False


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


# ---- x in the history


@pytest.mark.parametrize("method", ["lbfgs", "nelder_mead"])
def test_history_keeps_x_on_request(method):
    seen = []
    x0 = {"a": jnp.array([[-1.2], [1.0]]), "b": jnp.array(0.5, "float32"), "flag": jnp.array(True)}
    fun = lambda p: rosenbrock(jnp.append(p["a"], p["b"].astype(float)))
    options = {"history": 12, "history_x": True, "maxiter": 30}
    res = minimize(fun, x0, method=method, callback=seen.append, options=options)
    x = res.history.x
    assert x["a"].shape == (12, 2, 1) and x["b"].shape == (12,) and x["b"].dtype == "float32" and x["flag"] is None
    np.testing.assert_array_equal(x["a"], [p["a"] for p in seen[-12:]])
    np.testing.assert_array_equal(x["b"], [p["b"] for p in seen[-12:]])
    short = minimize(fun, x0, method=method, options=options | {"maxiter": 3}).history.x["a"]
    assert np.array_equal(short[0], x0["a"]) and np.all(np.isnan(short[4:]))
    assert minimize(fun, x0, method=method, options={"history": 3}).history.x is None


def test_x_in_a_history_that_is_off_is_refused():
    with pytest.raises(ValueError, match=r"options\['history_x'\].*options\['history'\]"):
        minimize(rosenbrock, START, options={"history_x": True})
    with pytest.raises(TypeError, match=r"options\['history_x'\]=2"):
        minimize(rosenbrock, START, options={"history": 3, "history_x": 2})


# ---- traced callbacks


@pytest.mark.parametrize("method", ["lbfgs", "trust_ncg", "nelder_mead", "nesterov"])
@pytest.mark.parametrize("outer", [lambda solve: solve, jax.jit], ids=["alone", "jit"])
@pytest.mark.rounding
def test_a_traced_callback_ends_the_solve_where_one_on_the_host_does(method, outer):
    options = {"learning_rate": 1e-4, "mass": 0.5, "maxiter": 60} if method == "nesterov" else {}
    said = lambda intermediate_result: intermediate_result.fun < 4.1
    results = [
        outer(lambda x0, c=c: minimize(rosenbrock, x0, method=method, callback=c, options=options))(jnp.array(START))
        for c in (jaxmin.traced(said), lambda intermediate_result: bool(said(intermediate_result)))
    ]
    assert [int(res.status) for res in results] == [Status.CALLBACK] * 2
    assert results[0].nit == results[1].nit and np.array_equal(results[0].x, results[1].x)


def test_a_traced_callback_sees_the_iterate():
    """What it sees, it can only tell by ending the solve: where x, f, its gradient and the counts are all right."""
    x0 = {"w": jnp.array([-1.2, 1.0]), "z": jnp.array(1 + 1j), "name": "kept"}
    fun = lambda p: rosenbrock(p["w"]) + jnp.abs(p["z"]) ** 2
    free = minimize(fun, x0, options={"history": 100})

    def callback(intermediate_result):
        r = intermediate_result
        assert r.x["name"] == "kept"
        g = jax.grad(fun)({"w": r.x["w"], "z": r.x["z"]})
        right = jnp.allclose(r.fun, fun(r.x)) & jnp.allclose(r.jac["w"], g["w"]) & jnp.allclose(r.jac["z"], g["z"])
        counts = jnp.any((free.history.nit == r.nit) & (free.history.nfev == r.nfev))
        return ~(right & counts & (r.njev == r.nfev) & (r.nit > 0))

    res = minimize(fun, x0, callback=jaxmin.traced(callback))
    assert res.success and res.nit == free.nit
    assert minimize(fun, x0, callback=jaxmin.traced(lambda x: x["w"][0] > 0)).status == Status.CALLBACK


def test_a_traced_callback_needs_no_host():
    def text(callback):
        solve = jax.jit(lambda x0: minimize(rosenbrock, x0, callback=callback))
        return solve.lower(jnp.array(START)).compile().as_text()

    assert "custom_call_target" in text(lambda x: None)
    assert "custom_call_target" not in text(jaxmin.traced(lambda x: x[0] > 0))


def test_a_traced_callback_under_vmap_and_grad():
    starts, limit = jnp.array([START, [2.0, 2.0], [0.5, 0.5]]), jnp.array([0.5, 1.0, -1.0])
    solve = lambda x0, a: minimize(rosenbrock, x0, callback=jaxmin.traced(lambda x: x[0] < a))
    batch = jax.vmap(solve)(starts, limit)
    alone = [solve(x0, a) for x0, a in zip(starts, limit)]
    assert batch.status.tolist() == [int(res.status) for res in alone] and set(batch.status.tolist()) == {
        0,
        Status.CALLBACK,
    }
    assert batch.nit.tolist() == [int(res.nit) for res in alone]

    def nearest(a, f):
        callback = jaxmin.traced(lambda intermediate_result: intermediate_result.fun < f * a)
        return minimize(lambda x: jnp.sum((x - a) ** 2) + jnp.sum(x**4), jnp.zeros(2), callback=callback).x[0]

    never = jax.grad(nearest)(2.0, -1.0)
    plain = jax.grad(lambda a: minimize(lambda x: jnp.sum((x - a) ** 2) + jnp.sum(x**4), jnp.zeros(2)).x[0])(2.0)
    assert never == plain and np.isfinite(never)
    assert np.isnan(jax.grad(nearest)(2.0, 1e3))  # it was ended elsewhere than at a minimum


def test_a_traced_callback_may_print_and_answer_nothing(capfd):
    callback = jaxmin.traced(lambda intermediate_result: jax.debug.print("at {}", intermediate_result.nit))
    res = minimize(rosenbrock, START, callback=callback)
    jax.effects_barrier()
    assert capfd.readouterr().out.split() == [word for i in range(int(res.nit)) for word in ("at", str(i + 1))]
    assert np.array_equal(res.x, minimize(rosenbrock, START).x)


def test_a_traced_callback_of_the_same_body_compiles_nothing():
    solve = lambda a: minimize(rosenbrock, START, callback=jaxmin.traced(lambda x: x[0] > a))
    first = solve(jnp.array(0.0))
    with compilations() as programs:
        second = solve(jnp.array(0.5))
    assert not [program for program in programs if "solve" in program]
    assert first.nit < second.nit


@pytest.mark.parametrize("answer", ["stop", 1, np.array([True, True]), jnp.ones(())])
def test_a_traced_callback_answers_a_boolean_or_nothing(answer):
    with pytest.raises(TypeError, match="callback: the traced function returned"):
        minimize(rosenbrock, START, callback=jaxmin.traced(lambda x: answer))
    with pytest.raises(TypeError, match=r"traced\(3\)"):
        jaxmin.traced(3)


# ---- progress


class Bars:
    """What tqdm would show, without drawing it."""

    def __init__(self, monkeypatch):
        tqdm = pytest.importorskip("tqdm.auto")
        self.made, bars = [], self

        class Bar:
            def __init__(self, total, unit):
                self.total, self.unit, self.n, self.figures, self.closed = total, unit, 0, [], False
                bars.made.append(self)

            def set_postfix(self, figures, refresh):
                self.figures.append(figures)

            def update(self, n):
                assert not self.closed
                self.n += n

            def refresh(self):
                pass

            def close(self):
                self.closed = True

        Bar.write = staticmethod(print)
        monkeypatch.setattr(tqdm, "tqdm", Bar)


@pytest.mark.parametrize("maxiter", [None, 7])
@pytest.mark.parametrize("method", ["lbfgs", "nelder_mead"])
def test_a_bar_counts_iterations_and_closes(monkeypatch, method, maxiter):
    bars = Bars(monkeypatch)
    options = {} if maxiter is None else {"maxiter": maxiter}
    res = minimize(rosenbrock, START, method=method, progress=True, options=options)
    (bar,) = bars.made
    assert (bar.n, bar.total, bar.unit, bar.closed) == (int(res.nit), maxiter, "it", True)
    last = bar.figures[-1]
    assert last["f"] == f"{float(res.fun):.6g}" and last["evaluations"] == res.nfev
    assert ("|g|" in last) == (res.jac is not None)
    assert np.array_equal(res.x, minimize(rosenbrock, START, method=method, options=options).x)


def test_in_a_batch_a_bar_counts_the_lanes_that_have_ended(monkeypatch):
    bars = Bars(monkeypatch)
    starts = jnp.array([START, [2.0, 2.0], [jnp.nan, 0.0], [0.5, 0.5]])
    res = jax.vmap(lambda x0: minimize(rosenbrock, x0, progress=True))(starts)
    (bar,) = bars.made
    assert (bar.n, bar.total, bar.unit, bar.closed) == (4, 4, "lane", True)
    assert bar.figures[-1] == {"iterations": int(res.nit.max()), "evaluations": int(res.nfev.sum())}


def test_a_bar_closes_on_exceptions_and_under_jit(monkeypatch):
    bars = Bars(monkeypatch)

    def callback(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        minimize(rosenbrock, START, callback=callback, progress=True)
    solve = jax.jit(lambda x0: minimize(rosenbrock, x0, progress=True, options={"maxfun": 5}).x)
    for _ in range(2):  # each run has a bar of its own
        solve(jnp.array(START)).block_until_ready()
    assert [bar.closed for bar in bars.made] == [True] * 3


def test_the_real_bar(capfd):
    pytest.importorskip("tqdm")
    res = minimize(rosenbrock, START, progress=True, options={"disp": True})
    said = capfd.readouterr()
    assert f"evaluations={int(res.nfev)}" in said.err and len(said.out.strip().splitlines()) == res.nit


def test_without_tqdm_a_bar_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"jaxmin\[progress\]"):
        minimize(rosenbrock, START, progress=True)
    with pytest.raises(TypeError, match="progress=1"):
        minimize(rosenbrock, START, progress=1)


@pytest.mark.parametrize(
    "true", [True, np.True_, np.array(True), jnp.array(True)], ids=("bool", "NumPy", "array", "JAX")
)
def test_any_true_boolean_ends_the_solve(true):
    assert minimize(rosenbrock, jnp.array([-1.2, 1.0]), callback=lambda x: true).status == 99
