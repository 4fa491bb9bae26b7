"""minimize_many solves each problem as minimize does, whatever the lanes, the chunks and the devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compilations, each_dtype, valley

import jaxmin
from jaxmin import minimize, minimize_many
from jaxmin._api import minimize_many as _many

RNG = np.random.default_rng(0)
STARTS = RNG.uniform(-2, 2, (60, 4))
SHIFTS = RNG.uniform(0.5, 1.5, 60)
DATA = RNG.normal(size=(60, 7))
BASIS = np.cos(np.outer(np.arange(7), np.arange(4)))


def misfit(p, basis, y):
    return jnp.sum(jnp.cosh(basis @ p - y) - 1)


def check(many, lanes):
    """The same problem by problem; XLA rounds another program otherwise, which sends few lanes another way."""
    np.testing.assert_array_equal(many.status, lanes.status)
    assert np.mean(many.nfev != lanes.nfev) <= 0.1
    assert np.all(np.abs(many.nfev - lanes.nfev) <= 0.1 * lanes.nfev)
    assert abs(np.sum(many.nfev) - np.sum(lanes.nfev)) <= 0.02 * np.sum(lanes.nfev)
    for one, two in zip(jax.tree.leaves(many.x), jax.tree.leaves(lanes.x), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
        assert one.dtype == two.dtype
    np.testing.assert_allclose(many.fun, lanes.fun, atol=1e-8)


METHODS = ("lbfgs", "bfgs", "cg", "trust_ncg", "nelder_mead")


@pytest.mark.rounding
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in ("bfgs", "cg") else ()) for name in METHODS]
)
def test_every_method_gives_what_vmap_gives(method):
    starts = STARTS[:, :2]
    many = minimize_many(valley, starts, (SHIFTS,), method, lanes=8)
    check(many, jax.vmap(lambda x, a: minimize(valley, x, (a,), method))(starts, SHIFTS))
    assert many.hess_inv is None and many.message[0] and many.success.all()


def test_gradient_descent():
    bowl = lambda x: jnp.sum(jnp.array([1.0, 3.0, 5.0, 9.0]) * jnp.cosh(x))
    res = minimize_many(bowl, STARTS, method="gradient_descent", lanes=8)
    check(res, jax.vmap(lambda x: minimize(bowl, x, method="gradient_descent"))(STARTS))


def test_transformations():
    for method, options in (("adam", {"learning_rate": 0.1, "maxiter": 50}), (jaxmin.transforms.sgd(0.01), {})):
        options = {"maxiter": 50} | options
        many = minimize_many(misfit, STARTS, (BASIS, DATA), method, options=options, in_axes=(0, (None, 0)), lanes=8)
        one = lambda x, y: minimize(misfit, x, (BASIS, y), method, options=options)  # noqa: B023
        check(many, jax.vmap(one)(STARTS, DATA))


AXES = {
    "args shared": lambda: (minimize_many(valley, STARTS, (1.0,), lanes=8), (STARTS, np.ones(60))),
    "in_axes None": lambda: (
        minimize_many(valley, STARTS, (np.ones(3),), in_axes=(0, None)),
        (STARTS, np.ones((60, 3))),
    ),
    "one x0": lambda: (
        minimize_many(valley, STARTS[0], (SHIFTS,), in_axes=(None, 0)),
        (STARTS[:1].repeat(60, 0), SHIFTS),
    ),
    "last axis": lambda: (minimize_many(valley, STARTS.T, (SHIFTS,), in_axes=(-1, 0)), (STARTS, SHIFTS)),
    "no tuple": lambda: (minimize_many(valley, STARTS, jnp.asarray(SHIFTS)), (STARTS, SHIFTS)),
    "lists": lambda: (minimize_many(valley, STARTS.tolist(), (SHIFTS,)), (STARTS, SHIFTS)),
}  # fmt: skip


@pytest.mark.parametrize("axes", AXES)
def test_axes(axes):
    many, (starts, shifts) = AXES[axes]()
    check(many, jax.vmap(lambda x, a: minimize(valley, x, (a,)))(starts, shifts))


def test_pytrees_and_closures():
    weight = jnp.array([1.0, 2.0])
    fun = lambda x, a: (x["p"] - a["shift"]) ** 4 + jnp.sum(weight * x["q"] ** 2) + a["kind"][1] * x["p"] ** 2
    x0 = {"p": np.arange(10, dtype=np.float32), "q": np.ones((10, 2))}
    args = {"shift": np.linspace(0, 1, 10), "kind": ("no array", 2)}
    many = minimize_many(fun, x0, (args,), lanes=3)
    one = lambda x, shift: minimize(fun, x, ({"shift": shift, "kind": ("no array", 2)},))
    lanes = jax.vmap(one)(x0, args["shift"])
    assert jax.tree.map(jnp.shape, many.x) == {"p": (10,), "q": (10, 2)} and many.x["p"].dtype == np.float32
    check(many, lanes)


def test_rows_of_bounds_and_of_tolerances():
    lower = np.where(np.arange(60)[:, None] % 2, -np.inf, 1.2) * np.ones(4)
    gtol, maxiter = np.geomspace(1e-8, 1e-1, 60), np.arange(60) % 7 + 3
    bounds = jaxmin.Bounds(lower, 2.0)
    many = minimize_many(valley, STARTS, (SHIFTS,), bounds=bounds, options={"gtol": gtol, "maxiter": maxiter}, lanes=8)

    @jax.vmap
    def lanes(x, a, lower, gtol, maxiter):
        options = {"gtol": gtol, "maxiter": maxiter}
        return minimize(valley, x, (a,), bounds=jaxmin.Bounds(lower, 2.0), options=options)

    expected = lanes(STARTS, SHIFTS, lower, gtol, maxiter)
    check(many, expected)
    np.testing.assert_array_equal(many.active_mask, expected.active_mask)
    np.testing.assert_allclose(many.gnorm, expected.gnorm, rtol=1e-3, atol=1e-5)
    loose = minimize_many(valley, STARTS, (SHIFTS,), tol=gtol, method="bfgs", lanes=8)
    check(loose, jax.vmap(lambda x, a, tol: minimize(valley, x, (a,), "bfgs", tol=tol))(STARTS, SHIFTS, gtol))


@pytest.mark.rounding
@pytest.mark.parametrize("method", ("lbfgs", "bfgs"))
@each_dtype
def test_the_order_of_the_problems_changes_nothing(method, dtype):
    """To the last bit, on lanes of two numbers; of three XLA's CPU code rounds each fourth lane otherwise."""
    starts = np.concatenate([STARTS[:, :2], [[np.nan, 0.0], [1e3, -1e3]]]).astype(dtype)
    order = np.random.default_rng(1).permutation(len(starts))
    shifts = np.ones(len(starts), dtype)
    one = minimize_many(valley, starts, (shifts,), method, lanes=8, hess_inv=True)
    two = minimize_many(valley, starts[order], (shifts,), method, lanes=8, hess_inv=True)
    for u, v in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(u)[order], v)
    assert one.status[60] == 3 and (one.status == 3).sum() == 1


def test_hess_inv_and_history_where_asked_for():
    settings = {"options": {"history": 5}}
    for method in ("lbfgs", "bfgs"):
        one = lambda x, a, method=method: minimize(valley, x, (a,), method, **settings)
        many = minimize_many(valley, STARTS[:, :2], (SHIFTS,), method, hess_inv=True, lanes=8, **settings)
        lanes = jax.vmap(one)(STARTS[:, :2], SHIFTS)
        dense = lambda H: H if isinstance(H, jax.Array) else jax.vmap(lambda H: H.todense())(H)
        alike = many.nfev == lanes.nfev
        assert alike.sum() > 50
        np.testing.assert_allclose(dense(many.hess_inv)[alike], dense(lanes.hess_inv)[alike], rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(many.history.nit[:, -1], many.nit)
        np.testing.assert_allclose(many.history.fun[:, -1], many.fun)


def test_aux():
    fun = lambda x, a: (valley(x, a), {"sum": jnp.sum(x), "name": "n"})
    many = minimize_many(fun, STARTS, (SHIFTS,), has_aux=True)
    np.testing.assert_allclose(many.aux["sum"], np.sum(many.x, axis=1), rtol=1e-12)
    assert many.aux["name"] == "n"


@pytest.mark.parametrize("chunk", (1, 25, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 59))))
def test_chunks(chunk):
    many = minimize_many(valley, STARTS, (SHIFTS,), chunk=chunk, lanes=8)
    assert isinstance(many.x, np.ndarray)
    check(many, minimize_many(valley, STARTS, (SHIFTS,), lanes=8))


@pytest.mark.parametrize("chunk", (None, 20, 7))
def test_best_of(chunk):
    """Two wells, one lower: a start finds the nearer."""
    fun = lambda x, tilt: (x**2 - 1) ** 2 + tilt * x
    tilt = np.linspace(-0.3, 0.3, 20)
    starts = np.tile([-1.5, 1.5, np.nan], 20)
    best = minimize_many(fun, starts, (tilt,), best_of=3, chunk=chunk)
    np.testing.assert_array_equal(np.sign(best.x), -np.sign(tilt))
    assert best.success.all() and best.x.shape == (20,)
    alone = minimize_many(fun, starts[:3], (tilt[:1],), best_of=3)
    np.testing.assert_allclose(alone.x, best.x[:1], rtol=1e-6)


@pytest.mark.parametrize("chunk", (None, 8))
def test_what_does_not_vary_of_the_best_start_comes_back(chunk):
    """A flag of each start chooses its well."""
    fun = lambda x, depth: (x["at"] - jnp.where(x["right"], 1, -1)) ** 2 + jnp.where(x["right"], depth, 0)
    x0 = {"at": np.zeros(40), "right": np.tile([True, False], 20)}
    depth = np.linspace(-1, 1, 20)
    each = minimize_many(fun, x0, (np.repeat(depth, 2),), lanes=4, chunk=chunk)
    np.testing.assert_array_equal(each.x["right"], x0["right"])
    np.testing.assert_allclose(each.x["at"], np.where(x0["right"], 1, -1), atol=1e-4)
    best = minimize_many(fun, x0, (depth,), best_of=2, lanes=4, chunk=chunk)
    np.testing.assert_array_equal(best.x["right"], depth < 0)
    np.testing.assert_allclose(best.x["at"], np.where(depth < 0, 1, -1), atol=1e-4)


def test_lanes_go_on_from_chunk_to_chunk(capsys):
    """In chunks of as many starts as there are lanes, with one slow one in each: none waits for it."""
    x0 = np.tile([-1.2, 1.0, -1.2, 1.0], (64, 1))
    steep = np.where(np.arange(64) % 8 == 0, 100.0, 0.1)
    fun = lambda x, a: jnp.sum(a * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    res = minimize_many(fun, x0, (steep,), lanes=8, chunk=8, options={"disp": True})
    assert res.success.all() and res.nfev.max() > 3 * np.median(res.nfev)
    alone = sum(res.nfev[begin : begin + 8].max() for begin in range(0, 64, 8))
    steps = int(capsys.readouterr().out.split(" steps")[0].split()[-1])
    assert steps < 0.75 * alone


def test_the_best_is_a_success_before_it_is_low():
    fun = lambda x: jnp.where(x > 5, -jnp.sqrt(jnp.abs(x) + 1), (x - 1) ** 2)
    best = minimize_many(fun, [0.0, 10.0, np.nan, np.nan], best_of=2, options={"maxiter": 20})
    assert best.success.tolist() == [True, False] and best.status[1] == 3
    np.testing.assert_allclose(best.x[0], 1, atol=1e-5)


def test_under_jit_and_vmap():
    many = jax.jit(lambda x, a: minimize_many(valley, x, (a,), lanes=8))(STARTS, SHIFTS)
    check(many, minimize_many(valley, STARTS, (SHIFTS,), lanes=8))
    folded = jax.vmap(lambda x, a: minimize_many(valley, x, (a,), lanes=8))(
        STARTS.reshape(2, 30, 4), SHIFTS.reshape(2, 30)
    )
    np.testing.assert_allclose(folded.x.reshape(60, 4), many.x, atol=1e-4)


def test_under_jit_all_starts_go_at_once_however_many_bytes_they_have(monkeypatch):
    monkeypatch.setattr(_many, "_CHUNK_BYTES", 64)
    many = jax.jit(lambda a: minimize_many(valley, STARTS, (a,), lanes=8))(1.5)
    check(many, minimize_many(valley, STARTS, (1.5,), lanes=8))


def test_a_whole_history_has_room_for_the_largest_maxiter_of_all():
    maxiter = np.where(np.arange(60) == 7, 40, 3)
    res = minimize_many(valley, STARTS, (1.0,), options={"maxiter": maxiter, "history": True})
    assert res.history.fun.shape == (60, 41) and res.nit[7] > 3
    assert res.history.nit[7, int(res.nit[7])] == res.nit[7]


def test_derivatives_are_refused_and_vmap_has_them():
    def solution(shift):
        return minimize_many(valley, STARTS[:3], (shift * jnp.ones(3),)).x.sum()

    with pytest.raises(NotImplementedError, match="minimize_many is not differentiable"):
        jax.grad(solution)(1.0)
    x = minimize_many(valley, STARTS[:3, :2], (np.ones(3),)).x
    again = lambda a: jax.vmap(lambda x: minimize(valley, x, (a,)))(x)
    np.testing.assert_allclose(jax.jacfwd(lambda a: again(a).x)(1.0), np.tile([1.0, 2.0], (3, 1)), rtol=1e-3)
    assert again(1.0).nfev.tolist() == [1, 1, 1]


def test_a_second_call_compiles_nothing():
    call = lambda k: minimize_many(
        lambda x, a: valley(x, a), STARTS + k, (SHIFTS - k,), options={"gtol": 1e-5 * (k + 1)}, lanes=13
    )
    with compilations() as programs:
        call(0.0)
    assert any("work" in program for program in programs)
    with compilations() as programs:
        call(0.1)
    assert not programs


@pytest.mark.parametrize("options", ({"Warm_Start": 3}, {"Flat": False}))
def test_options_are_known_in_any_case(options):
    with pytest.raises(ValueError, match="not offered for many problems"):
        minimize_many(valley, STARTS, (SHIFTS,), options=options)


def test_report_and_bar(capsys):
    minimize_many(valley, STARTS, (SHIFTS,), lanes=4, options={"disp": True})
    line = capsys.readouterr().out
    assert line.startswith("60 starts on 4 lanes: ") and 0.8 < float(line.split()[-1]) <= 1
    pytest.importorskip("tqdm")
    many = minimize_many(valley, STARTS, (SHIFTS,), lanes=4, progress=True)
    assert "60/60" in capsys.readouterr().err and many.success.all()


WRONG = {
    "args: an array with 59 rows, for 60 problems": lambda: minimize_many(valley, STARTS, (SHIFTS[:59],)),
    "bounds: an array with 3 rows": lambda: minimize_many(
        valley, STARTS, (1.0,), bounds=jaxmin.Bounds(np.zeros((3, 4)))
    ),
    "best_of=7: it does not divide the 60 starts": lambda: minimize_many(valley, STARTS, (1.0,), best_of=7),
    "lanes=0": lambda: minimize_many(valley, STARTS, (1.0,), lanes=0),
    "neither x0 nor args": lambda: minimize_many(valley, STARTS[0], (1.0,), in_axes=None),
    "in_axes: axis 2": lambda: minimize_many(valley, STARTS, (1.0,), in_axes=(2, None)),
    r"in_axes: \(0, 0\) for args, which is built otherwise: \(\(60,\),\)": lambda: minimize_many(
        valley, STARTS, (SHIFTS,), in_axes=(0, (0, 0))
    ),
    "in_axes: True is no axis": lambda: minimize_many(valley, STARTS, (1.0,), in_axes=True),
    r"devices=\[\]: .* jax.devices": lambda: minimize_many(valley, STARTS, (1.0,), devices=[]),
    "devices: .* more than once": lambda: minimize_many(valley, STARTS, (1.0,), devices=jax.devices()[:1] * 2),
    "devices='cpu': .* jax.devices": lambda: minimize_many(valley, STARTS, (1.0,), devices="cpu"),
    "tol: an array with 3 rows": lambda: minimize_many(valley, STARTS, (1.0,), tol=np.ones(3)),
    r"options\['gtol'\]: an array with 3 rows": lambda: minimize_many(
        valley, STARTS, (1.0,), options={"gtol": np.ones(3)}
    ),
    "hess_inv=True: .* 'bfgs' and 'lbfgs'": lambda: minimize_many(valley, STARTS, (1.0,), "cg", hess_inv=True),
    "best_of=True": lambda: minimize_many(valley, STARTS, (1.0,), best_of=True),
    "lanes=2.5": lambda: minimize_many(valley, STARTS, (1.0,), lanes=2.5),
    "no problems at all": lambda: minimize_many(valley, STARTS[:0], (1.0,)),
    "progress: not offered where": lambda: jax.jit(lambda x: minimize_many(valley, x, (1.0,), progress=True).x)(STARTS),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said(message):
    with pytest.raises((TypeError, ValueError), match=message):
        WRONG[message]()


DEVICES = """
import jax, jax.numpy as jnp, jaxmin, numpy as np
jax.config.update("jax_enable_x64", True)
from jaxmin import minimize_many
assert len(jax.devices()) == 8
valley = lambda x, a: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
x0 = np.random.default_rng(0).uniform(-2, 2, (90, 2))
a = np.linspace(0.5, 1.5, 45)
one = minimize_many(valley, x0, (a,), best_of=2, lanes=3, devices=jax.devices()[:1])
for chunk in (None, 40):
    all = minimize_many(valley, x0, (a,), best_of=2, lanes=3, chunk=chunk)
    assert all.success.all() and all.x.shape == (45, 2)
    np.testing.assert_allclose(all.x, one.x, atol=1e-4)
    print(chunk, len(all.x.devices()) if chunk is None else type(all.x).__name__)
# Data that lie on a mesh of the user's: whole or in parts, before plain ones and after.
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((8,), ("mine",), axis_types=(jax.sharding.AxisType.Auto,))
y = np.arange(64.0)
mean = lambda x, y: jnp.sum((x - jnp.mean(jnp.where(y > 3, y, 0))) ** 2)
for data in (jax.device_put(y, NamedSharding(mesh, PartitionSpec("mine"))),
             jax.device_put(y, NamedSharding(mesh, PartitionSpec())), y):
    assert jaxmin.minimize(mean, x0[0], (data,)).success
    assert minimize_many(mean, x0, (data,), in_axes=(0, None)).success.all()
    assert minimize_many(mean, x0[:64], (data,)).success.all()
    closed = lambda x: mean(x, data)
    assert minimize_many(closed, x0, devices=jax.devices()[:1]).success.all()
    if data is not y:
        try:
            minimize_many(closed, x0)
        except ValueError as error:
            assert "closes over an array on a mesh, of shape (64,)" in str(error)
        else:
            assert False
"""


def test_eight_devices(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    root = os.path.dirname(os.path.dirname(jaxmin.__file__))
    setting = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", DEVICES], env=setting, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["None", "8", "40", "ndarray"]


def test_auto_takes_rows_of_tolerances():
    res = jaxmin.minimize_many(lambda x: jnp.sum((x - 1) ** 2), np.zeros((5, 2)), method="auto", tol=np.full(5, 1e-6))
    assert res.success.all()


def test_an_array_that_is_no_limit_is_refused_by_name():
    options = {"learning_rate": np.array([0.0, 0.1, 0.4]), "maxiter": 3}
    with pytest.raises(TypeError, match=r"'learning_rate'.*one for all problems"):
        jaxmin.minimize_many(lambda x: jnp.sum(x**2), np.ones((3, 1)), method="sgd", options=options)
