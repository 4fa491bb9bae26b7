"""The call takes SciPy's parameters, the names and options of several libraries, and every kind of callable."""

import functools
import gc
import inspect
import itertools
import types
import weakref
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import DTYPES, ONE_STEP, START, UNCONSTRAINED, X0, each_dtype
from problems import rosenbrock

import jaxmin
from jaxmin import minimize
from jaxmin._cache.registry import entries


def squares(x, a=2.0):
    """The minimum is at a."""
    return jnp.sum((x - a) ** 2)


def same(one, other):
    """Two results that agree bit for bit."""
    return all(np.array_equal(one[key], other[key]) for key in ("x", "fun", "nit", "nfev", "status"))


def at(target, **given):
    """Solve from X0 and check that the end is at the target."""
    res = minimize(**{"x0": X0, "method": ONE_STEP} | given)
    assert res.success, res.message
    np.testing.assert_allclose(res.x, np.broadcast_to(target, 2), atol=1e-5)
    return res


# ---- parameters


def test_positional_parameters_are_scipys_in_its_order():
    ours = inspect.signature(minimize).parameters
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(inspect.signature(scipy.optimize.minimize).parameters)


def test_defaults_are_scipys_but_for_the_method():
    ours, scipys = (inspect.signature(f).parameters for f in (minimize, scipy.optimize.minimize))
    assert {name for name in scipys if ours[name].default != scipys[name].default} == {"method"}
    assert ours["method"].default == "lbfgs"


def test_what_scipy_has_not_is_keyword_only():
    ours = inspect.signature(minimize).parameters
    assert [name for name, p in ours.items() if p.kind is p.KEYWORD_ONLY] == ["linesearch", "has_aux", "progress"]
    assert ours["has_aux"].default is False


def test_no_linesearch_is_the_methods_own():
    assert inspect.signature(minimize).parameters["linesearch"].default is None
    assert same(ten_steps("cg"), ten_steps("cg", jaxmin.backtracking(curvature=0.4)))
    assert not same(ten_steps("cg"), ten_steps("cg", jaxmin.backtracking()))


def test_all_of_scipys_parameters_by_position():
    res = minimize(squares, X0, (1.0,), "BFGS", None, None, None, None, (), 1e-3, None, {"maxiter": 50})
    assert res.success
    np.testing.assert_allclose(res.x, 1, atol=1e-3)


# ---- args

ONE_ARGUMENT = {
    "float": (4.0, lambda a: a, 4),
    "int": (4, lambda a: a, 4),
    "numpy scalar": (np.float64(4), lambda a: a, 4),
    "numpy array": (np.array([1.0, 2.0]), lambda a: a, [1, 2]),
    "jax array": (jnp.array([1.0, 2.0]), lambda a: a, [1, 2]),
    "list": ([1.0, 2.0], lambda a: jnp.stack([jnp.asarray(a[0]), jnp.asarray(a[1])]), [1, 2]),
    "dict": ({"a": 4.0}, lambda a: a["a"], 4),
    "str": ("four", len, 4),
    "None": (None, lambda a: 4.0 if a is None else jnp.nan, 4),
    "function": (jnp.cos, lambda a: a(0.0), 1),
}


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_args_that_is_no_tuple_is_one_argument(name):
    args, read, target = ONE_ARGUMENT[name]
    at(target, fun=lambda x, a: squares(x, read(a)), args=args)


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_args_in_a_tuple(name):
    arg, read, target = ONE_ARGUMENT[name]
    at(target, fun=lambda x, one, a: squares(x, read(a)) * one, args=(1.0, arg))


def test_args_of_many_kinds_in_one_pytree():
    args = {"scale": 2, "shift": [np.ones(2), (1.0, None)], "act": jnp.tanh, "on": True, "mode": "plus"}

    def fun(x, a):
        assert a["on"] is True and a["shift"][1][1] is None
        shift = a["shift"][0] + a["shift"][1][0] if a["mode"] == "plus" else jnp.nan
        return squares(x, a["scale"] * shift + a["act"](0.0))

    at(4, fun=fun, args=(args,))


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.int64, jnp.bool_])
def test_integer_and_boolean_arrays_in_args_keep_their_dtype(dtype):
    seen = []

    def fun(x, index):
        seen.append(jnp.asarray(index).dtype)
        return squares(x) + 0 * jnp.sum(x[index.astype(int)])

    at(2, fun=fun, args=(np.array([0, 1], dtype),))
    assert set(seen) == {jnp.dtype(dtype)}


def test_integers_in_args_are_not_differentiated():
    # An index may be used as one only while it is an integer.
    at([2, 1.5], fun=lambda x, i: squares(x) + x[i], args=(np.int32(1),))


@pytest.mark.parametrize("arg", [2, 2.0])
@each_dtype
def test_python_numbers_in_args_do_not_widen(dtype, arg):
    res = at(2, fun=squares, x0=np.array(X0, dtype), args=(arg,))
    assert res.x.dtype == res.fun.dtype == res.jac.dtype == dtype


STEERING = {
    "range": lambda x, k, a: squares(x, a) + sum(0 * x[0] for _ in range(k)),
    "if": lambda x, k, a: squares(x, a) if k > 2 else squares(x, -a),
    "axis": lambda x, k, a: jnp.sum(jnp.sum(((x - a) ** 2).reshape(1, 1, 1, 2), axis=k)),
    "shape": lambda x, k, a: squares(x, a) + 0 * jnp.sum(jnp.zeros(k)),
    "slice": lambda x, k, a: squares(x[:k], a),
    "NumPy": lambda x, k, a: squares(x, a) + 0 * np.sqrt(k),
    "index of a list": lambda x, k, a: squares(x, [0, 0, 0, a][k]),
    "float()": lambda x, k, a: squares(x, a) + 0 * float(k),
    "static argument of jit": lambda x, k, a: jax.jit(lambda x, k, a: squares(x, a), static_argnums=1)(x, k, a),
}


@pytest.mark.parametrize("name", STEERING)
def test_python_integers_may_steer_control_flow(name):
    at(1.5, fun=STEERING[name], args=(3, np.array([1.5, 1.5])))


def test_partial_may_bind_an_integer_that_steers_control_flow():
    at(1.5, fun=functools.partial(lambda k, x, a: STEERING["range"](x, k, a), 3, a=np.array([1.5, 1.5])))


# ---- jac


def target(x, a=2.0):
    """The objective without a gradient of its own: only jac can lead to the minimum."""
    return jax.lax.stop_gradient(squares(x, a))


def slope(x, a=2.0):
    return 2 * (x - a)


JAC = {
    "None": {"fun": squares, "jac": None},
    "False": {"fun": squares, "jac": False},
    "callable": {"fun": target, "jac": slope},
    "True": {"fun": lambda x, a: (target(x, a), slope(x, a)), "jac": True},
    "True, a list": {"fun": lambda x, a: [target(x, a), slope(x, a)], "jac": True},
    "None, aux": {"fun": lambda x, a: (squares(x, a), {"x": x}), "jac": None, "has_aux": True},
    "False, aux": {"fun": lambda x, a: (squares(x, a), {"x": x}), "jac": False, "has_aux": True},
    "callable, aux": {"fun": lambda x, a: (target(x, a), {"x": x}), "jac": slope, "has_aux": True},
    "True, aux": {"fun": lambda x, a: ((target(x, a), {"x": x}), slope(x, a)), "jac": True, "has_aux": True},
}


@each_dtype
@pytest.mark.parametrize("name", JAC)
def test_jac(name, dtype):
    res = at(5, x0=np.array(X0, dtype), args=(5.0,), **JAC[name])
    assert res.x.dtype == res.jac.dtype == dtype
    np.testing.assert_allclose(res.jac, slope(res.x, 5.0), atol=1e-5)
    assert res.njev == res.nfev
    if "aux" in name:
        np.testing.assert_array_equal(res.aux["x"], res.x)
    else:
        assert res.aux is None


def test_jac_may_return_a_list_of_numbers_where_x0_is_an_array():
    at(2, fun=target, jac=lambda x: [2 * (x[0] - 2), 2 * (x[1] - 2)])


def test_jac_is_built_like_x0():
    x0 = {"a": 3.0, "b": (np.ones(2, np.float32), None)}

    def fun(x):
        return jax.lax.stop_gradient(squares(x["a"]) + squares(x["b"][0], 1.5))

    gradient = lambda x: {"a": slope(x["a"]), "b": (slope(x["b"][0], 1.5), None)}
    res = minimize(fun, x0, method=ONE_STEP, jac=gradient)
    assert res.success
    np.testing.assert_allclose(res.x["a"], 2, atol=1e-5)
    np.testing.assert_allclose(res.x["b"][0], 1.5, atol=1e-5)


# ---- aux


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *DTYPES])
def test_aux_is_that_of_the_point_returned(dtype):
    def fun(x):
        return rosenbrock(x.astype(jnp.promote_types(dtype, jnp.float32))), {"x": x, "twice": 2 * x}

    solve = jax.jit(lambda maxfun: minimize(fun, jnp.array(START, dtype), has_aux=True, options={"maxfun": maxfun}))
    ends = [solve(maxfun) for maxfun in range(1, 30)]
    for end in ends:
        np.testing.assert_array_equal(end.aux["x"], end.x)
        np.testing.assert_array_equal(end.aux["twice"], 2 * end.x)
    # Some of these solves were cut inside a search, just after a trial that was not accepted.
    assert any(end.nit == before.nit and end.nfev > before.nfev for before, end in itertools.pairwise(ends))


def test_aux_may_hold_anything():
    aux = minimize(
        lambda x: (squares(x), {"name": "run", "none": None, "f": jnp.sin, "n": 3, "i": jnp.arange(2), "on": True}),
        X0,
        method=ONE_STEP,
        has_aux=True,
    ).aux
    assert aux["name"] == "run" and aux["none"] is None and aux["f"] is jnp.sin and aux["on"] is True
    assert int(aux["n"]) == 3 and jnp.issubdtype(aux["n"].dtype, jnp.integer)
    np.testing.assert_array_equal(aux["i"], [0, 1])


# ---- names of methods and searches

METHOD_NAMES = {
    "lbfgs": ("lbfgs", "LBFGS", "L-BFGS-B", "l-bfgs-b", "L-BFGS", "l_bfgs_b"),
    "bfgs": ("bfgs", "BFGS", "BfGs", None),
    "cg": ("cg", "CG"),
    "gradient_descent": ("gradient_descent", "Gradient_Descent", "gradient-descent"),
}
SEARCH_NAMES = {
    "backtracking": ("backtracking", "Backtracking"),
    "wolfe": ("wolfe", "Wolfe", "zoom", "ZOOM"),
    "hager_zhang": ("hager_zhang", "hager-zhang", "Hager-Zhang", "HagerZhang"),
    "fixed": ("fixed",),
}
TEN = {"maxiter": 10}


@functools.cache
def ten_steps(method, linesearch=None):
    given = {} if linesearch is None else {"linesearch": linesearch}
    return minimize(rosenbrock, [2.0, -3.0, 1.0], method=method, options=TEN, **given)


@pytest.mark.parametrize("name", entries("methods"))
@pytest.mark.filterwarnings("ignore:fun returns one number")
def test_method_in_every_spelling(name):
    built = ten_steps(getattr(jaxmin, name)())
    for spelling in METHOD_NAMES.get(name, (name, name.upper())):
        assert same(ten_steps(spelling), built), spelling


def test_methods_differ():
    ends = {name: float(ten_steps(name).fun) for name in UNCONSTRAINED}
    assert ends.pop("lbfgs_newton") == ends["lbfgs"]  # ten steps are no time to creep
    assert len(set(ends.values())) == len(ends)


@pytest.mark.parametrize("name", entries("linesearches"))
def test_search_in_every_spelling(name):
    built = ten_steps("lbfgs", getattr(jaxmin, name)())
    assert same(ten_steps(jaxmin.lbfgs(linesearch=getattr(jaxmin, name)())), built)
    for spelling in SEARCH_NAMES.get(name, (name, name.upper())):
        assert same(ten_steps("lbfgs", spelling), built), spelling


def test_searches_differ():
    ends = {float(ten_steps("lbfgs", name).fun) for name in entries("linesearches")}
    assert len(ends) == len(entries("linesearches"))


@pytest.mark.parametrize("search", ["backtracking", "wolfe", jaxmin.wolfe()])
def test_search_beside_a_built_method_is_an_error(search):
    with pytest.raises(ValueError, match="linesearch"):
        minimize(squares, X0, method=jaxmin.lbfgs(), linesearch=search)


# ---- transformations in Optax's manner as methods


class Transformation(NamedTuple):
    init: Callable
    update: Callable


def descent(rate):
    """Gradient descent that checks how its arguments are built, and counts."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)

    def update(grad, state, params=None):
        last, count = state
        assert jax.tree.structure(grad) == jax.tree.structure(params) == jax.tree.structure(last)
        return jax.tree.map(lambda g: -rate * g, grad), (grad, count + 1)

    return Transformation(init, update)


def test_a_transformation_is_a_method_that_searches_nothing():
    res = at(2, fun=squares, method=descent(0.5))
    assert (int(res.nit), int(res.nfev)) == (1, 2)
    rough = minimize(squares, X0, method=descent(0.9), options={"maxiter": 3})
    assert int(rough.nfev) == 4 and rough.status == 1
    np.testing.assert_allclose(rough.x - 2, (np.array(X0) - 2) * (-0.8) ** 3)


def test_a_transformation_sees_parameters_built_like_x0():
    x0 = {"a": np.zeros(2, np.float32), "b": (4.0, None)}
    res = minimize(lambda x: squares(x["a"]) + squares(x["b"][0]), x0, method=descent(0.5))
    assert res.success and res.x["a"].dtype == jnp.float32
    np.testing.assert_allclose(res.x["a"], 2)


@pytest.mark.parametrize("search", ["wolfe", jaxmin.wolfe()])
def test_a_search_beside_a_transformation_searches_along_it(search):
    transformation = descent(10.0)
    given = minimize(rosenbrock, START, method=transformation, linesearch=search, options=TEN)
    built = minimize(rosenbrock, START, method=jaxmin.descend(transformation, jaxmin.wolfe()), options=TEN)
    assert same(given, built)
    assert given.fun < rosenbrock(jnp.array(START))


# ---- names of options

OPTIONS = {
    "maxcor": ({"options": {"maxcor": 2}}, {"method": jaxmin.lbfgs(memory=2)}),
    "MAXCOR": ({"options": {"MAXCOR": 2}}, {"method": jaxmin.lbfgs(memory=2)}),
    "maxcor of NumPy": ({"options": {"maxcor": np.int64(2)}}, {"method": jaxmin.lbfgs(memory=2)}),
    "memory": ({"options": {"memory": 2}}, {"method": jaxmin.lbfgs(memory=2)}),
    "maxls": ({"options": {"maxls": 2}}, {"linesearch": jaxmin.backtracking(max_trials=2)}),
    "max_trials": ({"options": {"max_trials": 2}}, {"linesearch": jaxmin.backtracking(max_trials=2)}),
    "c1": ({"options": {"c1": 0.4}}, {"linesearch": jaxmin.backtracking(sufficient=0.4)}),
    "c2": ({"options": {"c2": 0.1}}, {"linesearch": jaxmin.backtracking(curvature=0.1)}),
    "wolfe c2": (
        {"linesearch": "wolfe", "options": {"c1": 0.01, "c2": 0.1}},
        {"linesearch": jaxmin.wolfe(sufficient=0.01, curvature=0.1)},
    ),
    "hager_zhang c2": (
        {"linesearch": "hager_zhang", "options": {"c1": 0.1, "c2": 0.2}},
        {"linesearch": jaxmin.hager_zhang(sufficient=0.1, curvature=0.2)},
    ),
    "wolfe maxls": ({"linesearch": "wolfe", "options": {"maxls": 2}}, {"linesearch": jaxmin.wolfe(max_trials=2)}),
    "GTOL": ({"options": {"GTOL": 5.0}}, {"options": {"gtol": 5.0}}),
    "MaxIter": ({"options": {"MaxIter": 4}}, {"options": {"maxiter": 4}}),
    "maxfev": ({"options": {"maxfev": 4}}, {"options": {"maxfun": 4}}),
    "xrtol": ({"options": {"xrtol": 0.1}}, {"options": {"xtol": 0.1}}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option_in_every_spelling(name):
    spelt, meant = (minimize(rosenbrock, START, **given) for given in OPTIONS[name])
    assert same(spelt, meant)
    assert not same(spelt, minimize(rosenbrock, START))


@pytest.mark.parametrize(
    "option",
    [{"disp": False}, {"disp": 0}, {"return_all": False}, {"norm": np.inf}, {"iprint": -1}, {"scale": None}, {}, None],
)
def test_options_of_scipys_that_change_nothing(option):
    assert same(minimize(rosenbrock, START, options=option), minimize(rosenbrock, START))


def test_options_are_not_changed():
    options = {"gtol": 1e-3, "maxcor": 5, "maxls": 10}
    minimize(squares, X0, options=options)
    assert options == {"gtol": 1e-3, "maxcor": 5, "maxls": 10}


# ---- tol

TOL = {
    "lbfgs": ("lbfgs", ("ftol", "gtol")),
    "bfgs": ("bfgs", ("gtol",)),
    "cg": ("cg", ("gtol",)),
    "gradient_descent": ("gradient_descent", ("gtol",)),
    "built": (jaxmin.bfgs(), ("gtol",)),
}


def quartic(x):
    return jnp.sum((x - 0.1) ** 4)


@pytest.mark.parametrize("name", TOL)
def test_tol_sets_what_scipy_sets(name):
    method, tolerances = TOL[name]
    for tol in (0.3, 1e-3):
        by_tol = minimize(quartic, 1.0, method=method, tol=tol)
        assert same(by_tol, minimize(quartic, 1.0, method=method, options=dict.fromkeys(tolerances, tol)))
        assert not same(by_tol, minimize(quartic, 1.0, method=method))


def test_tol_of_lbfgs_is_more_than_gtol():
    by_tol, by_gtol = minimize(quartic, 1.0, tol=1e-3), minimize(quartic, 1.0, options={"gtol": 1e-3})
    assert by_tol.status == 4 and by_gtol.status == 0


def test_options_go_before_tol():
    given = minimize(quartic, 1.0, tol=0.3, options={"gtol": 1e-3, "ftol": 1e-9})
    assert same(given, minimize(quartic, 1.0, options={"gtol": 1e-3, "ftol": 1e-9}))
    assert not same(given, minimize(quartic, 1.0, tol=0.3))


# ---- not offered yet: refused by name

REFUSED = {
    "return_all": {"options": {"return_all": True}},
    "eps": {"options": {"eps": 1e-8}},
    "finite_diff_rel_step": {"options": {"finite_diff_rel_step": 1e-8}},
    "workers": {"options": {"workers": 2}},
    "norm": {"options": {"norm": 2}},
    "2-point": {"jac": "2-point"},
    "COBYQA": {"method": "COBYQA"},
    "hess_inv0.*warm_start": {"method": "BFGS", "options": {"hess_inv0": np.eye(2)}},
    "iprint.*disp": {"method": "L-BFGS-B", "options": {"iprint": 1}},
    "scale.*fun": {"method": "TNC", "options": {"scale": np.ones(2)}},
    "offset.*fun": {"method": "TNC", "options": {"offset": [1.0, 2.0]}},
    "rescale.*multiply fun": {"method": "TNC", "options": {"rescale": 1.3}},
    "stepmx.*max_step": {"method": "TNC", "options": {"stepmx": 10.0}},
    "verbose.*disp": {"method": "trust-constr", "options": {"verbose": 1}},
    "maxiter.*100.1: a whole number": {"options": {"maxiter": 100.1}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_offered_is_refused_by_name(name):
    with pytest.raises((NotImplementedError, ValueError), match=name):
        minimize(squares, X0, **REFUSED[name])


@pytest.mark.parametrize("none", [(), [], None])
def test_no_constraints_are_no_constraints(none):
    at(2, fun=squares, constraints=none)


# ---- every kind of callable


class Plain:
    """An object of no special kind; it cannot be hashed, and holds what may change."""

    __hash__ = None

    def __init__(self, a):
        self.a = a

    def __eq__(self, other):
        return self.a == other.a

    def loss(self, x):
        return squares(x, self.a)

    def __call__(self, x):
        return squares(x, self.a)

    @classmethod
    def made(cls, x):
        return squares(x, 2.0)

    @staticmethod
    def static(x):
        return squares(x, 2.0)


class Module(eqx.Module):
    a: jax.Array
    act: Callable
    power: int

    def loss(self, x):
        return squares(self.act(x), self.a) ** self.power

    def __call__(self, x):
        return self.loss(x)


CALLABLES = {
    "function": squares,
    "lambda": lambda x: squares(x, 2.0),
    "partial": functools.partial(squares, a=2.0),
    "partial of an array": functools.partial(squares, a=np.full(2, 2.0)),
    "nested partial": functools.partial(functools.partial(lambda b, c, x: squares(x, b + c), 1.5), 0.5),
    "partial of a method": functools.partial(Plain(2.0).loss),
    "bound method": Plain(2.0).loss,
    "class method": Plain.made,
    "static method": Plain.static,
    "unhashable callable": Plain(2.0),
    "module": Module(jnp.full(2, 2.0), lambda x: x, 1),
    "module's method": Module(jnp.full(2, 2.0), lambda x: x, 1).loss,
    "module with a NumPy array": Module(np.full(2, 2.0), lambda x: x, 1),
    "Partial": jax.tree_util.Partial(squares, a=2.0),
    "jit": jax.jit(squares),
    "jit over a NumPy array": (lambda a: jax.jit(lambda x: squares(x, a)))(np.full(2, 2.0)),
    "filter_jit": eqx.filter_jit(squares),
    "checkpoint": jax.checkpoint(squares),
    "custom_jvp": jax.custom_jvp(squares),
    "wraps": functools.wraps(squares)(lambda *args: squares(*args)),
}
TWO = jnp.full(2, 2.0)
CALLABLES |= {
    f"jit over an array, {name}": jax.jit(fun)
    for name, fun in {
        "plain": lambda x: squares(x, TWO),
        "jit": lambda x: jax.jit(lambda x: squares(x, TWO))(x),
        "vmap": lambda x: jnp.sum(jax.vmap(squares)(x, TWO)),
        "checkpoint": jax.checkpoint(lambda x: squares(x, TWO)),
        "custom_jvp": lambda x: squares(x, TWO) + 0 * jnp.sum(jax.nn.relu(x - TWO)),
        "scan": lambda x: jax.lax.scan(lambda total, _: (total + squares(x, TWO), None), 0.0, length=1)[0],
        "cond": lambda x: jax.lax.cond(x[0] > 9, lambda x: squares(x, -TWO), lambda x: squares(x, TWO), x),
        "while": lambda x: squares(x, TWO) + 0 * jax.lax.while_loop(lambda t: t < 3, lambda t: t + TWO[0], 0.0),
        "linalg": lambda x: squares(x, jnp.linalg.solve(jnp.diag(TWO), TWO**2)),
        "random": lambda x: squares(x, TWO) + 0 * jnp.sum(jax.random.normal(jax.random.key(0), (2,)) * TWO),
        "pure_callback": lambda x: squares(x, jax.pure_callback(np.asarray, TWO, TWO)),
    }.items()
}
CALLABLES["custom_jvp"].defjvp(lambda p, t: (squares(*p), jnp.vdot(slope(*p), t[0])))


@pytest.mark.parametrize("name", CALLABLES)
def test_fun_may_be(name):
    at(2, fun=CALLABLES[name])


@pytest.mark.parametrize("name", ["partial of an array", "bound method", "module's method", "Partial", "jit"])
def test_fun_inside_jit_may_be(name):
    x = jax.jit(lambda x0: minimize(CALLABLES[name], x0, method=ONE_STEP).x)(jnp.array(X0))
    np.testing.assert_allclose(x, 2, atol=1e-5)


# ---- what fun sees may change between calls

SHIFT = 2.0
SETTINGS = types.ModuleType("settings")


class Hashable(Plain):
    """One that can be hashed, by its identity."""

    __hash__ = object.__hash__
    shift = 2.0

    def shifted(self, x):
        return squares(x, type(self).shift)

    def at(self, _):
        return self.a


class Shifted(eqx.Module):
    """A module whose methods see a global, and what is in its static field."""

    static: object = eqx.field(static=True)

    def loss(self, x):
        return squares(x, SHIFT)

    def of_static(self, x):
        return self.static.loss(x)

    def __call__(self, x):
        return squares(x, SHIFT)


@jax.custom_jvp
def with_a_rule(x):
    return 0 * jnp.sum(x)


with_a_rule.defjvp(lambda p, t: (with_a_rule(*p), jnp.vdot(slope(p[0], SHIFT), t[0])))


def over_a_global(x):
    return squares(x, SHIFT)


GLOBALS = {
    "function": over_a_global,
    "function of a function": lambda x: over_a_global(x),
    "partial": functools.partial(lambda a, x: over_a_global(x), 1.0),
    "Partial": jax.tree_util.Partial(lambda a, x: over_a_global(x), 1.0),
    "module's method": Shifted(None).loss,
    "module": Shifted(None),
    "globals()": lambda x: squares(x, globals()["SHIFT"]),
    "derivative rule": lambda x: with_a_rule(x),
}


@pytest.mark.parametrize("name", GLOBALS)
def test_global_rebound_between_calls_is_seen(name, monkeypatch):
    at(2, fun=GLOBALS[name])
    monkeypatch.setitem(globals(), "SHIFT", 5.0)
    at(5, fun=GLOBALS[name])


def test_global_rebound_between_calls_is_seen_through_args(monkeypatch):
    at(2, fun=lambda x, module: module(x), args=(Shifted(None),))
    monkeypatch.setitem(globals(), "SHIFT", 5.0)
    at(5, fun=lambda x, module: module(x), args=(Shifted(None),))


ATTRIBUTES = {
    "object": lambda plain: plain,
    "bound method": lambda plain: plain.loss,
    "partial of the object": lambda plain: functools.partial(plain),
    "partial of a bound method": lambda plain: functools.partial(plain.loss),
    "Partial of a bound method": lambda plain: jax.tree_util.Partial(plain.loss),
    "partial of a function of the object": lambda plain: functools.partial(lambda plain, x: plain.loss(x), plain),
    "lambda": lambda plain: lambda x: plain.loss(x),
}


@pytest.mark.parametrize("kind", [Plain, Hashable])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute_changed_between_calls_is_seen(name, kind):
    plain = kind(2.0)
    fun = ATTRIBUTES[name](plain)
    for a in (2.0, 5.0, np.array([1.0, -1.0])):
        plain.a = a
        at(a, fun=fun)


def test_attribute_in_a_static_field_changed_between_calls_is_seen():
    plain = Hashable(2.0)
    fun = Shifted(plain).of_static
    at(2, fun=fun)
    plain.a = 5.0
    at(5, fun=fun)


def test_attribute_of_a_class_changed_between_calls_is_seen(monkeypatch):
    funs = Hashable(0.0).shifted, lambda x: squares(x, Hashable.shift)
    for fun in funs:
        at(2, fun=fun)
    monkeypatch.setattr(Hashable, "shift", 5.0)
    for fun in funs:
        at(5, fun=fun)


def test_attribute_of_a_module_changed_between_calls_is_seen(monkeypatch):
    monkeypatch.setattr(SETTINGS, "a", 2.0, raising=False)
    fun = lambda x: squares(x, SETTINGS.a)
    at(2, fun=fun)
    monkeypatch.setattr(SETTINGS, "a", 5.0)
    at(5, fun=fun)


def over_a_variable():
    a = 2.0

    def change():
        nonlocal a
        a = 5.0

    return lambda x: squares(x, a), change


def over(held, look, change):
    """A function that looks into what it closed over, and what changes that from 2 to 5."""
    return lambda x: squares(x, look(held)), lambda: change(held)


def over_method(held, look_up, change):
    """A function that closed over what looks into it, and what changes that from 2 to 5."""
    look = look_up(held)
    return lambda x: squares(x, look(0)), lambda: change(held)


def set_item(held):
    held[0] = 5.0


def set_attribute(held):
    held.a = 5.0


CLOSURES = {
    "variable": over_a_variable,
    "list": lambda: over([2.0], lambda held: held[0], set_item),
    "dict": lambda: over({0: 2.0}, lambda held: held[0], set_item),
    "NumPy array": lambda: over(np.array([2.0]), lambda held: held[0], set_item),
    "object": lambda: over(Hashable(2.0), lambda held: held.a, set_attribute),
    "deep": lambda: over(([2.0], None), lambda held: held[0][0], lambda held: set_item(held[0])),
    "method of a list": lambda: over_method([2.0], lambda held: held.__getitem__, set_item),
    "method of a dict": lambda: over_method({0: 2.0}, lambda held: held.get, set_item),
    "method of an object": lambda: over_method(Hashable(2.0), lambda held: held.at, set_attribute),
    "partial": lambda: over_method([2.0], lambda held: functools.partial(lambda held, i: held[i], held), set_item),
    "Partial": lambda: over_method([2.0], lambda held: jax.tree_util.Partial(lambda i: held[i]), set_item),
    "function": lambda: over_method([2.0], lambda held: lambda i: held[i], set_item),
    "iterator": lambda: over_method(iter([2.0, 5.0]), lambda held: lambda i: next(held), lambda held: None),
    "method of an iterator": lambda: over_method(
        iter([2.0, 5.0]), lambda held: (lambda step: lambda i: step())(held.__next__), lambda held: None
    ),
    "polynomial": lambda: over_method(
        np.poly1d([2.0]), lambda held: held, lambda held: held.coeffs.__setitem__(0, 5.0)
    ),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_closure_changed_between_calls_is_seen(name):
    fun, change = CLOSURES[name]()
    at(2, fun=fun)
    change()
    at(5, fun=fun)


@pytest.mark.parametrize("draw", [np.random.RandomState(0).normal, np.random.default_rng(0).normal])
def test_random_numbers_are_drawn_anew_each_call(draw):
    fun = lambda x: squares(x, draw(size=2))
    assert not np.allclose(minimize(fun, X0, method=ONE_STEP).x, minimize(fun, X0, method=ONE_STEP).x)


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_what_a_fresh_function_closed_over_is_freed(array):
    data = array([7.0, 8.0])
    gone = weakref.ref(data)
    at([7, 8], fun=(lambda data: lambda x: squares(x, data))(data))
    del data
    gc.collect()
    assert gone() is None


def test_fresh_lambda_a_call():
    for shift in (1.0, 2.0, np.array([3.0, 4.0]), jnp.array([5.0, 6.0])):
        at(shift, fun=lambda x: squares(x, shift))  # noqa: B023


def test_closure_over_tracers_of_jit():
    solve = jax.jit(lambda a: minimize(lambda x: squares(x, a), X0, method=ONE_STEP).x)
    for a in (1.0, 2.0):
        np.testing.assert_allclose(solve(a), a, atol=1e-5)


def test_closure_over_tracers_of_vmap():
    shifts = jnp.arange(6.0).reshape(3, 2)
    x = jax.vmap(lambda a: minimize(lambda x: squares(x, a), X0, method=ONE_STEP).x)(shifts)
    np.testing.assert_allclose(x, shifts, atol=1e-5)


def test_closure_over_tracers_of_scan():
    def step(x, a):
        x = minimize(lambda x: squares(x, a), x, method=ONE_STEP).x
        return x, x

    shifts = jnp.arange(6.0).reshape(3, 2)
    _, ends = jax.lax.scan(step, jnp.array(X0), shifts)
    np.testing.assert_allclose(ends, shifts, atol=1e-5)


def test_closure_over_tracers_from_two_levels():
    def inner(a, b):
        return minimize(lambda x, c: squares(x, a + b + c), X0, args=(b,), method=ONE_STEP).x

    outer = jax.jit(lambda a: jax.vmap(lambda b: inner(a, b))(jnp.arange(3.0)))

    np.testing.assert_allclose(outer(1.0), np.repeat([[1.0], [3.0], [5.0]], 2, axis=1), atol=1e-5)


def test_method_of_a_module_made_inside_jit():
    solve = jax.jit(lambda a: minimize(Module(a, lambda x: x, 1).loss, X0, method=ONE_STEP).x)
    np.testing.assert_allclose(solve(jnp.array([1.0, 4.0])), [1, 4], atol=1e-5)


def test_solve_inside_an_objective_without_its_derivative():
    def fun(x):
        inner = minimize(lambda y: squares(y, 3.0), X0, method=ONE_STEP).x
        return squares(x, jax.lax.stop_gradient(inner))

    at(3, fun=fun)
