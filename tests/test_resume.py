"""A saved state goes on in another process, bit for bit, and a warm start saves iterations."""

import functools
import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import START, identical
from problems import rosenbrock

import jaxmin
from jaxmin import Solver, minimize

KILLS = 8
CHILD = textwrap.dedent(
    """
    import os, sys
    import jax, jax.numpy as jnp
    jax.config.update("jax_enable_x64", True)
    import jaxmin

    def rosenbrock(x):
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    solver = jaxmin.Solver(rosenbrock, options={"history": 400, "history_x": True})
    x0, path = jnp.tile(jnp.array([-1.2, 1.0]), 10), sys.argv[1]
    step = jax.jit(solver.step)
    input()  # ready
    state = solver.load(path, x0) if os.path.exists(path) else solver.init(x0)
    while not state.done:
        state = step(state)
        solver.save(path, state)
        print(int(state.nfev), flush=True)
    """
)


def halfway(**settings):
    solver = Solver(rosenbrock, **settings)
    return solver, solver.run(solver.init([-1.2, 1.0] * 3), max_steps=20)


@pytest.mark.rounding
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_process_killed_at_random_points_ends_where_an_undisturbed_one_does(tmp_path):
    """The child is killed after a random number of further steps, wherever it then is, and another goes on.

    The next one imports what it needs meanwhile, and waits for a word.
    """
    path, chance = tmp_path / "state.npz", random.Random(0)
    root = str(pathlib.Path(jaxmin.__file__).parents[1])
    cache = jax.config.jax_compilation_cache_dir or str(tmp_path)
    env = os.environ | {
        "PYTHONPATH": root, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    start = lambda: subprocess.Popen([sys.executable, "-c", CHILD, str(path)], env=env, cwd=tmp_path, **pipes)

    def go(child):
        child.stdin.write("go\n")
        child.stdin.flush()

    reached, child = [], start()
    for _ in range(KILLS):
        go(child)
        following = start()
        for _ in range(chance.randint(1, 6)):
            line = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.003))  # somewhere in a step, or in the writing of a state
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        for pipe in (child.stdin, child.stdout):
            pipe.close()
        reached.append(int(line))
        child = following
    assert reached == sorted(reached) and len(set(reached)) == KILLS
    with child:
        go(child)
        child.stdout.read()
    assert child.returncode == 0

    solver = Solver(rosenbrock, options={"history": 400, "history_x": True})
    x0 = jnp.tile(jnp.array([-1.2, 1.0]), 10)
    res = minimize(rosenbrock, x0, options={"history": 400, "history_x": True})
    assert res.nfev > reached[-1] and res.success
    assert identical(solver.result(solver.load(path, x0)), res)  # every iterate, in the history


def test_pickle():
    solver, state = halfway()
    again = pickle.loads(pickle.dumps(state))
    assert identical(solver.run(again), solver.run(state))


def test_numpy(tmp_path):
    solver, state = halfway(method="bfgs")
    np.savez(tmp_path / "state.npz", *jax.tree.leaves(state))
    with np.load(tmp_path / "state.npz") as file:
        leaves = list(file.values())
    again = jax.tree.unflatten(jax.tree.structure(solver.init([0.0] * 6)), leaves)
    assert identical(solver.run(again), solver.run(state))


def test_orbax(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    solver, state = halfway()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        again = checkpointer.restore(tmp_path / "state", solver.init([0.0] * 6))
    assert identical(again, state) and identical(solver.run(again), solver.run(state))


@pytest.mark.parametrize("method", ["nelder_mead", "trust_ncg", "adam"])
def test_save_and_load(tmp_path, method):
    """A start of narrow numbers, arguments of all kinds, a random key."""
    options = {"learning_rate": 0.1} if method == "adam" else {}

    def fun(x, data, key, scale):
        noise = jax.random.normal(key, (3,)).astype(x["w"].dtype)
        return scale * jnp.sum((x["w"].astype("float32") - data["y"] - noise) ** 4)

    solver = Solver(fun, method, options=options | {"maxiter": 60})
    x0 = {"w": jnp.zeros(3, "bfloat16"), "name": "kept"}
    args = {"y": jnp.array([1, 2, 3], "bfloat16"), "unused": None}, jax.random.key(3), 2.0
    state = solver.run(solver.init(x0, *args), max_steps=15)
    solver.save(tmp_path / "state", state)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    other = {"y": jnp.zeros(3, "bfloat16"), "unused": None}, jax.random.key(0), 0.0
    again = solver.load(tmp_path / "state", x0, *other)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    plain = functools.partial(jax.tree.map, lambda u: jax.random.key_data(u) if u.dtype == args[1].dtype else u)
    assert identical(plain(solver.run(again)), plain(solver.run(state)))
    assert again.x["name"] == "kept" and solver.run(again).nfev > state.nfev


def test_a_batch_is_saved_whole(tmp_path):
    solver = Solver(rosenbrock)
    init = jax.vmap(solver.init)
    states = jax.vmap(lambda state: solver.run(state, max_steps=9))(init(jnp.array([[-1.2, 1.0], [2.0, 2.0]])))
    np.savez(tmp_path / "states.npz", *jax.tree.leaves(states))
    with np.load(tmp_path / "states.npz") as file:
        again = jax.tree.unflatten(jax.tree.structure(init(jnp.zeros((2, 2)))), list(file.values()))
    run = jax.vmap(solver.run)
    assert identical(run(again), run(states))


@pytest.mark.parametrize("broken", ["empty", "text", "half"])
def test_a_broken_file_is_refused_by_its_name(tmp_path, broken):
    path, solver = tmp_path / "state.npz", Solver(rosenbrock)
    solver.save(path, solver.init(START))
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2]}[broken])
    with pytest.raises(ValueError, match=r"state\.npz': broken, or not a file of Solver\.save"):
        solver.load(path, START)
    with pytest.raises(FileNotFoundError):
        solver.load(tmp_path / "none.npz", START)


def test_a_save_that_fails_leaves_nothing_behind(tmp_path):
    solver = Solver(rosenbrock)
    state = solver.run(solver.init(START), max_steps=3)
    folder, path = tmp_path / "folder", tmp_path / "state.npz"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        solver.save(folder, state)
    solver.save(path, state)
    with pytest.raises(TypeError, match="give a SolverState"):
        solver.save(path, solver.result(state))
    assert sorted(tmp_path.iterdir()) == [folder, path]
    assert solver.load(path, START).nfev == 3


def test_a_state_outside_of_the_bounds_is_refused():
    x0 = [-1.2, 0.3]
    wide, narrow = Solver(rosenbrock, bounds=[(-2, 2)] * 2), Solver(rosenbrock, bounds=[(-2, 0.5)] * 2)
    state = wide.run(wide.init(x0))
    for goes_on in (narrow.result, narrow.run, narrow.step):
        with pytest.raises(ValueError, match=r"state: its x is outside of the bounds .* solver\.init\(state\.x\)"):
            goes_on(state)
    assert narrow.run(narrow.init(state.x)).x.max() <= 0.5
    inside = narrow.run(narrow.init(x0), max_steps=2)  # what other bounds allow too goes on
    assert wide.run(inside).done


@pytest.mark.parametrize(
    ("solver", "x0", "words"),
    [
        (Solver(rosenbrock), [1.0, 2.0], "of shape"),
        (Solver(rosenbrock, "nelder_mead"), [1.0] * 6, "arrays, where this solver"),
        (Solver(rosenbrock), jnp.ones(6, "float32"), "float64"),
    ],
)
def test_a_file_of_another_solve_is_refused(tmp_path, solver, x0, words):
    own, state = halfway()
    own.save(tmp_path / "state.npz", state)
    with pytest.raises(ValueError, match=words):
        solver.load(tmp_path / "state.npz", x0)


# ---- warm starts


def ridge(x, weight):
    """Rosenbrock's valley with a weight on the size of x: problems near each other for weights near each other."""
    return rosenbrock(x) + weight * jnp.sum(x**2)


@pytest.mark.parametrize(("method", "options", "n"), [("lbfgs", {}, 4), ("lbfgs", {"maxcor": 3}, 30), ("bfgs", {}, 4)])
def test_the_first_step_is_along_the_curvature_of_the_earlier_result(method, options, n):
    earlier = minimize(ridge, [0.5] * n, (0.1,), method=method, options=options)
    x0 = earlier.x + 1e-4
    warm = options | {"warm_start": earlier, "maxfun": 2, "history": 3, "history_x": True}
    res = minimize(ridge, x0, (0.1,), method=method, options=warm)
    assert np.array_equal(res.history.x[0], x0)
    g = jax.grad(ridge)(x0, 0.1)
    H = earlier.hess_inv if method == "bfgs" else earlier.hess_inv.todense()
    np.testing.assert_allclose(res.history.x[1] - x0, -H @ g, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", ["lbfgs", "bfgs"])
def test_it_saves_evaluations_on_a_path_and_ends_at_the_same_points(method):
    weights = np.geomspace(1.0, 0.1, 6)
    totals = {}
    for warm in (False, True):
        res, total = minimize(ridge, [0.5] * 10, (weights[0],), method=method), 0
        for weight in weights[1:]:
            more = {"warm_start": res} if warm else {}
            res = minimize(ridge, res.x, (weight,), method=method, options={"gtol": 1e-6, **more})
            assert res.success
            total += int(res.nfev)
        totals[warm] = total, res.x
    assert totals[True][0] < 0.8 * totals[False][0]
    np.testing.assert_allclose(totals[True][1], totals[False][1], atol=1e-5)


@pytest.mark.parametrize(
    ("earlier", "later", "n"),
    [
        ("lbfgs", "lbfgs", 6),
        ("bfgs", "lbfgs", 6),
        (jaxmin.lbfgs(memory=4), "lbfgs", 6),
        (jaxmin.lbfgs(memory=15), jaxmin.lbfgs(memory=4), 6),
        ("lbfgs", jaxmin.lbfgs(memory=15), 40),
        ("lbfgs", "bfgs", 6),
        ("lbfgs", "bfgs", 40),
    ],
)
def test_curvature_crosses_memories_and_forms(earlier, later, n):
    res = minimize(ridge, [0.5] * n, (0.1,), method=earlier)
    again = minimize(ridge, res.x + 1e-3, (0.1,), method=later, options={"warm_start": res})
    cold = minimize(ridge, res.x + 1e-3, (0.1,), method=later)
    assert again.success and again.nfev < cold.nfev


def test_it_works_on_trees_under_jit_and_vmap():
    fun = lambda p, a: rosenbrock(jnp.append(p["w"], p["b"])) + a * p["b"] ** 2
    x0 = {"w": jnp.array([-1.2, 1.0, 0.3]), "b": jnp.array(0.5)}

    def twice(a):
        first = minimize(fun, x0, (a,))
        return first, minimize(fun, first.x, (2 * a,), options={"warm_start": first})

    first, second = jax.jit(twice)(0.1)
    assert identical(second, minimize(fun, first.x, (0.2,), options={"warm_start": first}))
    batch = jax.vmap(twice)(jnp.array([0.1, 0.3]))[1]
    assert batch.success.all() and batch.nfev[0] == second.nfev
    derivative = jax.grad(lambda a: twice(a)[1].x["b"])(0.1)
    np.testing.assert_allclose(derivative, 2 * jax.grad(lambda a: minimize(fun, x0, (a,)).x["b"])(0.2), rtol=1e-3)


def test_a_result_that_learnt_nothing_is_a_cold_start():
    at_minimum = minimize(rosenbrock, [1.0, 1.0])
    assert at_minimum.nit == 0
    warm = minimize(rosenbrock, [-1.2, 1.0], options={"warm_start": at_minimum})
    assert identical(warm, minimize(rosenbrock, [-1.2, 1.0]))


def test_in_a_dtype_of_its_own():
    res = minimize(rosenbrock, [-1.2, 1.0])
    again = minimize(rosenbrock, jnp.array([0.9, 0.9], "float32"), options={"warm_start": res})
    assert again.success and again.x.dtype == "float32" and again.hess_inv.dtype == "float32"


LIMITED = jaxmin.lbfgs(memory=5)


@pytest.mark.parametrize(
    ("error", "words", "method", "earlier"),
    [
        (ValueError, "'bfgs' and 'lbfgs' begin with", "cg", lambda: minimize(rosenbrock, [0.0, 0.0])),
        (ValueError, "'bfgs' and 'lbfgs' begin with", "sgd", lambda: minimize(rosenbrock, [0.0, 0.0])),
        (ValueError, "has no hess_inv", "lbfgs", lambda: minimize(rosenbrock, [0.0, 0.0], method="cg")),
        (ValueError, "3 variables for an x0 of 2", "lbfgs", lambda: minimize(rosenbrock, [0.0] * 3)),
        (ValueError, "3 variables for an x0 of 2", "bfgs", lambda: minimize(rosenbrock, [0.0] * 3, method="bfgs")),
        (ValueError, r"needs \(s, y\) pairs", LIMITED, lambda: minimize(rosenbrock, [0.0] * 2, method="bfgs")),
        (ValueError, r"needs \(s, y\) pairs", LIMITED, lambda: minimize(rosenbrock, [0.0] * 2)),
        (TypeError, "a result of minimize", "lbfgs", lambda: 3),
        (ValueError, "batch", "lbfgs", lambda: jax.vmap(lambda x: minimize(rosenbrock, x))(jnp.zeros((5, 2)))),
        (ValueError, "batch", "bfgs", lambda: _batch_of_bfgs()),
    ],
)
def test_what_cannot_be_begun_with_is_refused(error, words, method, earlier):
    options = {"warm_start": earlier()} | ({"learning_rate": 0.1} if method == "sgd" else {})
    with pytest.raises(error, match="warm_start.*" + words):
        minimize(rosenbrock, [0.0, 0.0], method=method, options=options)


def _batch_of_bfgs():
    return jax.vmap(lambda x: minimize(rosenbrock, x, method="bfgs"))(jnp.zeros((5, 2)))
