"""A result reads like SciPy's, is a pytree that crosses transformations, and its inverse Hessian is an operator."""

import copy
import dataclasses
import functools
import pickle
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import START, each_dtype
from problems import rosenbrock

import jaxmin
from jaxmin import OptimizeResult, Status, minimize
from jaxmin._core.status import AT_X0

FIELDS = ["x", "fun", "jac", "nit", "nfev", "njev", "status"]


@pytest.fixture(scope="module")
def res():
    return minimize(rosenbrock, START)


@pytest.fixture(scope="module")
def dense():
    return minimize(rosenbrock, START, method="bfgs")


@pytest.fixture(scope="module")
def batch():
    starts = jnp.array([START, (2.0, 3.0), (jnp.nan, 1.0)])
    return jax.vmap(lambda x: minimize(rosenbrock, x))(starts)


# ---- it reads like SciPy's


def test_attributes_and_items_are_the_same(res):
    for key in res:
        if key not in ("success", "message"):  # made when they are asked for
            assert res[key] is getattr(res, key)
    assert res["success"] is res.success is True
    assert res["message"] == res.message == Status(0).sentence.format(gnorm=float(abs(res.jac).max()))


def test_keys_are_scipys(dense):
    scipys = scipy.optimize.minimize(scipy.optimize.rosen, START, method="BFGS", jac=scipy.optimize.rosen_der)
    assert set(dense.keys()) == set(scipys.keys())


def test_dictionary_in_all_but_name(res):
    assert list(res) == res.keys() == [*FIELDS, "hess_inv", "success", "message"]
    assert dict(res).keys() == dict(res.items()).keys() == {**res}.keys() == set(res.keys())
    assert len(res) == len(res.values()) == len(res.keys())
    assert "x" in res and "success" in res and "nothing" not in res
    assert res.get("nit") is res.nit
    assert res.get("nothing") is None and res.get("nothing", 3) == 3


def test_equality_is_identity_and_a_result_can_be_hashed(res, dense):
    assert res == res and res != copy.copy(res) and res != dense
    assert len({res, dense, res}) == 2


def test_what_there_is_not_is_no_key():
    res = minimize(rosenbrock, START, method="cg", options={"maxiter": 3})
    assert "hess_inv" not in res and "aux" not in res and res.hess_inv is None and res.aux is None
    with_aux = minimize(lambda x: (rosenbrock(x), x), START, has_aux=True, options={"maxiter": 3})
    assert "aux" in with_aux and with_aux["aux"] is with_aux.aux


def test_unknown_entry(res):
    with pytest.raises(KeyError, match=r"nothing.*status"):
        res["nothing"]
    with pytest.raises(AttributeError, match="nothing"):
        res.nothing  # noqa: B018


def test_it_cannot_be_changed(res):
    with pytest.raises(AttributeError):
        res.x = 3


@each_dtype
def test_shapes_and_dtypes(dtype):
    res = minimize(rosenbrock, np.array(START, dtype))
    assert res.x.shape == res.jac.shape == (2,) and res.fun.shape == ()
    assert res.x.dtype == res.jac.dtype == res.fun.dtype == res.hess_inv.dtype == dtype
    for name in ("nit", "nfev", "njev", "status"):
        assert res[name].shape == () and jnp.issubdtype(res[name].dtype, jnp.integer)
    assert type(res.success) is bool and type(res.message) is str
    np.testing.assert_allclose(res.fun, rosenbrock(res.x), atol=1e-12)
    np.testing.assert_allclose(res.jac, jax.grad(rosenbrock)(res.x), atol=1e-5)


@pytest.mark.parametrize("code", Status)
def test_success_is_what_the_status_says(res, code):
    ended = dataclasses.replace(res, status=jnp.int32(code))
    assert ended.success is Status(code).success is (code in (0, 4, 5, 7, 10, 11))
    assert ended.message.split()[0] == Status(code).sentence.split()[0]
    assert ended.success == ended.message.startswith("Converged")


def test_repr_shows_every_entry_on_a_line_of_its_own(res):
    lines = repr(res).splitlines()
    names = [line.split(":")[0].strip() for line in lines if ":" in line]
    assert set(names) == set(res.keys())
    assert f"message: {res.message}" in repr(res)
    assert "success: True" in repr(res)
    assert len({line.index(":") for line in lines}) == 1  # in a column


def test_repr_of_long_arrays_is_short():
    res = minimize(lambda x: jnp.sum((x - 1) ** 2), np.zeros(5000))
    assert len(repr(res)) < 2000


def test_repr_of_a_history_is_its_shapes():
    res = jaxmin.minimize(lambda x: x @ x, jnp.ones(3), options={"history": 500, "history_x": True})
    assert "history: History(nit[500], fun[500], gnorm[500], step[500], nfev[500], x[500, 3])" in repr(res)


def test_repr_of_a_batch_has_a_message_a_lane(batch):
    text = repr(batch)
    assert all(message in text for message in batch.message)


def test_repr_of_a_large_batch_counts_its_lanes():
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(20, 50, 2))).at[3, 7].set(jnp.nan)
    batch = jax.vmap(jax.vmap(lambda x: minimize(rosenbrock, x)))(starts)
    text = repr(batch)
    assert len(text.splitlines()) < 60 and "999 of 1000 lanes, status 0" in text
    assert "1 of 1000 lanes, status 3, such as [3, 7]: Stopped: fun or its gradient is NaN" in text
    assert "success: 999 of 1000 lanes" in text
    worst = np.unravel_index(np.nanargmax(np.abs(batch.jac).max(axis=-1)), (20, 50))
    assert f"such as [{worst[0]}, {worst[1]}]: {batch.message[worst[0]][worst[1]]}" in text


def test_repr_inside_jit():
    seen = []
    jax.jit(lambda x: seen.append(repr(minimize(rosenbrock, x))))(jnp.array(START))
    assert "nfev" in seen[0]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("lanes", [(), (3,)])
def test_the_gradient_norm_in_words_is_the_one_that_gtol_is_compared_with(dtype, lanes):
    """Of complex numbers too, where it is the largest part and no modulus."""
    fun = lambda z: jnp.sum(jnp.abs(z["c"]) ** 2) / 2 + jnp.sum(z["r"] ** 2) / 2
    z0 = {"c": jnp.full((*lanes, 2), 0.75 + 1j, dtype), "r": jnp.full(lanes, 0.5, jnp.finfo(dtype).dtype)}

    def stopped(gtol):
        solve = lambda z: minimize(fun, z, options={"maxiter": 0, "gtol": gtol})
        return (jax.vmap(solve) if lanes else solve)(z0)

    for gtol, code in ((1.0, 0), (0.999, 1)):
        res = stopped(gtol)
        assert np.ravel(res.status).tolist() == [code] * int(np.prod(lanes))
        sentence = Status(code).sentence.format(gnorm=1.0)
        assert all(message.startswith(sentence) for message in np.ravel(res.message))


def test_message_of_a_known_result_can_be_read_inside_jit(res):
    seen = []
    jax.jit(lambda x: seen.append(res.message) or x)(1.0)
    assert seen == [res.message]


def test_message_of_a_batch_without_numbers():
    res = jax.vmap(lambda a: minimize(lambda x: a, {"p": jnp.zeros(0)}))(jnp.arange(2.0))
    assert res.message == [Status(0).sentence.format(gnorm=0.0) + AT_X0[Status(0)]] * 2


# ---- it is a pytree


def test_flatten_and_unflatten(res):
    leaves, treedef = jax.tree.flatten(res)
    again = jax.tree.unflatten(treedef, leaves)
    assert isinstance(again, OptimizeResult)
    assert again.keys() == res.keys() and again.message == res.message
    np.testing.assert_array_equal(again.x, res.x)
    np.testing.assert_array_equal(again.hess_inv.todense(), res.hess_inv.todense())


def test_leaves_are_named(res):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(res)]
    for name in (*FIELDS, "hess_inv"):
        assert any(path.startswith(f".{name}") for path in paths)


def test_two_solves_have_one_structure(res):
    assert jax.tree.structure(minimize(rosenbrock, (2.0, 3.0))) == jax.tree.structure(res)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda res: pickle.loads(pickle.dumps(res))])
def test_copies(res, again):
    two = again(res)
    np.testing.assert_array_equal(two.x, res.x)
    np.testing.assert_array_equal(two.hess_inv.todense(), res.hess_inv.todense())
    assert two.message == res.message


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "cg", "gradient_descent"])
def test_result_leaves_jit(method):
    options = {"maxiter": 20}
    inside = jax.jit(lambda x: minimize(rosenbrock, x, method=method, options=options))(jnp.array(START))
    outside = minimize(rosenbrock, START, method=method, options=options)
    assert jax.tree.structure(inside) == jax.tree.structure(outside)
    assert type(inside.success) is bool and inside.message == outside.message
    np.testing.assert_allclose(inside.x, outside.x, rtol=1e-10)


def test_result_enters_jit_and_is_an_argument_of_vmap(res, batch):
    x = jax.jit(lambda res: res.x + res.hess_inv @ res.jac)(res)
    np.testing.assert_allclose(x, res.x + res.hess_inv @ res.jac)
    steps = jax.vmap(lambda res: res.hess_inv @ res.jac)(batch)
    assert steps.shape == (3, 2) and np.isfinite(steps[:2]).all()


def test_success_may_be_used_inside_jit():
    solve = jax.jit(lambda x: jnp.where(minimize(rosenbrock, x).success, 1, 2))
    assert solve(jnp.array(START)) == 1
    assert solve(jnp.array([jnp.nan, 1.0])) == 2


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_message_inside_a_transformation_is_a_clear_error(transform):
    with pytest.raises(TypeError, match=r"message.*outside"):
        transform(lambda x: minimize(rosenbrock, x).message)(jnp.array([START, START]))


# ---- a lawful one: what is a leaf is decided when the result is made, and never again


def squash(x):
    return jnp.tanh(x)


class Settings(NamedTuple):
    """An aux of everything."""

    x: jax.Array
    label: str
    flag: bool
    count: int
    nothing: None
    act: callable
    pair: tuple


def with_settings(x):
    return rosenbrock(x), Settings(x, "run", True, 3, None, squash, (x[0], "inner"))


OF_EVERY_KIND = {
    "lbfgs": lambda start: minimize(rosenbrock, start),
    "bfgs": lambda start: minimize(rosenbrock, start, method="bfgs"),
    "cg": lambda start: minimize(rosenbrock, start, method="cg"),
    "tree": lambda start: minimize(lambda x: rosenbrock(x["p"]), {"p": start, "q": (None, jnp.zeros(0))}),
    "module": lambda start: minimize(misfit, Line(start[0], start[1:], squash, "line"), (1.0,), method="bfgs"),
    "settings": lambda start: minimize(with_settings, start, has_aux=True),
}
each_kind = pytest.mark.parametrize("kind", OF_EVERY_KIND)


@functools.cache
def of_kind(kind):
    return OF_EVERY_KIND[kind](jnp.array(START))


def statics(kind, res):
    """Its leaves that are no arrays."""
    if kind == "module":
        return [res.x.act, res.x.name]
    aux = res.aux
    return [aux.label, aux.flag, aux.nothing, aux.act, aux.pair[1]] if kind == "settings" else []


CHILDREN = [None, 1, True, "text", 2.5, jax.ShapeDtypeStruct((2,), float), object(), (1, 2), jnp.ones(3), jnp.tanh]


@each_kind
@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: type(child).__name__)
def test_any_children_flatten_back(kind, child):
    res = of_kind(kind)
    leaves, treedef = jax.tree.flatten(res)
    again = jax.tree.unflatten(treedef, [child] * len(leaves))
    assert all(got is child for got in treedef.flatten_up_to(again))
    if jax.tree_util.all_leaves([child]):
        assert jax.tree.structure(again) == treedef
        assert len(jax.tree.leaves(again)) == len(leaves) > 0
    back = jax.tree.map(lambda _, leaf: leaf, again, res, is_leaf=lambda u: u is child)
    assert jax.tree.structure(back) == treedef
    for got, leaf in zip(jax.tree.leaves(back), leaves, strict=True):
        assert got is leaf
    assert statics(kind, again) == statics(kind, back) == statics(kind, res)
    assert "fun" in repr(again) or child is None


@each_kind
def test_leaves_are_its_arrays_and_all_of_them(kind):
    res = of_kind(kind)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(res))
    ids = {id(leaf) for leaf in jax.tree.leaves(res)}
    for part in (res.x, res.fun, res.jac, res.nit, res.nfev, res.njev, res.status, res.hess_inv, res.aux):
        assert {id(leaf) for leaf in jax.tree.leaves(part) if isinstance(leaf, jax.Array)} <= ids


@each_kind
def test_two_results_are_compared_leaf_by_leaf(kind):
    one, two = OF_EVERY_KIND[kind](jnp.array(START)), OF_EVERY_KIND[kind](jnp.array((2.0, 3.0)))
    equal = jax.tree.map(np.array_equal, one, two)
    assert len(jax.tree.leaves(equal)) == len(jax.tree.leaves(one))
    assert not jax.tree.all(equal)
    assert jax.tree.all(jax.tree.map(np.array_equal, one, OF_EVERY_KIND[kind](jnp.array(START))))


@each_kind
def test_axes_of_a_batch_by_tree_map(kind):
    lanes = jax.vmap(OF_EVERY_KIND[kind])(jnp.array([START, (2.0, 3.0)]))
    axes = jax.tree.map(lambda u: 0, lanes)
    assert jax.tree.structure(axes) == jax.tree.structure(lanes)
    fun = jax.vmap(lambda res: res.fun + jnp.sum(jax.tree.leaves(res.jac)[0]), in_axes=(axes,))(lanes)
    assert fun.shape == (2,)
    copies = jax.vmap(lambda _: of_kind(kind), out_axes=jax.tree.map(lambda u: None, of_kind(kind)))(jnp.arange(2))
    assert statics(kind, copies) == statics(kind, lanes) == statics(kind, of_kind(kind))


@each_kind
def test_equinox_transforms_take_results(kind):
    res = of_kind(kind)
    arrays, rest = eqx.partition(res, eqx.is_array)
    assert jax.tree.leaves(rest) == []
    for again in (eqx.combine(arrays, rest), eqx.filter(res, eqx.is_inexact_array), eqx.filter_jit(lambda r: r)(res)):
        assert statics(kind, again) == statics(kind, res)
        np.testing.assert_array_equal(jax.tree.leaves(again.x)[0], jax.tree.leaves(res.x)[0])
    solve = OF_EVERY_KIND[kind]
    inside = eqx.filter_jit(solve)(jnp.array(START))
    assert jax.tree.structure(inside) == jax.tree.structure(res)
    assert inside.success is True and inside.message == res.message
    lanes = eqx.filter_vmap(solve)(jnp.array([START, START]))
    assert lanes.success.tolist() == [True, True] and statics(kind, lanes) == statics(kind, res)


@each_kind
def test_copies_of_every_kind(kind):
    res = of_kind(kind)
    for again in (copy.copy(res), copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
        assert jax.tree.structure(again) == jax.tree.structure(res)
        assert statics(kind, again) == statics(kind, res) and again.message == res.message
        if res.hess_inv is not None:
            product = jax.tree.leaves(again.hess_inv @ res.jac)
            np.testing.assert_array_equal(product[0], jax.tree.leaves(res.hess_inv @ res.jac)[0])


def test_leaves_that_are_no_arrays_may_be_replaced():
    res = of_kind("module")
    other = dataclasses.replace(res, x=eqx.tree_at(lambda x: x.act, res.x, jnp.sin))
    assert jax.jit(lambda r: r)(other).x.act is jnp.sin
    assert jax.tree.structure(other) != jax.tree.structure(res)
    kept = jax.jit(lambda r: dataclasses.replace(r, nit=r.nit + 1))(res)
    assert kept.x.act is squash and kept.nit == res.nit + 1
    slope = jax.jit(lambda r: dataclasses.replace(r, x=r.x.slope))(res)
    np.testing.assert_array_equal(slope.x, res.x.slope)


def test_shapes_of_a_result_can_be_read():
    shapes = jax.eval_shape(OF_EVERY_KIND["settings"], jnp.array(START))
    assert shapes.x.shape == (2,) and shapes.aux.label == "run"
    assert jax.tree.structure(shapes) == jax.tree.structure(of_kind("settings"))
    assert "nfev: ShapeDtypeStruct" in repr(shapes) and "message" not in repr(shapes)
    with pytest.raises(TypeError, match="message"):
        _ = shapes.message


# ---- batches


def test_message_and_success_are_per_lane(batch):
    assert batch.status.tolist() == [0, 0, 3]
    assert batch.success.tolist() == [True, True, False] and batch.success.dtype == bool
    gnorm = float(abs(batch.jac[0]).max())
    assert batch.message[0] == Status(0).sentence.format(gnorm=gnorm)
    assert batch.message[2] == Status(3).sentence + AT_X0[Status(3)]
    assert len(batch.message) == 3
    lane = jax.tree.map(lambda leaf: leaf[2], batch)
    assert lane.message == batch.message[2] and lane.success is False


def test_batch_of_batches():
    starts = jnp.array([[START, (2.0, 3.0), (jnp.nan, 1.0)], [START, START, START]])
    res = jax.vmap(jax.vmap(lambda x: minimize(rosenbrock, x)))(starts)
    assert res.success.tolist() == [[True, True, False], [True, True, True]]
    assert [len(row) for row in res.message] == [3, 3]
    assert res.message[0][2].startswith(Status(3).sentence) and res.message[1][2] == res.message[0][0]


def test_batch_of_a_pytree():
    solve = jax.vmap(
        lambda a: minimize(lambda x: (x["p"] - a) ** 2 + jnp.sum(x["q"] ** 2), {"p": 0.0, "q": np.ones(2)})
    )
    res = solve(jnp.arange(3.0))
    np.testing.assert_allclose(res.x["p"], [0, 1, 2], atol=1e-5)
    assert res.x["q"].shape == (3, 2) and len(res.message) == 3 and res.success.all()


class Line(eqx.Module):
    slope: jax.Array
    offset: jax.Array
    act: callable
    name: str

    def __call__(self, t):
        return self.act(self.slope * t + self.offset)


def line():
    return Line(jnp.array(0.0), jnp.array([0.5]), jnp.tanh, "line")


def misfit(line, a):
    return jnp.sum((line(jnp.array([-1.0, 1.0])) - a * jnp.array([-0.5, 0.5])) ** 2)


def test_result_over_a_module_leaves_jit_with_its_static_leaves():
    res = jax.jit(lambda a: minimize(misfit, line(), (a,)))(1.0)
    assert isinstance(res.x, Line) and res.x.act is jnp.tanh and res.x.name == "line"
    assert res.jac.act is None and res.success, res.message
    np.testing.assert_allclose(res.x(1.0), [0.5], atol=1e-4)
    assert "line" in repr(res)


def test_result_over_a_module_leaves_vmap_with_its_static_leaves():
    res = jax.vmap(lambda a: minimize(misfit, line(), (a,)))(jnp.array([1.0, 0.5]))
    assert res.x.act is jnp.tanh and res.x.slope.shape == (2,) and res.success.all()
    product = jax.vmap(lambda H, g: H @ g)(res.hess_inv, res.jac)
    assert isinstance(product, Line) and product.offset.shape == (2, 1) and product.act is None


def test_static_aux_leaves_jit():
    fun = lambda x: (rosenbrock(x), {"x": x, "label": "run", "act": jnp.tanh})
    res = jax.jit(lambda x: minimize(fun, x, has_aux=True))(jnp.array(START))
    assert res.aux["label"] == "run" and res.aux["act"] is jnp.tanh
    np.testing.assert_array_equal(res.aux["x"], res.x)


# ---- hess_inv

SPECTRUM = np.array([1.0, 3.0, 5.0, 10.0])
_q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
HESSIAN = _q * SPECTRUM @ _q.T
# On a quadratic, quasi-Newton steps to the minima along the directions make H exact after n of them.
EXACT = jaxmin.wolfe(sufficient=1e-6, curvature=1e-5)
QUASI_NEWTON = {"bfgs": jaxmin.bfgs(linesearch=EXACT), "lbfgs": jaxmin.lbfgs(linesearch=EXACT)}


def quadratic(x):
    return x @ jnp.asarray(HESSIAN, x.dtype) @ x / 2 - jnp.sum(x)


@each_dtype
@pytest.mark.parametrize("name", QUASI_NEWTON)
def test_hess_inv_is_the_inverse_hessian_of_a_quadratic(name, dtype):
    res = minimize(quadratic, jnp.zeros(4, dtype), method=QUASI_NEWTON[name])
    assert (name == "bfgs") == isinstance(res.hess_inv, jax.Array)
    np.testing.assert_allclose(np.asarray(res.hess_inv), np.linalg.inv(HESSIAN), atol=100 * jnp.finfo(dtype).eps)


def test_hess_inv_of_bfgs_is_dense_as_scipys(dense):
    assert isinstance(dense.hess_inv, jax.Array) and dense.hess_inv.shape == (2, 2)
    scipys = scipy.optimize.minimize(scipy.optimize.rosen, START, method="BFGS", jac=scipy.optimize.rosen_der)
    np.testing.assert_allclose(dense.hess_inv, scipys.hess_inv, rtol=0.05)


@each_dtype
def test_operator_is_its_matrix(dtype):
    res = minimize(rosenbrock, jnp.array([-1.2, 1.0, 2.0], dtype))
    H = res.hess_inv
    matrix = H.todense()
    assert H.shape == matrix.shape == (3, 3) and H.dtype == matrix.dtype == dtype
    assert isinstance(matrix, jax.Array)
    tight = {"rtol": 50 * jnp.finfo(dtype).eps, "atol": 50 * jnp.finfo(dtype).eps}
    v, V = jnp.array([1.0, -2.0, 3.0], dtype), jnp.array(np.random.default_rng(0).normal(size=(3, 5)), dtype)
    np.testing.assert_allclose(H @ v, matrix @ v, **tight)
    np.testing.assert_allclose(H @ V, matrix @ V, **tight)
    assert (H @ V).shape == (3, 5)
    np.testing.assert_allclose(H @ [1.0, -2.0, 3.0], matrix @ v, **tight)
    np.testing.assert_array_equal(H.diagonal(), jnp.diagonal(matrix))
    np.testing.assert_array_equal(np.asarray(H), matrix)
    assert np.asarray(H, dtype=np.float32).dtype == np.float32
    np.testing.assert_allclose(jax.jit(lambda H, v: H @ v)(H, v), H @ v, **tight)
    assert "3, 3" in repr(H)


def test_operator_of_no_pairs_is_a_multiple_of_the_identity():
    H = minimize(rosenbrock, START, options={"maxiter": 0}).hess_inv.todense()
    assert H[0, 0] > 0
    np.testing.assert_array_equal(H, H[0, 0] * jnp.eye(2))


@pytest.mark.rounding
@each_dtype
@pytest.mark.parametrize("method", ["bfgs", "lbfgs"])
def test_hess_inv_is_symmetric_and_positive_definite_all_the_way(method, dtype):
    def after(maxiter):
        res = minimize(rosenbrock, jnp.array([-1.2, 1.0, 2.0], dtype), method=method, options={"maxiter": maxiter})
        return jnp.asarray(res.hess_inv if method == "bfgs" else res.hess_inv.todense())

    for H in np.asarray(jax.vmap(after)(jnp.arange(25)), np.float64):
        scale = np.abs(H).max()
        np.testing.assert_allclose(H, H.T, atol=10 * jnp.finfo(dtype).eps * scale)
        assert np.linalg.eigvalsh((H + H.T) / 2).min() > 0


def two_loops(pairs, v):
    """H v by the two-loop recursion, H0 a multiple of the identity."""
    alphas = []
    for s, y in reversed(pairs):
        alphas.append(s @ v / (s @ y))
        v = v - alphas[-1] * y
    s, y = pairs[-1]
    v = s @ y / (y @ y) * v
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        v = v + (alpha - y @ v / (s @ y)) * s
    return v


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-3), (jnp.float64, 1e-9)])
def test_hess_inv_of_lbfgs_is_the_two_loop_recursion_over_the_last_pairs(dtype, tolerance):
    memory, steps = 3, 11
    x0 = jnp.array([-1.2, 1.0, 2.0, 0.5], dtype)
    solve = lambda maxiter: minimize(rosenbrock, x0, method=jaxmin.lbfgs(memory=memory), options={"maxiter": maxiter})
    ends = [solve(k) for k in range(steps + 1)]
    assert [int(end.nit) for end in ends] == list(range(steps + 1))
    x, g = (np.array([end[key] for end in ends], np.float64) for key in ("x", "jac"))
    pairs = list(zip(np.diff(x, axis=0), np.diff(g, axis=0), strict=True))
    assert min(s @ y for s, y in pairs) > 0
    for k in (1, 2, 3, 4, 7, steps):  # fewer pairs than fit, as many, more
        for v in np.eye(4):
            expected = two_loops(pairs[max(0, k - memory) : k], v)
            np.testing.assert_allclose(ends[k].hess_inv @ v, expected, atol=tolerance * abs(expected).max())


@pytest.mark.parametrize("method", ["bfgs", "lbfgs"])
def test_hess_inv_over_a_pytree(method):
    x0 = {"a": jnp.zeros((2, 1)), "b": (jnp.float64(0.0), None, jnp.zeros(1, jnp.float32))}
    flat = lambda x: jnp.concatenate([jnp.ravel(leaf).astype(jnp.float64) for leaf in jax.tree.leaves(x)])
    res = minimize(lambda x: quadratic(flat(x)), x0, method=method)
    H = res.hess_inv
    assert H.shape == (4, 4)
    v = {"a": jnp.array([[1.0], [-2.0]]), "b": (jnp.float64(3.0), None, jnp.array([4.0], jnp.float32))}
    product = H @ v
    assert jax.tree.structure(product) == jax.tree.structure(x0)
    for got, like in zip(jax.tree.leaves(product), jax.tree.leaves(x0), strict=True):
        assert (got.shape, got.dtype) == (like.shape, like.dtype)
    np.testing.assert_allclose(flat(product), H.todense() @ flat(v), rtol=1e-6)
    np.testing.assert_allclose(H.diagonal(), np.diagonal(np.linalg.inv(HESSIAN)), rtol=0.3)


@pytest.mark.parametrize("shape", [(), (4,), (2, 2), (4, 1), (1, 1), (2, 1, 2)])
def test_operator_takes_what_is_built_like_x0(shape):
    x0 = np.zeros(shape)
    target = np.arange(1.0, x0.size + 1).reshape(shape)
    res = minimize(lambda x: jnp.sum(target * (x - 1) ** 2), x0)
    product = res.hess_inv @ target
    assert product.shape == shape and res.hess_inv.shape == (x0.size, x0.size)
    np.testing.assert_allclose(product.ravel(), res.hess_inv.todense() @ target.ravel(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_hess_inv_of_bfgs_on_any_array_is_dense(shape):
    res = minimize(lambda x: jnp.sum((x - 1) ** 2), np.zeros(shape), method="bfgs")
    n = int(np.prod(shape))
    assert isinstance(res.hess_inv, jax.Array) and res.hess_inv.shape == (n, n)


def test_hess_inv_over_complex_numbers_is_that_over_their_parts():
    def fun(z):
        return quadratic(jnp.concatenate([z.real, z.imag]))

    z = minimize(fun, np.zeros(2, complex), options={"maxiter": 3})
    parts = minimize(quadratic, np.zeros(4), options={"maxiter": 3})
    np.testing.assert_allclose(z.hess_inv.todense(), parts.hess_inv.todense(), rtol=1e-9)
    v = np.array([1 + 2j, -3 + 1j])
    product = z.hess_inv @ v
    assert product.dtype == jnp.complex128
    expected = parts.hess_inv @ np.array([1.0, -3.0, 2.0, 1.0])
    np.testing.assert_allclose(np.concatenate([product.real, product.imag]), expected, rtol=1e-9)


def test_hess_inv_of_a_batch(batch):
    matrices = jax.vmap(lambda H: H.todense())(batch.hess_inv)
    assert matrices.shape == (3, 2, 2)
    np.testing.assert_allclose(matrices[0], minimize(rosenbrock, START).hess_inv.todense(), rtol=1e-6)
    dense = jax.vmap(lambda x: minimize(rosenbrock, x, method="bfgs"))(jnp.array([START, (2.0, 3.0)]))
    assert dense.hess_inv.shape == (2, 2, 2)


@pytest.mark.parametrize("method", ["bfgs", jaxmin.lbfgs(), jaxmin.lbfgs(memory=1)], ids=["bfgs", "lbfgs", "lbfgs1"])
@pytest.mark.parametrize("lanes", [(3,), pytest.param((2, 3), marks=pytest.mark.slow), (2, 2)])
def test_operator_of_a_batch_says_how_to_take_a_lane(method, lanes):
    def solve(x):  # over a pytree: the operator, whatever the method
        return minimize(lambda x: rosenbrock(x["p"]), {"p": x}, method=method, options={"maxiter": 5})

    batched = solve
    for _ in lanes:
        batched = jax.vmap(batched)
    H = batched(jnp.broadcast_to(jnp.array(START), (*lanes, 2))).hess_inv
    v = {"p": jnp.ones(2)}
    for use in (H.todense, H.diagonal, lambda: H @ v, lambda: H.dot(v), lambda: H.matvec(v), lambda: np.asarray(H)):
        with pytest.raises(
            ValueError, match=r"a batch of operators; write jax\.vmap\(lambda H: H\.todense\(\)\)\(res\.hess_inv\)"
        ):
            use()
    matrices = lambda H: H.todense()
    for _ in lanes:
        matrices = jax.vmap(matrices)
    alone = solve(jnp.array(START)).hess_inv.todense()
    np.testing.assert_allclose(matrices(H), jnp.broadcast_to(alone, (*lanes, 2, 2)), rtol=1e-6)
    lane = jax.tree.map(lambda leaf: leaf[(0,) * len(lanes)], H)
    np.testing.assert_allclose(lane.todense(), alone, rtol=1e-6)


def test_operator_reads_like_scipys():
    x0 = [-1.2, 1.0, 2.0]
    H = minimize(rosenbrock, x0).hess_inv
    assert isinstance(H, jaxmin.InverseHessian)
    scipys = scipy.optimize.minimize(scipy.optimize.rosen, x0, method="L-BFGS-B", jac=scipy.optimize.rosen_der).hess_inv
    v = np.array([1.0, -2.0, 3.0])
    for name in ("dot", "matvec"):
        product = getattr(H, name)(v)
        np.testing.assert_array_equal(product, H @ v)
        assert product.shape == getattr(scipys, name)(v).shape
        column = v[:, None]
        assert getattr(H, name)(column).shape == getattr(scipys, name)(column).shape == (3, 1)
    assert H.dot(np.eye(3)).shape == scipys.dot(np.eye(3)).shape
    assert H.T is H and H.shape == H.T.shape == scipys.T.shape
    tight = 50 * jnp.finfo(H.dtype).eps
    np.testing.assert_allclose(H.todense(), H.todense().T, rtol=tight, atol=tight * abs(H.todense()).max())
    assert (H.todense().shape, type(H.dtype)) == (scipys.todense().shape, type(scipys.dtype))


def test_operator_and_a_vector_of_another_size(res):
    with pytest.raises((TypeError, ValueError), match=r"\(3,\)"):
        res.hess_inv @ np.ones(3)
