"""Hessians and products by hand give the same solve as automatic differentiation, in every form of hess and hessp."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import UNCONSTRAINED, asks_for, mostly, mostly_float64
from problems import recorded, rosenbrock

import jaxmin
from jaxmin import minimize

START = np.array([-1.2, 1.0, 0.5])
METHODS = [name for name in UNCONSTRAINED if asks_for(name) & {"hv", "H"}]
# By default one method that wants products and one that wants Hessians; the others with `pytest -m slow`.
_ALWAYS = ("trust_ncg", "trust_exact")
each_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.slow) for name in METHODS]
)
each_kind = pytest.mark.parametrize("method", ["trust_ncg", "trust_exact"])  # products, Hessians
# What is ahead of the methods: by default with one of the two.
one_kind = pytest.mark.parametrize("method", mostly(("trust_ncg", "trust_exact"), "trust_exact"))


def each_form(methods, forms=("hess", "hessp")):
    """By default the two methods with what they ask for; the rest with `pytest -m slow`."""
    asked = [(name, "hess" if "H" in asks_for(name) else "hessp") for name in _ALWAYS]
    pairs = [(method, given) for method in methods for given in forms]
    return pytest.mark.parametrize(
        ("method", "given"), [pytest.param(*pair, marks=() if pair in asked else pytest.mark.slow) for pair in pairs]
    )


hessian = jax.hessian(rosenbrock)


def product(x, p):
    return jax.jvp(jax.grad(rosenbrock), (x,), (p,))[1]


BY_HAND = {"hess": {"hess": hessian}, "hessp": {"hessp": product}, "both": {"hess": hessian, "hessp": product}}


def same_path(res, by_ad):
    """The same solve as by automatic differentiation, up to rounding."""
    assert (res.status, res.nit, res.nfev, res.nhev) == (by_ad.status, by_ad.nit, by_ad.nfev, by_ad.nhev)
    for one, two in zip(jax.tree.leaves(res.x), jax.tree.leaves(by_ad.x), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9)


def test_there_are_methods_of_both_kinds():
    assert {"trust_ncg", "trust_exact", "dogleg", "trust_krylov"} <= set(METHODS)


# ---- forms


@each_method
@pytest.mark.parametrize("given", BY_HAND)
def test_by_hand_it_is_the_same_solve(method, given):
    same_path(minimize(rosenbrock, START, method=method, **BY_HAND[given]), minimize(rosenbrock, START, method=method))


@each_form(_ALWAYS, BY_HAND)
def test_a_wrong_factor_is_seen(method, given):
    """What the user gives is what is used, and not automatic differentiation."""
    wrong = {name: lambda *at, f=f: 1e3 * f(*at) for name, f in BY_HAND[given].items()}
    res = minimize(rosenbrock, START, method=method, options={"maxiter": 20}, **wrong)
    assert not res.success and minimize(rosenbrock, START, method=method, options={"maxiter": 40}).nit != res.nit


@each_kind
@pytest.mark.parametrize("none", [{"hess": None}, {"hess": False}, {"hessp": None}, {"hess": None, "hessp": None}])
def test_none_is_automatic_differentiation(method, none):
    same_path(minimize(rosenbrock, START, method=method, **none), minimize(rosenbrock, START, method=method))


def scaled(x, a, b):
    return a * rosenbrock(x) + b * jnp.sum((x - 1) ** 2)


@each_kind
@mostly_float64
def test_args_go_to_both(method, dtype):
    args, x0 = (2.0, np.float32(1)), jnp.asarray(START, dtype)
    by_ad = minimize(scaled, x0, args, method)
    assert by_ad.success
    for given in ({"hess": jax.hessian(scaled)}, {"hessp": lambda x, p, a, b: a * product(x, p) + 2 * b * p}):
        res = minimize(scaled, x0, args, method, **given)
        assert res.success and res.x.dtype == dtype
        np.testing.assert_allclose(res.x, by_ad.x, rtol=1e-3 if dtype == "float32" else 1e-6)


@one_kind
def test_lists_of_numbers_and_scipys_own_functions_in_jax_are_welcome(method):
    fun = lambda x: x[0] ** 2 + 3 * (x[1] - 1) ** 2
    for given in ({"hess": lambda x: [[2, 0], [0, 6.0]]}, {"hessp": lambda x, p: [2 * p[0], 6 * p[1]]}):
        res = minimize(fun, [4.0, 5.0], method=method, **given)
        np.testing.assert_allclose(res.x, [0, 1], atol=1e-5)


SHAPES = {"scalar": (), "one": (1,), "square of one": (1, 1), "matrix": (2, 3)}


@one_kind
@pytest.mark.parametrize("name", mostly(SHAPES, "scalar", "matrix"))
def test_arrays_of_any_shape(method, name):
    shape = SHAPES[name]
    fun = lambda x: jnp.sum(jnp.cosh(x - 0.5)) + 0.1 * jnp.sum(x) ** 2
    x0 = jnp.linspace(1.0, 2.0, int(np.prod(shape))).reshape(shape)
    by_ad = minimize(fun, x0, method=method)
    assert by_ad.success
    same_path(minimize(fun, x0, method=method, hess=jax.hessian(fun)), by_ad)
    same_path(minimize(fun, x0, method=method, hessp=lambda x, p: jax.jvp(jax.grad(fun), (x,), (p,))[1]), by_ad)


@one_kind
def test_pytrees_as_jax_hessian_has_them(method):
    def fun(x):
        return rosenbrock(jnp.append(x["a"].ravel(), x["b"][0])) + jnp.sum(x["a"]) * x["b"][0] * 0.1

    x0 = {"a": jnp.array([[-1.2], [1.0]]), "b": (jnp.float64(0.5), None)}
    by_ad = minimize(fun, x0, method=method)
    assert by_ad.success
    same_path(minimize(fun, x0, method=method, hess=jax.hessian(fun)), by_ad)
    hessp = lambda x, p: jax.jvp(jax.grad(fun), (x,), (p,))[1]
    same_path(minimize(fun, x0, method=method, hessp=hessp), by_ad)


@one_kind
def test_parts_of_two_dtypes(method):
    fun = lambda x: jnp.sum((x[0] - 1) ** 4) + jnp.sum((x[1] + x[0].astype("float64") - 2) ** 2)
    x0 = (jnp.zeros(2, "float32"), jnp.ones(2, "float64"))
    by_ad = minimize(fun, x0, method=method)
    for given in ({"hess": jax.hessian(fun)}, {"hessp": lambda x, p: jax.jvp(jax.grad(fun), (x,), (p,))[1]}):
        res = minimize(fun, x0, method=method, **given)
        assert res.status == by_ad.status
        np.testing.assert_allclose(res.fun, by_ad.fun, atol=1e-6)


class Model(eqx.Module):
    weight: jax.Array
    power: int
    name: str = eqx.field(static=True)


def loss(model):
    return rosenbrock(model.weight) ** (model.power // 2)


@one_kind
def test_leaves_that_do_not_vary_are_none(method):
    model = Model(jnp.array(START), 2, "valley")
    by_ad = minimize(loss, model, method=method)
    assert by_ad.success
    hess = lambda model: Model(Model(hessian(model.weight), None, "valley"), None, "valley")
    hessp = lambda model, p: Model(product(model.weight, p.weight), None, p.name)
    for given in ({"hess": hess}, {"hessp": hessp}):
        res = minimize(loss, model, method=method, **given)
        same_path(res, by_ad)
        assert (res.x.power, res.x.name) == (2, "valley")


@each_kind
def test_complex_numbers_take_products(method):
    target = jnp.array([1 + 2j, -1j])
    fun = lambda z: jnp.sum(jnp.abs(z - target) ** 2) + 0.5 * jnp.real(jnp.sum((z - target) ** 2)) ** 2
    x0 = jnp.zeros(2, complex)
    by_ad = minimize(fun, x0, method=method)
    np.testing.assert_allclose(by_ad.x, target, atol=1e-5)
    same_path(minimize(fun, x0, method=method, hessp=lambda z, p: jax.jvp(jax.grad(fun), (z,), (p,))[1]), by_ad)
    with pytest.raises(TypeError, match=r"hess: x0 is complex.*hessp"):
        minimize(fun, x0, method=method, hess=lambda z: jnp.eye(2))


def test_a_jac_by_hand_is_differentiated_for_products():
    jac = lambda x: jax.grad(rosenbrock)(x) + 0 * x
    for method in ("trust_ncg", "trust_exact"):
        same_path(minimize(rosenbrock, START, method=method, jac=jac), minimize(rosenbrock, START, method=method))


def test_a_jac_by_hand_without_derivatives_is_enough_beside_a_hessian_by_hand():
    def outside(function, shape):
        return lambda x: jax.pure_callback(lambda x: function(np.asarray(x)), jax.ShapeDtypeStruct(shape, float), x)

    scipys = scipy.optimize
    given = {"jac": outside(scipys.rosen_der, (3,)), "hess": outside(scipys.rosen_hess, (3, 3))}
    fun = outside(lambda x: np.float64(scipys.rosen(x)), ())
    for method in METHODS:
        res = minimize(fun, START, method=method, **given)
        assert res.success
        np.testing.assert_allclose(res.x, 1, atol=1e-4)


@one_kind
def test_solutions_with_hessians_by_hand_have_derivatives(method):
    fun = lambda x, t: jnp.sum(jnp.exp(x) - t * x)
    hess = lambda x, t: jnp.diag(jnp.exp(x))
    solve = lambda t: minimize(fun, np.zeros(2), (t,), method, hess=hess, options={"gtol": 1e-8}).x
    t = jnp.array([2.0, 0.5])
    np.testing.assert_allclose(jax.jacrev(solve)(t), np.diag(1 / t), atol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(solve)(t), np.diag(1 / t), atol=1e-7)


@each_form(_ALWAYS)
def test_lanes_are_what_they_are_alone(method, given):
    starts = jnp.array([START, 2 - START, [jnp.nan, 0, 0]])
    solve = lambda x0: minimize(rosenbrock, x0, method=method, **BY_HAND[given])
    batch, alone = jax.vmap(solve)(starts), [solve(x0) for x0 in starts]
    for name in ("status", "nit", "nfev", "nhev"):
        assert getattr(batch, name).tolist() == [int(getattr(res, name)) for res in alone]


# ---- how often


@each_method
def test_a_hessian_by_hand_is_evaluated_once_an_iterate(method):
    fun, values = recorded(rosenbrock)
    hess, hessians = recorded(hessian)
    res = minimize(fun, START, method=method, hess=hess)
    jax.effects_barrier()
    assert res.success and res.nfev > res.nit + 1  # some trials were refused
    assert len(hessians) == int(res.nit) == len(np.unique(hessians, axis=0))  # none at the last iterate
    assert len(values) == int(res.nfev)


def test_products_by_hand_are_counted():
    for method in ("trust_ncg", "trust_krylov"):
        fun, values = recorded(rosenbrock)
        hessp, products = recorded(product)
        res = minimize(fun, START, method=method, hessp=hessp)
        jax.effects_barrier()
        assert (len(values), len(products)) == (int(res.nfev), int(res.nhev))


def test_a_hessian_by_automatic_differentiation_is_worked_out_once_an_iterate():
    """A function whose gradient has a product of its own tells when a Hessian is worked out."""
    pushed = []

    @jax.custom_jvp
    def slope(x):
        return jax.grad(rosenbrock)(x)

    @slope.defjvp
    def derivative(x, v):
        out = jax.jvp(jax.grad(rosenbrock), x, v)[1]
        jax.debug.callback(lambda v: pushed.append(np.array(v)), out)
        return slope(*x), out

    for method in ("trust_exact", "dogleg"):
        pushed.clear()
        res = minimize(rosenbrock, START, method=method, jac=slope)
        jax.effects_barrier()
        assert res.success and res.nfev > res.nit + 1
        assert len(pushed) == START.size * int(res.nit) == START.size * int(res.nhev)


class Traced:
    def __init__(self, function):
        self.function, self.count = function, 0

    def __call__(self, *at):
        self.count += 1
        return self.function(*at)


@each_form(METHODS)
def test_everything_is_traced_once(method, given):
    fun, second = Traced(rosenbrock), Traced(BY_HAND[given][given])
    minimize(fun, START, method=method, **{given: second})
    assert (fun.count, second.count) == (1, 1)


# ---- caches

SCALE = 1.0


@pytest.mark.parametrize("given", ["hess", "hessp"])
def test_a_changed_function_is_seen(given):
    global SCALE
    by_hand = {"hess": lambda x: SCALE * hessian(x), "hessp": lambda x, p: SCALE * product(x, p)}[given]
    run = lambda: int(minimize(rosenbrock, START, method="trust_exact", **{given: by_hand}).nit)
    SCALE = 1.0
    first = run()
    SCALE = 3.0
    assert run() > first
    SCALE = 1.0
    assert run() == first
    assert run() < int(minimize(rosenbrock, START, method="trust_exact", **{given: lambda *at: 3 * by_hand(*at)}).nit)


@pytest.mark.parametrize("given", ["hess", "hessp"])
def test_arrays_that_it_closes_over_are_arguments(given):
    def run(scale, wrap=lambda run: run):
        by_hand = {"hess": lambda x: scale * hessian(x), "hessp": lambda x, p: scale * product(x, p)}[given]
        return wrap(lambda: minimize(rosenbrock, START, method="trust_exact", **{given: by_hand}).nit)()

    nits = [int(run(jnp.asarray(scale))) for scale in (1.0, 3.0, 1.0)]
    assert nits[0] == nits[2] < nits[1]
    of_batch = jax.vmap(run)(jnp.array([1.0, 3.0]))  # traced by an outer transformation
    assert of_batch.tolist() == nits[:2]
    bound = {"hess": lambda s, x: s * hessian(x), "hessp": lambda s, x, p: s * product(x, p)}[given]
    bound = functools.partial(bound, jnp.asarray(3.0))
    assert minimize(rosenbrock, START, method="trust_exact", **{given: bound}).nit == nits[1]


# ---- refused, or warned of

KINDS = {
    "2-point": {"hess": "2-point"},
    "3-point": {"hess": "3-point"},
    "cs": {"hess": "cs"},
    "True": {"hess": True},
    "hess=array": {"hess": np.eye(3)},
    "BFGS": {"hess": scipy.optimize.BFGS()},
    "hessp='cs'": {"hessp": "cs"},
    "hessp=True": {"hessp": True},
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_function_is_refused_by_name(name):
    for method in ("trust_exact", "lbfgs"):
        with pytest.raises(ValueError, match=f"(?s){name}.*callable.*automatic differentiation"):
            minimize(rosenbrock, START, method=method, **KINDS[name])


SHAPED = {
    "hess, vector": ({"hess": lambda x: x}, ("hess", r"\(3,\)", r"\(3, 3\)")),
    "hess, smaller": ({"hess": lambda x: jnp.eye(2)}, ("hess", r"\(2, 2\)", r"\(3, 3\)")),
    "hess, None": ({"hess": lambda x: None}, ("hess", "NoneType")),
    "hess, dict": ({"hess": lambda x: {"a": x}}, ("hess", "dict")),
    "hess, string": ({"hess": lambda x: "up"}, ("hess", "str")),
    "hess, complex": ({"hess": lambda x: jnp.eye(3) * 1j}, ("hess", "complex128")),
    "hess, NumPy": ({"hess": lambda x: np.diag(np.asarray(x))}, ("hess", "NumPy", "jax.numpy")),
    "hessp, matrix": ({"hessp": lambda x, p: jnp.eye(3)}, ("hessp", r"\(3, 3\)", r"\(3,\)")),
    "hessp, scalar": ({"hessp": lambda x, p: p[0]}, ("hessp", r"\(\)", r"\(3,\)")),
    "hessp, None": ({"hessp": lambda x, p: None}, ("hessp", "None")),
    "hessp, complex": ({"hessp": lambda x, p: p * 1j}, ("hessp", "complex128", "float64")),
    "hessp, NumPy": ({"hessp": lambda x, p: np.asarray(p)}, ("hessp", "NumPy", "jax.numpy")),
}


@pytest.mark.parametrize("name", SHAPED)
def test_what_it_returns_is_checked(name):
    given, words = SHAPED[name]
    for method in ("trust_exact", "trust_ncg"):
        with pytest.raises((ValueError, TypeError)) as caught:
            minimize(rosenbrock, START, method=method, **given)
        for word in words:
            assert caught.match(word)


def test_a_hessian_built_unlike_x0_is_refused_by_name():
    fun, x0 = (lambda x: x["a"] ** 2 + x["b"] ** 2), {"a": 1.0, "b": 2.0}
    for hess in (lambda x: jnp.eye(2), lambda x: {"a": x}, lambda x: {"a": 2.0, "b": 2.0}):
        with pytest.raises(ValueError, match="hess: a Hessian built as"):
            minimize(fun, x0, method="trust_exact", hess=hess)
    with pytest.raises(ValueError, match="hessp: a product built as"):
        minimize(fun, x0, method="trust_exact", hessp=lambda x, p: 2 * p["a"])


@pytest.mark.parametrize("method", [name for name in UNCONSTRAINED if name not in METHODS])
@pytest.mark.parametrize("given", ["hess", "hessp"])
def test_a_method_that_uses_none_warns_as_scipys_and_goes_on(method, given):
    options = {"maxiter": 3}
    with pytest.warns(RuntimeWarning, match=rf"{method} does not use Hessian information \({given}\)") as caught:
        res = minimize(rosenbrock, START, method=method, options=options, **BY_HAND[given])
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(res.x, minimize(rosenbrock, START, method=method, options=options).x)


def test_an_error_inside_is_the_users_own():
    def hess(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        minimize(rosenbrock, START, method="trust_exact", hess=hess)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        # By default what the method asks for; the other form with `pytest -m slow`.
        pytest.param(method, given, marks=() if (given == "hess") == ("H" in asks_for(method)) else pytest.mark.slow)
        for method in ("trust_ncg", "trust_exact", "dogleg", "trust_krylov")
        for given in ("hess", "hessp")
    ],
)
def test_nan_in_it_leaves_the_gradient(method, given):
    """A Hessian that is not finite counts as 0: the steps follow the gradient, as they do where it overflows."""
    by_hand = {"hess": lambda x: jnp.nan * hessian(x), "hessp": lambda x, p: jnp.nan * p}[given]
    res = minimize(rosenbrock, START, method=method, options={"maxfun": 500}, **{given: by_hand})
    assert res.fun < 0.1 * rosenbrock(START)
    assert res.status == jaxmin.Status.MAXFUN


# ---- chosen by what is given

BOX = [(-2, 2), (-2, 2)]


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ({}, "lbfgs_newton"),
        ({"bounds": BOX}, "lbfgs_newton"),
        ({"hess": hessian}, "trust_exact"),
        ({"hessp": product}, "trust_ncg"),
        ({"hess": hessian, "bounds": BOX}, "trust_ncg"),
        ({"hessp": product, "bounds": BOX}, "trust_ncg"),
    ],
    ids=("nothing", "bounds", "hess", "hessp", "hess and bounds", "hessp and bounds"),
)
def test_auto_goes_by_what_is_given(given, method):
    same_path(
        minimize(rosenbrock, [-1.2, 1.0], method="auto", **given),
        minimize(rosenbrock, [-1.2, 1.0], method=method, **given),
    )
