"""Leaves of x0 that stay apart, on one device or on several, give the solve that joined leaves give.

Several devices are processes of their own (``sharded.py``).
"""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, mostly
from sharded import SIZE

import jaxmin

SCRIPT = pathlib.Path(__file__).parent / "sharded.py"
X0 = {"a": np.ones((2, 3)), "b": np.ones(2, np.float32), "z": np.asarray(2j)}
REAL = {"a": np.ones((2, 3)), "b": np.ones(2), "c": np.asarray(2.0)}
APART, JOINED = {"flat": False}, {"flat": True}


def mixed(x, t):
    quartic = jnp.sum((x["b"] - t) ** 2) + jnp.sum(x["b"] ** 4)
    return jnp.sum(jnp.cosh(x["a"] - t)) + quartic + jnp.abs(x["z"] - 1j * t) ** 2 * (1 + x["a"][0, 0] ** 2)


def real(x, t):
    return jnp.sum(jnp.cosh(x["a"] - t)) + jnp.sum((x["b"] - t) ** 2 + x["b"] ** 4) + (x["c"] - x["a"][0, 0]) ** 2


METHODS = {
    "lbfgs": {}, "cg": {}, "gradient_descent": {}, "newton_cg": {}, "trust_ncg": {}, "trust_krylov": {},
    "adam": {"learning_rate": 0.1, "maxiter": 30},
}  # fmt: skip


KINDS = [("lbfgs", False), ("lbfgs", True), ("newton_cg", False), ("trust_ncg", False), ("adam", False)]


@pytest.mark.parametrize(
    ("method", "bounded"),
    [
        pytest.param(*kind, marks=() if kind in KINDS else pytest.mark.slow)
        for kind in [*((method, False) for method in METHODS), ("lbfgs", True), ("trust_ncg", True)]
    ],
)
def test_apart_is_joined(method, bounded):
    bounds = jaxmin.Bounds(-1, {"a": np.full((2, 3), 0.3), "b": 0.9, "c": None}) if bounded else None
    solve = lambda form: jaxmin.minimize(
        real, REAL, args=(0.7,), method=method, bounds=bounds, options=form | METHODS[method]
    )
    apart, joined = solve(APART), solve(JOINED)
    assert apart.status == joined.status == (1 if method == "adam" else 0)
    assert_trees_close(apart.x, joined.x, rtol=1e-5, atol=1e-5)
    if bounded:
        assert_trees_close(apart.active_mask, joined.active_mask, rtol=0, atol=0)
        assert int(jnp.sum(apart.active_mask["a"])) == 6
    else:  # what the message tells, without a look at the whole gradient
        np.testing.assert_allclose(apart.gnorm, max(float(jnp.max(jnp.abs(g))) for g in apart.jac.values()))


def test_complex_and_narrow_leaves_and_all_that_a_result_holds():
    solve = lambda form, **more: jaxmin.minimize(mixed, X0, args=(0.7,), options=form | more)
    apart = solve(APART, history=4, history_x=True)
    joined = solve(JOINED)
    assert apart.success
    assert_trees_close(apart.x, joined.x, rtol=1e-4, atol=1e-4)
    assert_trees_close(apart.jac, joined.jac, rtol=1e-4, atol=1e-4)
    assert_trees_close(apart.hess_inv @ X0, joined.hess_inv @ X0, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(apart.hess_inv.todense(), joined.hess_inv.todense(), atol=1e-3)
    last = jax.tree.map(lambda u: u[-1], apart.history.x)
    assert_trees_close(last, apart.x, rtol=0, atol=0)

    warm = solve(APART, warm_start=apart)
    assert warm.success and warm.nit < apart.nit
    for form, earlier, words in (
        (APART, joined, "a tuple of the leaves of x0"),
        (JOINED, apart, "one flat vector"),
    ):
        with pytest.raises(ValueError, match=rf"warm_start.*{words}"):
            solve(form, warm_start=earlier)


@pytest.mark.rounding
def test_a_solver_keeps_them_apart():
    solver = jaxmin.Solver(real, options=APART)
    state = solver.run(solver.run(solver.init(REAL, 0.7), 3))
    res = jaxmin.minimize(real, REAL, args=(0.7,), options=APART)
    assert_trees_close(solver.result(state).x, res.x, rtol=0, atol=0)
    assert_trees_close(solver.result(state).hess_inv.core(), res.hess_inv.core(), rtol=0, atol=0)


@pytest.mark.parametrize("upper", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_derivatives_of_what_is_apart(upper):
    bounds = None if upper is None else jaxmin.Bounds(-2, {"a": upper, "b": None, "c": None})

    def total(t, form):
        res = jaxmin.minimize(real, REAL, args=(t,), bounds=bounds, options=form | {"gtol": 1e-10})
        return jnp.sum(res.x["a"]) + res.fun  # of b alone nothing is asked

    for derivative in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(derivative(total)(0.7, APART), derivative(total)(0.7, JOINED), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"method": "bfgs"}, ValueError, r"options\['flat'\]=False: .* use one of 'cg', "),
        ({"method": "nelder_mead"}, ValueError, r"options\['flat'\]=False"),
        ({"method": "trust_ncg", "hess": jax.hessian(real)}, ValueError, "give hessp"),
        ({"flat": 3}, TypeError, r"options\['flat'\]=3: True, False or None"),
    ],
)
def test_refusals(settings, error, words):
    options = {"flat": settings.pop("flat", False)}
    with pytest.raises(error, match=words):
        jaxmin.minimize(real, REAL, args=(0.7,), options=options, **settings)


# ---- several devices


def environment(devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(pathlib.Path(jaxmin.__file__).parent.parent),
        "XLA_FLAGS": flags,
    }  # fmt: skip


def run(devices, *argument_lists):
    """What the script printed, once for each list of arguments, all at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            env=environment(devices), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for arguments in argument_lists
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, ended):
        assert process.returncode == 0, errors
    return [json.loads(printed.splitlines()[-1]) for printed, _ in ended]


@functools.cache
def on_eight():
    return run(8, ["devices", "lbfgs"])[0]


@pytest.mark.slow
def test_data_spread_over_devices_is_not_gathered():
    (found,) = run(8, ["data"])
    assert found["gap"] < 1e-12 and found["gap_closed_over"] < 1e-12
    assert max(found["moved"].values()) <= 5  # a gradient


@pytest.mark.parametrize("method", mostly(("lbfgs", "cg", "trust_ncg"), "lbfgs"))
def test_an_x0_spread_over_devices_stays_there(method):
    found = (on_eight() if method == "lbfgs" else run(8, ["spread", method])[0])[method]
    assert found["success"] and found["kept"]
    assert found["gap"] < 2e-5  # both are within gtol, 1e-5, of the minimum: the curvature is 1 and more
    moved = found["moved"]
    assert moved["all-reduce"] <= 20  # inner products, with each of the pairs at most
    assert moved["all-gather"] == moved["all-to-all"] == moved["collective-permute"] == 0


def test_an_eighth_of_the_memory():
    found = on_eight()["lbfgs"]
    assert all(found["rows_kept"])
    (kept, within), (kept_by_all, within_all) = found["memory"], found["memory_replicated"]
    assert 7.95 < kept_by_all / kept <= 8
    assert 7 < (kept_by_all + within_all) / (kept + within) <= 8  # less is fused: one array like x stays, or two


def test_bounds_and_derivatives_of_what_is_spread():
    found = on_eight()["box"]
    assert found["kept"] and found["held"] > 0
    assert found["slope_gap"] < 1e-6 < found["slope"]
    assert found["gap"] < 1e-6  # both may have ended by rounding of f, which is 2e4


def test_axes_that_types_tell_of():
    found = on_eight()["explicit"]
    assert found["kept"] and found["gap"] < 1e-6


@pytest.mark.skipif(
    not hasattr(jax.config, "jax_cpu_collectives_implementation"), reason="this jax has no collectives on the CPU"
)
def test_two_processes_give_the_answer_of_one():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = run(2, ["process", port, 0], ["process", port, 1])
    for found in both:
        assert found["devices"] == 4 and found["success"] and found["shown"]
        assert "within gtol" in found["message"]
        assert found["gap"] < 2e-5  # sums are rounded otherwise; gtol is 1e-5
    assert [found["here"] for found in both] == [SIZE // 2, SIZE // 2]


@pytest.mark.parametrize(
    ("method", "closed_over"),
    [
        # By default both ways for one of them; the others with `pytest -m slow`.
        pytest.param(method, closed_over, marks=() if method == "lbfgs" or closed_over else pytest.mark.slow)
        for method in ("lbfgs", "adam", "trust_exact", "nelder_mead")
        for closed_over in (False, True)
    ],
)
def test_shard_map_with_the_default_says_what_to_write(method, closed_over):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    options = {"learning_rate": 0.1} if method == "adam" else {}
    spec = jax.sharding.PartitionSpec("d")
    targets = jnp.array([1.0, 2.0])

    def nearest(v):
        fun, args = (lambda x: jnp.sum((x - v) ** 2), ()) if closed_over else (lambda x, v: jnp.sum((x - v) ** 2), (v,))
        return jaxmin.minimize(fun, jnp.zeros(2), args, method=method, options=options).x

    with pytest.raises(ValueError, match=r"write jax\.shard_map\(\.\.\., check_vma=False\)"):
        jax.shard_map(nearest, mesh=mesh, in_specs=spec, out_specs=spec)(targets)
    found = jax.shard_map(nearest, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(targets)
    np.testing.assert_allclose(found, targets, atol=1e-2)
