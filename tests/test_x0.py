"""Any array or pytree can be x0, and comes back with its structure, its dtypes and all that does not vary."""

import collections
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ONE_STEP, mostly

from jaxmin import minimize

BF16, F16, F32, F64 = jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64
C64, C128 = jnp.complex64, jnp.complex128


def inexact(tree):
    """The leaves that are floating or complex arrays."""
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]


def squares(tree):
    """The minimum is at 1, for every number in every leaf that varies."""
    wide = [leaf.astype(jnp.promote_types(leaf.dtype, F32)) for leaf in inexact(tree)]
    return sum((jnp.sum(jnp.abs(leaf - 1) ** 2) for leaf in wide), jnp.zeros((), F32))


def solved(x0, fun=squares, method=ONE_STEP):
    res = minimize(fun, x0, method=method)
    assert res.success, res.message
    for leaf in inexact(res.x):
        np.testing.assert_allclose(np.asarray(leaf).astype(complex), 1, atol=1e-5)  # gtol, and more than 2 |x - 1|
    return res


# ---- one array


class Series:
    """What a data frame's column is to us: no array, but ``np.asarray`` makes it one."""

    def __init__(self, numbers):
        self._numbers = numbers

    def __array__(self, dtype=None, copy=None):
        return np.array(self._numbers, dtype=dtype)


ARRAYS = {
    "list": ([3.0, -2.0], (2,), F64),
    "tuple": ((3.0, -2.0), (2,), F64),
    "list of one": ([3.0], (1,), F64),
    "tuple of one": ((3.0,), (1,), F64),
    "list of ints": ([3, -2], (2,), F64),
    "list of ints and floats": ([3, -2.5], (2,), F64),
    "list of NumPy scalars": ([np.float64(3), np.int32(-2)], (2,), F64),
    "list of NumPy float32": ([np.float32(3), np.float32(-2)], (2,), F32),
    "list of bools": ([True, False], (2,), F64),
    "list of complex": ([3 + 1j, -2.0], (2,), C128),
    "empty list": ([], (0,), F64),
    "empty tuple": ((), (0,), F64),
    "Series": (Series([3.0, -2.0]), (2,), F64),
    "Series of ints": (Series([3, -2]), (2,), F64),
    "Series of float32": (Series(np.array([3, -2], np.float32)), (2,), F32),
    "float": (3.0, (), F64),
    "int": (3, (), F64),
    "complex": (3 + 2j, (), C128),
    "NumPy float32": (np.float32(3), (), F32),
    "NumPy int": (np.int64(3), (), F64),
    "0-d array": (np.array(3.0, np.float32), (), F32),
    "weakly typed scalar": (jnp.asarray(3.0), (), F64),
    "2-D array": (np.full((2, 3), 3.0), (2, 3), F64),
    "3-D array": (np.full((2, 1, 3), 3.0, np.float32), (2, 1, 3), F32),
    "strided array": (np.arange(12.0).reshape(3, 4)[::2, ::-2], (2, 2), F64),
    "Fortran order": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), (2, 3), F64),
    "big-endian array": (np.array([3.0, -2.0], ">f8"), (2,), F64),
    "zero-size array": (np.zeros((0, 3), np.float32), (0, 3), F32),
} | {
    f"{np.dtype(dtype).name} array": (np.array([3, 0], dtype), (2,), F64)
    for dtype in (np.int8, np.uint8, np.int32, np.int64, np.bool_)
}


@pytest.mark.parametrize("name", ARRAYS)
def test_one_array(name):
    x0, shape, dtype = ARRAYS[name]
    res = solved(x0)
    for leaf in (res.x, res.jac):
        assert isinstance(leaf, jax.Array)
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == (shape, dtype, False)


@pytest.mark.parametrize("array", [np.array, jnp.array], ids=["NumPy", "JAX"])
@pytest.mark.parametrize("dtype", [BF16, F16, F32, F64, C64, C128])
def test_dtype_is_kept(dtype, array):
    res = solved(array([3, -2], dtype))
    assert res.x.dtype == res.jac.dtype == dtype


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_objective_in_half_precision(dtype):
    res = minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.array([3, -2], dtype))
    assert res.x.dtype == res.fun.dtype == res.jac.dtype == dtype
    assert res.success
    np.testing.assert_array_equal(res.x.astype(F32), [1, 1])


def test_integers_become_the_default_float():
    enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with enable_x64(False):
        for x0 in ([3, -2], [3.0, -2.0], np.array([3, -2]), 3, {"a": 3}):
            (leaf,) = jax.tree.leaves(solved(x0).x)
            assert leaf.dtype == F32


def test_x0_is_left_alone():
    x0 = np.array([3.0, -2.0])
    x0.flags.writeable = False
    res = solved(x0)
    np.testing.assert_array_equal(x0, [3, -2])
    assert not np.shares_memory(np.asarray(res.x), x0)


def test_lists_of_arrays_and_nested_lists_are_pytrees():
    res = solved([[3.0, 2], [jnp.ones(2) * 4]])
    assert jax.tree.structure(res.x) == jax.tree.structure([[0, 0], [0]])


# ---- pytrees


class Pair(NamedTuple):
    a: object
    b: object


@jax.tree_util.register_pytree_with_keys_class
class Node:
    """A container of its own class, with a static field."""

    def __init__(self, children, label):
        self.children, self.label = children, label

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("children"), self.children)], self.label

    @classmethod
    def tree_unflatten(cls, label, children):
        return cls(*children, label)


ones = functools.partial(np.full, 2, 3.0)
TREES = {
    "dict": {"a": ones(F32), "b": np.full((2, 2), 3.0)},
    "OrderedDict": collections.OrderedDict(b=ones(F32), a=2.0),
    "list": [ones(F32), 3.0],
    "namedtuple": Pair(3.0, ones(F32)),
    "namedtuple of numbers": Pair(3, 4.0),
    "nested": {"a": (Pair(ones(F32), [2.0, {"c": np.float32(3)}]), None), "b": []},
    "mixed": {"a": jnp.zeros(2, BF16), "b": np.zeros(3, F32), "c": np.zeros((2, 2), F64)},
    "half": (jnp.zeros(2, BF16), jnp.zeros(2, F16)),
    "bfloat16": {"a": jnp.zeros(2, BF16), "b": jnp.zeros((), BF16)},
    "complex and real": {"z": np.zeros(2, C64), "x": np.zeros(2, F32), "y": 2.0},
    "complex128 and bfloat16": {"z": np.zeros((1, 2), C128), "x": jnp.zeros(2, BF16)},
    "zero-size leaves": {"a": np.zeros((0, 3), F32), "b": ones(F32), "c": np.zeros(0, C64)},
    "only zero-size leaves": [np.zeros((0, 3), F32), np.zeros(0)],
    "own class": Node([ones(F32), np.zeros(2)], "label"),
    "single": (ones(F32),),
}


def as_variable(leaf):
    """What a leaf in a plain container is when it comes back: an array, of the default float if it was an integer."""
    array = jnp.asarray(leaf)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(F64)


@pytest.mark.parametrize("name", TREES)
def test_structure_shapes_and_dtypes_come_back(name):
    x0 = TREES[name]
    res = solved(x0)
    assert jax.tree.structure(res.x) == jax.tree.structure(x0)
    assert type(res.x) is type(x0)
    for before, *after in zip(*map(jax.tree.leaves, (x0, res.x, res.jac)), strict=True):
        for leaf in after:
            assert isinstance(leaf, jax.Array) and not leaf.weak_type
            assert (leaf.shape, leaf.dtype) == (as_variable(before).shape, as_variable(before).dtype)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        # By default the others for one tree alone.
        pytest.param(method, name, marks=() if method == "lbfgs" or name == "mixed" else pytest.mark.slow)
        for method in ("lbfgs", "bfgs", "cg")
        for name in ("nested", "mixed", "complex and real")
    ],
)
def test_trees_with_every_direction(method, name):
    solved(TREES[name], method=method)


def test_only_zero_size_is_solved_by_one_evaluation():
    res = minimize(lambda x: jnp.sum(x**2) + 3, np.zeros((0, 3), F32))
    assert (int(res.status), int(res.nit), int(res.nfev), float(res.fun)) == (0, 0, 1, 3.0)


def test_parts_of_very_different_size_and_dtype_reach_their_own_minima():
    x0 = {"big": jnp.zeros(2, F64), "small": jnp.zeros(2, F32), "rough": jnp.zeros(2, BF16)}

    def fun(x):
        big = jnp.sum((x["big"] / 1e3 - 1) ** 2)
        return big + jnp.sum((x["small"] - 1e-3) ** 2) + jnp.sum((x["rough"].astype(F32) - 0.5) ** 2)

    res = minimize(fun, x0)
    assert res.success, res.message
    np.testing.assert_allclose(res.x["big"], 1e3, rtol=1e-2)
    np.testing.assert_allclose(res.x["small"], 1e-3, atol=1e-5)
    np.testing.assert_array_equal(res.x["rough"].astype(F32), 0.5)


# ---- what does not vary

STATIC = {
    "None": {"a": ones(F32), "n": None},
    "str": {"a": ones(F32), "mode": "train"},
    "function": {"a": ones(F32), "act": jnp.tanh},
    "bool": {"a": ones(F32), "on": True},
    "list with a str": [3.0, "label"],
    "tuple with None": (3.0, None),
    "object": {"a": ones(F32), "o": object()},
}


@pytest.mark.parametrize("name", STATIC)
def test_leaf_that_is_no_number_comes_back_itself(name):
    x0 = STATIC[name]
    seen = []

    def fun(x):
        seen.append(x)
        return squares(x)

    res = solved(x0, fun)
    for tree in (res.x, seen[0]):
        assert jax.tree.structure(tree) == jax.tree.structure(x0)
        for before, after in zip(jax.tree.leaves(x0), jax.tree.leaves(tree), strict=True):
            assert after is before or (isinstance(before, (float, np.ndarray)) and eqx.is_inexact_array(after))
    statics = len([leaf for leaf in jax.tree.leaves(x0) if not isinstance(leaf, (float, np.ndarray))])
    assert len(jax.tree.leaves(res.jac)) == len(jax.tree.leaves(x0)) - statics


def test_flags_and_keys_do_not_vary():
    x0 = {"a": ones(F32), "mask": np.array([True, False]), "key": jax.random.key(0)}

    def fun(x):
        assert x["mask"].dtype == bool
        noise = jax.random.normal(x["key"], (2,), F32)
        return squares(x["a"]) + 0 * jnp.sum(jnp.where(x["mask"], x["a"], noise))

    res = solved(x0, fun)
    np.testing.assert_array_equal(res.x["mask"], x0["mask"])
    assert res.x["mask"].dtype == bool
    assert (res.x["key"] == x0["key"]).all()
    assert res.jac["mask"] is None and res.jac["key"] is None


def test_integers_in_plain_containers_vary():
    res = minimize(lambda x: (x["n"] - 0.5) ** 2 + jnp.sum((x["k"] - 0.25) ** 2), {"n": 3, "k": np.arange(2)})
    assert res.x["n"].dtype == res.x["k"].dtype == F64
    np.testing.assert_allclose(res.x["n"], 0.5, atol=1e-5)
    np.testing.assert_allclose(res.x["k"], 0.25, atol=1e-5)


# ---- modules


class Net(eqx.Module):
    weight: jax.Array
    scale: float
    index: jax.Array
    act: Callable
    size: int = eqx.field(static=True)
    depth: int = 2
    on: bool = True
    name: str = "net"

    def __call__(self, x):
        for _ in range(self.depth):
            x = self.act(self.weight[self.index] * x + self.scale)
        return x if self.on else -x


def net(dtype):
    return Net(jnp.full(3, 0.1, dtype), 0.5, jnp.array([2, 0, 1]), jnp.tanh, size=3)


def fit(model, dtype=F32):
    return jnp.sum((model(jnp.ones(3, dtype)) - jnp.array([0.1, 0.2, 0.3], dtype)) ** 2)


@pytest.mark.parametrize("dtype", mostly([F32, F64], F32))
def test_module_goes_in_whole_and_comes_out_whole(dtype):
    model = net(dtype)
    res = minimize(fit, model, (dtype,))
    assert res.success, res.message
    assert isinstance(res.x, Net) and jax.tree.structure(res.x) == jax.tree.structure(model)
    assert res.x.weight.dtype == res.jac.weight.dtype == dtype
    assert res.x.act is model.act and res.x.name == "net" and res.x.on is True
    assert type(res.x.depth) is int and res.x.depth == 2 and res.x.size == 3
    np.testing.assert_array_equal(res.x.index, model.index)
    assert res.x.index.dtype == model.index.dtype
    assert res.jac.index is None and res.jac.act is None
    np.testing.assert_allclose(res.x(jnp.ones(3, dtype)), [0.1, 0.2, 0.3], atol=1e-3)


def test_float_field_of_a_module_varies():
    res = minimize(fit, net(F32))
    assert float(res.x.scale) != 0.5
    assert eqx.is_array(res.x.scale) and float(res.jac.scale) != 0.0


def test_module_inside_a_container_and_under_jit():
    @jax.jit
    def solve(start):
        x = minimize(lambda x: fit(x["net"]) + x["n"] ** 2, {"net": net(F32), "n": start}).x
        assert isinstance(x["net"], Net) and x["net"].act is jnp.tanh and x["net"].depth == 2
        return x["n"], x["net"](jnp.ones(3, F32))

    n, outputs = solve(2.0)
    np.testing.assert_allclose(n, 0, atol=1e-4)
    np.testing.assert_allclose(outputs, [0.1, 0.2, 0.3], atol=1e-3)


@pytest.mark.parametrize("activation", mostly([jax.nn.relu, jnp.tanh, lambda x: jnp.sin(x)], jax.nn.relu))
def test_mlp(activation):
    model = eqx.nn.MLP(2, 1, 8, 2, activation=activation, key=jax.random.key(0), dtype=F32)
    inputs = jax.random.normal(jax.random.key(1), (20, 2), F32)
    targets = jnp.sin(inputs[:, :1])

    def loss(model, inputs, targets):
        return jnp.mean((jax.vmap(model)(inputs) - targets) ** 2)

    res = minimize(loss, model, (inputs, targets), options={"maxiter": 30})
    assert jax.tree.structure(res.x) == jax.tree.structure(model)
    assert res.x.activation is model.activation
    assert type(res.x.depth) is int and type(res.x.layers[0].in_features) is int
    assert [leaf.dtype for leaf in inexact(res.x)] == [F32] * 6
    assert res.fun < 0.2 * loss(model, inputs, targets)
    np.testing.assert_allclose(loss(res.x, inputs, targets), res.fun, rtol=1e-5)


# ---- complex numbers


def bowl(z):
    """Real and imaginary parts have curvatures of their own, and are coupled; the minimum is at 1 + 2j, 3 - 1j."""
    z = z - jnp.array([1 + 2j, 3 - 1j], z.dtype)
    cross = jnp.real(z[0]) * jnp.imag(z[1])
    return jnp.sum(jnp.abs(z) ** 2) + 3 * jnp.sum(jnp.real(z) ** 2) + cross + jnp.abs(jnp.sum(z)) ** 2


@pytest.mark.parametrize("method", ["lbfgs", "bfgs", "cg", "gradient_descent"])
@pytest.mark.parametrize("dtype", mostly([C64, C128], C64))
def test_complex_x0(dtype, method):
    res = minimize(bowl, np.zeros(2, dtype), method=method)
    assert res.success, res.message
    assert res.x.dtype == res.jac.dtype == dtype
    np.testing.assert_allclose(res.x, [1 + 2j, 3 - 1j], atol=1e-4)


@pytest.mark.parametrize("maxiter", [0, 1, 3])
@pytest.mark.parametrize("dtype", [C64, C128])
def test_jac_of_a_complex_x_is_jax_grads(dtype, maxiter):
    res = minimize(bowl, np.array([1j, 2 - 1j], dtype), options={"maxiter": maxiter})
    expected = jax.grad(bowl)(res.x)
    assert np.abs(np.imag(expected)).max() > 1e-3
    np.testing.assert_allclose(res.jac, expected, rtol=1e-4, atol=1e-5)


def test_complex_and_real_leaves_together():
    def fun(x):
        return bowl(x["z"]) + jnp.sum((x["r"] - jnp.real(x["z"])) ** 2) + (x["s"] - 1) ** 2

    x0 = {"z": np.zeros(2, C64), "r": np.zeros(2, F32), "s": 3.0}
    res = minimize(fun, x0)
    assert res.success, res.message
    assert jax.tree.map(lambda leaf: leaf.dtype, res.x) == {"z": C64, "r": F32, "s": F64}
    np.testing.assert_allclose(res.x["z"], [1 + 2j, 3 - 1j], atol=1e-4)
    np.testing.assert_allclose(res.x["r"], [1, 3], atol=1e-4)
    early = minimize(fun, x0, options={"maxiter": 2})
    for got, expected in zip(jax.tree.leaves(early.jac), jax.tree.leaves(jax.grad(fun)(early.x)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_complex_solve_is_the_solve_over_real_and_imaginary_parts():
    def over_parts(parts):
        return bowl(jax.lax.complex(parts[:2], parts[2:]))

    z = minimize(bowl, np.array([1j, 2 - 1j]), options={"maxiter": 5})
    parts = minimize(over_parts, np.array([0.0, 2.0, 1.0, -1.0]), options={"maxiter": 5})
    np.testing.assert_allclose(np.concatenate([z.x.real, z.x.imag]), parts.x, rtol=1e-10)
    assert z.nfev == parts.nfev


def test_jac_of_the_users_own_for_a_complex_x_is_in_jax_grads_convention():
    by_ad = minimize(bowl, np.zeros(2, C128), options={"maxiter": 3})
    by_hand = minimize(lambda z: jax.lax.stop_gradient(bowl(z)), np.zeros(2, C128), jac=jax.grad(bowl),
                       options={"maxiter": 3})  # fmt: skip
    np.testing.assert_allclose(by_hand.x, by_ad.x, rtol=1e-12)
    np.testing.assert_allclose(by_hand.jac, by_ad.jac, rtol=1e-12)
