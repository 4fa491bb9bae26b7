"""Ctrl-C: a solve ends soon, what it has found is not lost, and the next call works."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import jaxmin

# The solve would take minutes; the interrupt comes after a random time, many times in one process.
_SCRIPT = """
    import os, random, signal, sys, threading, time
    import jax, jax.numpy as jnp, numpy as np, jaxmin

    fun = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    x0 = np.full(50, -1.2, np.float32)
    forever = {"maxiter": 10**9, "maxfun": 10**9, "gtol": 0, "learning_rate": 1e-9}

    def solve(options=forever, **more):
        return jaxmin.minimize(fun, x0, method="sgd", options=options, **more)

    def run(max_steps=None):
        solver = jaxmin.Solver(fun, method="sgd", options=forever)
        return solver.run(solver.init(x0), max_steps)

    short = forever | {"maxiter": 3}
    calls = {
        "plain": solve,
        "callback": lambda options=forever: solve(options, callback=lambda x: None),
        "disp": lambda options=forever: solve(options | {"disp": True}),
        "bar": lambda options=forever: solve(options, progress=True),
    }
    name, times = sys.argv[1], int(sys.argv[2])
    call, few = (run, lambda: run(3)) if name == "solver" else (calls[name], lambda: calls[name](short))
    few()
    rng, sent = random.Random(0), [0.0]

    def interrupt():
        sent[0] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(times):
        timer = threading.Timer(rng.uniform(0.05, 0.6), interrupt)
        timer.start()
        try:
            call()
        except KeyboardInterrupt as error:
            late, result, state = time.perf_counter() - sent[0], error.result, error.state
        else:
            sys.exit("the solve was not interrupted")
        timer.join()
        assert result.x.shape == x0.shape and np.isfinite(result.fun) and result.status == -1, result
        assert name != "solver" or state.nit == result.nit
        assert result.nfev > 0 and result.fun <= fun(x0), result
        print("late", late, file=sys.stderr)
        few()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def interrupted(name, times, script=_SCRIPT):
    """The seconds between each signal and the exception."""
    root = str(pathlib.Path(jaxmin.__file__).parent.parent)
    command = [sys.executable, "-c", textwrap.dedent(script), name, str(times)]
    environment = os.environ | {"PYTHONPATH": root}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return [float(line.split()[1]) for line in ended.stderr.splitlines() if line.startswith("late ")]


_MANY = """
    import os, random, signal, sys, threading, time
    import jax, jax.numpy as jnp, numpy as np, jaxmin

    def fun(x, goal):
        return jnp.sum((x - goal) ** 2)

    # The first hundred have the least value at their start, the others never end.
    goals = np.where(np.arange(300) < 100, 1.0, 2.0).astype(np.float32)
    x0 = np.ones((300, 5), np.float32)
    settings = {"method": "sgd", "args": (goals,), "progress": sys.argv[1] == "bar"}
    more = {"chunk": 120} if sys.argv[1] == "chunks" else {}
    forever = {"maxiter": 10**9, "maxfun": 10**9, "gtol": 1e-30, "learning_rate": 1e-12}

    def solve(maxiter):
        return jaxmin.minimize_many(fun, x0, **settings, **more, options=forever | {"maxiter": maxiter})

    solve(3)
    rng, sent = random.Random(0), [0.0]

    def interrupt():
        sent[0] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(int(sys.argv[2])):
        timer = threading.Timer(rng.uniform(0.5, 1.2), interrupt)
        timer.start()
        try:
            solve(10**9)
        except KeyboardInterrupt as error:
            late, result = time.perf_counter() - sent[0], error.result
        else:
            sys.exit("the batch was not interrupted")
        timer.join()
        assert result.x.shape == x0.shape and np.all(result.status[100:] == -1), result.status
        assert np.all(result.success[:100]) and np.all(result.x[:100] == 1), result.status
        assert np.all(np.isnan(result.fun[100:]))
        print("late", late, file=sys.stderr)
        assert np.all(solve(3).status[100:] != -1)
"""


@pytest.mark.parametrize("name", ["at once", "chunks", "bar"])
def test_ctrl_c_ends_a_batch_and_loses_nothing(name):
    late = interrupted(name, 2, _MANY)
    assert len(late) == 2 and max(late) < 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["at once", "chunks", "bar"])
def test_no_interrupt_of_a_batch_is_late(name):
    late = interrupted(name, 20, _MANY)
    assert len(late) == 20 and max(late) < 1


@pytest.mark.parametrize("name", ["plain", "callback", "disp", "bar", "solver"])
def test_ctrl_c_ends_a_solve_and_loses_nothing(name):
    late = interrupted(name, 3)
    # The time is no claim of speed: without the mechanism the solve takes minutes.
    assert len(late) == 3 and max(late) < 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "callback", "disp", "bar", "solver"])
def test_no_interrupt_is_late(name):
    late = interrupted(name, 20)
    assert len(late) == 20 and max(late) < 1
