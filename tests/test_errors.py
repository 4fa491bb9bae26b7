"""What cannot be right is an exception that names the argument, the value and the choices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import X0

import jaxmin
from jaxmin import minimize
from jaxmin._api.options import REFUSED, TABLE, parse
from jaxmin._cache.registry import entries


def squares(x, *args):
    return jnp.sum((x - 1) ** 2)


def refused(kinds, words, fun=squares, x0=X0, **given):
    """The call raises one of the kinds, and the message says each of the words."""
    with pytest.raises(kinds) as caught:
        minimize(fun, x0, **given)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {caught.value!s}"


# ---- fun

FUN = {
    "an array": (ValueError, ("fun", "one number", "(2,)"), lambda x: x),
    "a column": (ValueError, ("fun", "one number", "(2, 1)"), lambda x: x[:, None]),
    "an empty array": (ValueError, ("fun", "one number", "(0,)"), lambda x: x[:0]),
    "a complex number": (TypeError, ("fun", "real", "complex128"), lambda x: squares(x) + 1j),
    "a boolean": (TypeError, ("fun", "real", "bool"), lambda x: x[0] > 1),
    "an integer": (TypeError, ("fun", "int32", "nelder_mead"), lambda x: jnp.sum(x > 1, dtype=jnp.int32)),
    "None": (TypeError, ("fun", "one number", "NoneType"), lambda x: None),
    "a string": (TypeError, ("fun", "one number", "str"), lambda x: "one"),
    "a dict": (TypeError, ("fun", "one number", "dict"), lambda x: {"f": squares(x)}),
    "a list": (TypeError, ("fun", "one number", "list"), lambda x: [squares(x)]),
    "a pair": (TypeError, ("fun", "one number", "tuple", "has_aux=True", "jac=True"), lambda x: (squares(x), x)),
}


@pytest.mark.parametrize("name", FUN)
def test_fun_that_returns(name):
    kind, words, fun = FUN[name]
    refused(kind, words, fun)


@pytest.mark.parametrize("fun", [lambda x: squares(x)[None], lambda x: squares(x)[None, None]])
def test_fun_that_returns_an_array_of_one_number_is_right(fun):
    res = minimize(fun, X0)
    assert res.success and res.fun.shape == ()


def test_whole_numbers_are_for_methods_without_gradients():
    cells = lambda x: jnp.sum(jnp.abs(jnp.round(10 * x))).astype(jnp.int32)
    assert minimize(cells, X0, method="nelder_mead").fun < cells(jnp.asarray(X0))
    refused(TypeError, ("fun", "real", "bool"), lambda x: x[0] > 1, method="nelder_mead")
    # What it returns is known to be a number all the same, and a gradient by hand is one.
    with pytest.warns(RuntimeWarning, match="fun does not depend on x"):
        assert minimize(lambda x: 3, X0).success
    assert minimize(cells, X0, jac=jnp.sign, options={"maxiter": 5}).fun < cells(jnp.asarray(X0))


SPLIT = {
    "aux, one number": (("fun", "has_aux=True", "(value, aux)"), squares, {"has_aux": True}),
    "aux, three": (
        ("fun", "has_aux=True", "(value, aux)", "3"),
        lambda x: (squares(x), x, x),
        {"has_aux": True},
    ),
    "gradient, one number": (("fun", "jac=True"), squares, {"jac": True}),
    "gradient, three": (("fun", "jac=True", "3"), lambda x: (squares(x), x, x), {"jac": True}),
    "both, one number": (("fun", "((value, aux), gradient)"), squares, {"jac": True, "has_aux": True}),
    "both, no inner pair": (
        ("fun", "(value, aux)"),
        lambda x: (squares(x), x),
        {"jac": True, "has_aux": True},
    ),
}


@pytest.mark.parametrize("name", SPLIT)
def test_fun_that_returns_too_little_or_too_much(name):
    words, fun, given = SPLIT[name]
    refused((TypeError, ValueError), words, fun, **given)


@pytest.mark.parametrize("fun", [3, None, "rosen", (squares,)])
def test_fun_that_is_no_callable(fun):
    refused(TypeError, ("fun", "call"), fun)


NUMPY = {
    "sum": lambda x: np.sum(np.square(np.asarray(x))),
    "linalg": lambda x: np.linalg.norm(x),
    "in place": lambda x: np.add(np.zeros(2), x).sum(),
}


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("args", [(), (2,)], ids=["alone", "beside an integer"])
def test_fun_that_calls_numpy_is_told_what_to_do(name, args):
    fun = NUMPY[name]
    refused(TypeError, ("fun", "NumPy", "jax.numpy", "pure_callback"), lambda x, *rest: fun(x), args=args)


def test_error_inside_fun_is_the_users_own():
    def fun(x):
        raise RuntimeError("mine")

    refused(RuntimeError, ("mine",), fun)


def branch(x, *args):
    if x[0] > 0:
        return squares(x)
    return -squares(x)


def halved(x, *args):
    while x[0] > 3:
        x = x / 2
    return squares(x)


# fun, the kind of JAX's error, what to write instead, and the line
CONTROL_FLOW = {
    "if": (branch, "TracerBoolConversionError", ("jnp.where", "jax.lax.cond"), "in branch: if x[0] > 0:"),
    "while": (halved, "TracerBoolConversionError", ("jax.lax.while_loop",), "in halved: while x[0] > 3:"),
    "max": (lambda x, *_: max(x[0], 0.0), "TracerBoolConversionError", ("jnp.maximum",), "max(x[0], 0.0)"),
    "float": (lambda x, *_: float(x[0]) ** 2, "ConcretizationTypeError", ("Omit float()",), "float(x[0]) ** 2"),
    "int": (lambda x, *_: sum(x) + [1, 2][int(x[0])], "ConcretizationTypeError", ("x.astype(int)",), "[int(x[0])]"),
    "item": (lambda x, *_: x[0].item() ** 2, "ConcretizationTypeError", (".item()",), "x[0].item() ** 2"),
    "math": (lambda x, *_: math.exp(x[0]), "ConcretizationTypeError", ("jnp.exp for math.exp",), "math.exp(x[0])"),
    "index": (
        lambda x, *_: x[0] + [1, 2][x.astype(int)[0]], "TracerIntegerConversionError", ("jnp.asarray(numbers)[i]",),
        "[x.astype(int)[0]]",
    ),
    "mask": (
        lambda x, *_: jnp.sum(x[x > 0]), "NonConcreteBooleanIndexError", ("jnp.where(mask, x, 0)",), "x[x > 0]",
    ),
    "numpy": (
        lambda x, *_: np.sum(np.exp(x)), "TracerArrayConversionError", ("jnp.sum for np.sum",), "np.sum(np.exp(x))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROL_FLOW)
@pytest.mark.parametrize("args", [(), (3,)], ids=["alone", "beside an integer"])
def test_fun_that_asks_for_the_numbers_of_x(name, args):
    fun, kind, instead, line = CONTROL_FLOW[name]
    with pytest.raises(TypeError, match=r"^fun: ") as caught:
        minimize(fun, X0, args=args)
    for words in (*instead, line):
        assert words in str(caught.value)
    first = fun.__code__.co_firstlineno
    assert any(f"The line is {__file__}, line {first + k}, in" in str(caught.value) for k in range(3))
    assert isinstance(caught.value.__cause__, getattr(jax.errors, kind))


def test_derivative_by_hand_that_asks_for_the_numbers_of_x():
    given = {"jac": (squares, {}), "hess": (squares, {"method": "trust_exact"})}
    for name, (fun, settings) in given.items():
        refused(TypeError, (f"{name}: Python's if", "in branch: if x[0] > 0:"), fun, **{name: branch}, **settings)
    rows = {"type": "ineq", "fun": branch}
    refused(TypeError, ("constraints[0]: fun: Python's if", "in branch: if x[0] > 0:"), constraints=rows)


def test_line_of_a_library_is_not_the_users():
    def fun(x):
        return np.linalg.norm(x)  # fails in NumPy's own code

    refused(TypeError, ("in fun: return np.linalg.norm(x)",), fun)


@jax.custom_vjp
def first_only(x):
    return jnp.sum((x - 1) ** 2)


first_only.defvjp(lambda x: (first_only(x), x), lambda x, g: (2 * (x - 1) * g,))


@pytest.mark.parametrize("method", ["newton_cg", "trust_ncg", "trust_krylov", "trust_exact", "dogleg"])
def test_second_derivatives_of_a_function_with_first_ones(method):
    fun = lambda x: first_only(x) ** 2 + jnp.sum(x**2)
    words = ("fun: it calls a jax.custom_vjp function", "second derivatives", 'method="lbfgs"', "hessp", "hess")
    refused(TypeError, words, fun, method=method)
    hess = lambda x: (4 * squares(x) + 2) * jnp.eye(2) + 8 * jnp.outer(x - 1, x - 1)
    assert minimize(fun, X0, method=method, hess=hess).success
    assert minimize(fun, X0, method="lbfgs").success


def test_products_of_residuals_with_first_derivatives():
    residual = jax.custom_vjp(lambda x: x - 1)
    residual.defvjp(lambda x: (residual(x), None), lambda _, u: (u,))
    words = ("fun: it calls a jax.custom_vjp function", "'levenberg_marquardt'")
    refused(TypeError, words, residual, method="gauss_newton_krylov")
    refused(TypeError, (*words, "give jac"), residual, method="levenberg_marquardt")
    assert minimize(residual, X0, method="levenberg_marquardt", jac=lambda x: jnp.eye(2)).success


# ---- jac

JAC = {
    "shorter": (ValueError, ("jac", "(1,)", "(2,)"), lambda x: x[:1]),
    "longer": (ValueError, ("jac", "(3,)", "(2,)"), lambda x: jnp.ones(3)),
    "a column": (ValueError, ("jac", "(2, 1)", "(2,)"), lambda x: x[:, None]),
    "a scalar": (ValueError, ("jac", "()", "(2,)"), lambda x: 2.0),
    "None": ((TypeError, ValueError), ("jac", "None"), lambda x: None),
    "a string": ((TypeError, ValueError), ("jac", "str"), lambda x: "up"),
    "a dict": ((TypeError, ValueError), ("jac", "dict"), lambda x: {"a": x}),
    "complex": (TypeError, ("jac", "complex128", "float64"), lambda x: x + 1j),
}


@pytest.mark.parametrize("name", JAC)
def test_jac_that_returns(name):
    kind, words, jac = JAC[name]
    refused(kind, words, jac=jac)


@pytest.mark.parametrize("name", JAC)
def test_gradient_that_fun_returns(name):
    kind, words, jac = JAC[name]
    refused(kind, words, lambda x: (squares(x), jac(x)), jac=True)


def test_jac_built_otherwise_than_x0():
    fun = lambda x: squares(x["a"])
    refused(ValueError, ("jac", "'a'", "'b'"), fun, {"a": np.ones(2)}, jac=lambda x: {"b": x["a"]})
    refused(ValueError, ("jac", "(1,)", "(2,)"), fun, {"a": np.ones(2)}, jac=lambda x: {"a": x["a"][:1]})


@pytest.mark.parametrize("jac", ["2-point", "3-point", "cs", 3, [1.0, 2.0]])
def test_jac_of_another_kind(jac):
    refused(ValueError, ("jac", repr(jac), "None", "True", "callable", "automatic differentiation"), jac=jac)


# ---- x0

X0S = {
    "a string": "abc",
    "a list of strings": ["abc", "d"],
    "a string array": np.array(["abc"]),
    "an object": object(),
    "an object array": np.array([object(), 1.0]),
    "None": None,
    "a function": jnp.cos,
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "a record array": np.zeros(2, [("a", float)]),
    "a shape": jax.ShapeDtypeStruct((2,), jnp.float32),
}


@pytest.mark.parametrize("name", X0S)
def test_x0_in_which_nothing_can_vary(name):
    refused((TypeError, ValueError), ("x0",), lambda x: jnp.float64(1), X0S[name])


# ---- limits and tolerances

LIMITS = {
    "gtol text": (TypeError, {"gtol": "small"}, "'small'"),
    "gtol array": (TypeError, {"gtol": np.ones(2)}, "[1., 1.]"),
    "gtol list": (TypeError, {"gtol": [1e-5]}, "[1e-05]"),
    "gtol nan": (ValueError, {"gtol": math.nan}, "nan"),
    "ftol text": (TypeError, {"ftol": "small"}, "'small'"),
    "xtol nan": (ValueError, {"xtol": math.nan}, "nan: give a number; a number below 0 turns the test off"),
    "maxiter negative": (ValueError, {"maxiter": -1}, "-1"),
    "maxiter in part": (ValueError, {"maxiter": 2.5}, "2.5: a whole number, at least 0, or infinite"),
    "maxfun in part": (ValueError, {"maxfun": np.float32(0.5)}, "0.5"),
    "maxiter nan": (ValueError, {"maxiter": math.nan}, "nan"),
    "maxiter text": (TypeError, {"maxiter": "100"}, "'100'"),
    "maxfun zero": (ValueError, {"maxfun": 0}, "0"),
    "maxfun negative": (ValueError, {"maxfun": np.int64(-3)}, "-3"),
    "maxfun complex": (TypeError, {"maxfun": 3j}, "3j"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limit_that_is_none(name):
    kind, options, value = LIMITS[name]
    (option,) = options
    refused(kind, (option, value), options=options)


@pytest.mark.parametrize("tol", ["small", [1e-3], np.ones(2), object(), 1j])
def test_tol_of_another_kind(tol):
    refused(TypeError, ("tol", repr(tol)), tol=tol)


def test_tol_that_is_nan():
    refused(ValueError, ("tol", "nan"), tol=math.nan)


# ---- options


@pytest.mark.parametrize("method", entries("methods"))
def test_unknown_option_lists_those_that_there_are(method):
    refused(ValueError, ("options", "'grol'", "gtol", "ftol", "xtol", "maxiter", "maxfun"), method=method,
            options={"grol": 1e-5})  # fmt: skip
    for name in entries("methods")[method].parameters:
        refused(ValueError, ("'grol'", name), method=method, options={"grol": 1e-5})


@pytest.mark.parametrize("search", entries("linesearches"))
def test_choices_of_options_can_be_chosen(search):
    with pytest.raises(ValueError) as caught:
        minimize(squares, X0, linesearch=search, options={"grol": 1})
    choices = str(caught.value).split("choices are ")[1].split(", ")
    values = {"gtol": 1e-3, "ftol": 1e-3, "xtol": 1e-3, "xrtol": 1e-3, "c1": 1e-3, "c2": 0.5}
    for choice in {"c1", "c2", "maxls"} & set(choices):
        assert minimize(squares, X0, linesearch=search, options={choice: values.get(choice, 20)}).nfev > 0


def test_unknown_option_lists_those_that_every_method_has():
    every = ("diff", "disp", "flat", "history", "history_x", "warm_start", "wrt")
    refused(ValueError, ("'displ'", *every), method="cg", options={"displ": True})


NEAREST = {
    "one letter more": ({"gtoll": 1e-5}, "options: unknown 'gtoll'; did you mean 'gtol'? The choices are "),
    "in capitals": ({"MaxItr": 3}, "options: unknown 'MaxItr'; did you mean 'maxiter'? The choices are "),
    "of the method": ({"memroy": 3}, "options: unknown 'memroy'; did you mean 'memory'? The choices are "),
    "of the search": ({"max_trial": 3}, "options: unknown 'max_trial'; did you mean 'max_trials'? The choices are "),
    "two": ({"gtoll": 1, "xtoll": 1}, "unknown 'gtoll', 'xtoll'; did you mean 'gtol' and 'xtol'? The choices are "),
    "nothing near": ({"speed": 9}, "options: unknown 'speed'; the choices are "),
    "no name": ({3: 9}, "options: unknown 3; the choices are "),
}


@pytest.mark.parametrize("name", NEAREST)
def test_unknown_option_names_the_nearest(name):
    options, message = NEAREST[name]
    refused(ValueError, (message,), options=options)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_option_of_the_table_is_known_in_every_spelling(row):
    for spelling in (row.name, *row.spellings, row.name.upper()):
        if row.whose == REFUSED:
            refused(ValueError, (f"options[{spelling!r}]: there are no finite differences",), options={spelling: 1})
        else:
            parse({spelling: row.default, "history": 1} if row.name == "history_x" else {spelling: row.default})


def test_option_that_adam_has_and_others_refuse():
    given = {"method": "adam", "options": {"learning_rate": 0.1, "eps": 1e-6, "gtol": 1e-2}}
    assert minimize(squares, X0, **given).success
    refused(ValueError, ("options['eps']: there are no finite differences",), options={"eps": 1e-6})


def test_option_of_another_method():
    refused(ValueError, ("options", "'maxcor'"), method="cg", options={"maxcor": 5})


def test_option_of_the_method_beside_a_built_method():
    words = (
        "options: unknown 'maxcor'; this method is already built",
        "to its builder. The choices are barrier_tol, ctol, diff",
    )
    refused(ValueError, words, method=jaxmin.lbfgs(), options={"maxcor": 5})


def test_option_of_the_search_beside_a_built_search():
    with pytest.raises(ValueError) as caught:
        minimize(squares, X0, linesearch=jaxmin.wolfe(), options={"maxls": 5})
    unknown, choices = str(caught.value).split("choices")
    assert "'maxls'" in unknown and "maxls" not in choices


@pytest.mark.parametrize("method", [m for m in entries("methods") if m != "nelder_mead"] + [jaxmin.lbfgs(), "sgd"])
@pytest.mark.parametrize(("option", "meant"), [("xatol", "xtol"), ("fatol", "ftol")])
def test_absolute_tolerance_of_a_method_that_has_none(method, option, meant):
    settings = {"learning_rate": 0.1} if method == "sgd" else {}
    words = (f"options['{option}']: an absolute tolerance", f"give '{meant}', relative to max(|")
    fun = (lambda x: x) if "gauss" in str(method) or "levenberg" in str(method) else squares
    refused(ValueError, words, fun, method=method, options={option: 1e-3} | settings)


@pytest.mark.parametrize("method", ["nelder_mead", jaxmin.nelder_mead()], ids=["named", "built"])
def test_absolute_tolerance_of_nelder_mead(method):
    spelt = minimize(squares, X0, method=method, options={"xatol": 1e-2, "fatol": 1e-3})
    meant = minimize(squares, X0, method=method, options={"xtol": 1e-2, "ftol": 1e-3})
    assert (spelt.nfev, spelt.fun) == (meant.nfev, meant.fun)
    refused(ValueError, ("'xtol' is given twice",), method=method, options={"xatol": 1e-2, "xtol": 1e-3})
    many = jaxmin.minimize_many(squares, [X0, X0], method=method, options={"xatol": np.array([1e-2, 1e-5])})
    assert many.nfev[0] < many.nfev[1]


def test_option_given_twice():
    refused(ValueError, ("options", "'maxfev'", "twice"), options={"maxfun": 3, "maxfev": 4})


@pytest.mark.parametrize("options", ["gtol", [1], 3])
def test_options_that_are_no_dictionary(options):
    refused(TypeError, ("options", "dict"), options=options)


# ---- bounds below and above, where pairs are wanted

LOWER, UPPER = [0.0, -1.0, 0.0], [5.0, 1.0, 2.0]
SIDES = {
    "arrays of 3": (3, (np.array(LOWER), np.array(UPPER)), "two arrays of sizes [3, 3], not 3 (low, high) pairs"),
    "lists of 3": (3, (LOWER, UPPER), "two arrays of sizes [3, 3], not 3 (low, high) pairs"),
    "one number": (3, (0.0, np.array(UPPER)), "two arrays of sizes [1, 3], not 3 (low, high) pairs"),
    "arrays of 2": (2, (np.zeros(2), np.full(2, 5.0)), "two arrays of 2, which may be two (low, high) pairs"),
    "arrays of 2 of JAX": (2, [jnp.zeros(2), jnp.full(2, 5.0)], "two arrays of 2, which may be two (low, high) pairs"),
    "numbers": (3, (0, 5), "bounds=(0, 5): two numbers, not (low, high) pairs"),
    "numbers for one variable": (1, (0, 5), "bounds=(0, 5): two numbers, not (low, high) pairs"),
}


@pytest.mark.parametrize("name", SIDES)
def test_bounds_below_and_above_name_the_way_out(name):
    n, bounds, message = SIDES[name]
    refused(ValueError, (message, "jaxmin.Bounds("), x0=np.full(n, 3.0), bounds=bounds)
    below, above = (jnp.broadcast_to(jnp.asarray(side), (n,)) for side in bounds)
    assert minimize(squares, np.full(n, 3.0), bounds=jaxmin.Bounds(below, above)).success


# ---- callbacks that expect a result

EXPECTING = {
    "attribute": lambda res: print(res.nit),
    "key": lambda res: print(res["fun"]),
    "traced": jaxmin.traced(lambda res: res.fun < 1e-3),
}


@pytest.mark.parametrize("name", EXPECTING)
def test_callback_that_expects_a_result_learns_the_name(name):
    with pytest.raises((AttributeError, IndexError, TypeError)) as caught:
        minimize(squares, X0, callback=EXPECTING[name])
    assert any("callback(intermediate_result)" in note for note in caught.value.__notes__)


def test_other_errors_of_a_callback_have_no_note():
    for broken in (lambda x: x.speed, lambda x: print(x[3]), lambda x: print({}["nit"]), lambda x: print(math.fun)):
        with pytest.raises((AttributeError, IndexError, KeyError)) as caught:
            minimize(squares, X0, callback=broken)
        assert not any("intermediate_result" in note for note in getattr(caught.value, "__notes__", ()))


# ---- args and starts


@pytest.mark.parametrize(
    ("fun", "args"),
    [(lambda x, y: squares(x - y), [np.ones(2)]), (lambda x, a, b: squares(a * x - b), [2.0, np.ones(2)])],
    ids=("one", "two"),
)
def test_list_of_args_is_one_argument(fun, args):
    with pytest.raises(TypeError) as caught:
        minimize(fun, X0, args=args)
    assert any("args is a list, which is one argument of fun, as in SciPy" in note for note in caught.value.__notes__)
    assert minimize(fun, X0, args=tuple(args)).success


def test_one_start_for_many():
    with pytest.raises((TypeError, IndexError)) as caught:
        jaxmin.minimize_many(lambda x: x[0] ** 2 + x[1] ** 2, X0)
    wanted = "x0 of shape [2] is 2 starts of one number each; for starts of n variables give an array [starts, n]"
    assert any(wanted in note for note in caught.value.__notes__)


# ---- methods, searches and keywords

SPELT = {
    "method": ({"method": "lbgfs"}, "method='lbgfs': unknown; did you mean 'lbfgs'? The choices are 'augmented_"),
    "method of SciPy": ({"method": "Nelder-Maed"}, "'Nelder-Maed': unknown; did you mean 'nelder_mead'? The"),
    "alias": ({"method": "L-BGFS-B"}, "method='L-BGFS-B': unknown; did you mean 'lbfgs'? The choices are"),
    "transformation": ({"method": "adamm"}, "method='adamm': unknown; did you mean 'adam'? The choices are"),
    "search": ({"linesearch": "wolf"}, "linesearch='wolf': unknown; did you mean 'wolfe'? The choices are"),
    "nothing near": ({"linesearch": "brent"}, "linesearch='brent': unknown; the choices are 'backtracking'"),
}


@pytest.mark.parametrize("name", SPELT)
def test_unknown_name_has_the_nearest(name):
    given, message = SPELT[name]
    refused(ValueError, (message,), **given)


KEYWORDS = {
    "bounds": (minimize, {"bound": [(0, 1)] * 2}, "minimize: unknown keyword 'bound'; did you mean 'bounds'? The choi"),
    "callback": (
        minimize,
        {"callbacks": print},
        "unknown keyword 'callbacks'; did you mean 'callback'? The choices are",
    ),
    "many": (jaxmin.minimize_many, {"lane": 4}, "minimize_many: unknown keyword 'lane'; did you mean 'lanes'? The"),
    "an option": (minimize, {"maxiter": 9}, "keyword 'maxiter'; it is an option: options={'maxiter': ...}"),
    "of a method": (minimize, {"maxcor": 9}, "keyword 'maxcor'; it is an option: options={'maxcor': ...}"),
    "nothing near": (minimize, {"speed": 9}, "minimize: unknown keyword 'speed'; the choices are fun, x0, args"),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_unknown_keyword_has_the_nearest(name):
    function, given, message = KEYWORDS[name]
    with pytest.raises(TypeError) as caught:
        function(squares, [X0] if function is jaxmin.minimize_many else X0, **given)
    assert message in str(caught.value)


def test_unknown_keyword_of_a_builder_or_a_solver_has_the_nearest():
    with pytest.raises(TypeError, match=r"lbfgs: unknown keyword 'memroy'; did you mean 'memory'\?"):
        jaxmin.lbfgs(memroy=3)
    with pytest.raises(TypeError, match=r"Solver: unknown keyword 'bound'; did you mean 'bounds'\?"):
        jaxmin.Solver(squares, bound=[(0, 1)])


@pytest.mark.parametrize("method", ["newton", "", 3, jaxmin.lbfgs, object()])
def test_unknown_method_lists_the_choices(method):
    refused((TypeError, ValueError), ("method", repr(method), *map(repr, entries("methods"))), method=method)


@pytest.mark.parametrize("search", ["brent", "", 3, jaxmin.wolfe])
def test_unknown_search_lists_the_choices(search):
    words = ("linesearch", repr(search), *map(repr, entries("linesearches")))
    refused((TypeError, ValueError), words, linesearch=search)


BUILDERS = {
    "memory": (jaxmin.lbfgs, [0, -1, 2.5, "5"]),
    "eta": (jaxmin.cg, [0, -1, math.nan, "0.4"]),
    "step": (jaxmin.fixed, [0, -1.0, math.nan, "1"]),
    "sufficient": (jaxmin.backtracking, [0, 0.5, -1, math.nan, "1e-4"]),
    "curvature": (jaxmin.backtracking, [0, 1, 1e-5, math.nan, "0.9"]),
    "max_trials": (jaxmin.backtracking, [0, -1, math.nan, "20", None]),
    "decrease": (jaxmin.backtracking, [0, 1, math.nan, "0.8"]),
    "increase": (jaxmin.backtracking, [0.5, math.nan, "1.5"]),
    "max_step": (jaxmin.backtracking, [0, -1, math.nan, "1"]),
    "first_step": (
        lambda first_step: jaxmin.descend(jaxmin.Direction(tuple, tuple), jaxmin.fixed(), first_step),
        ["two", None],
    ),
} | {
    f"{search.__name__} {name}": (search, values)
    for search in (jaxmin.wolfe, jaxmin.hager_zhang)
    for name, values in {
        "sufficient": [0, 1, math.nan, "1e-4"],
        "curvature": [0, 1, math.nan, "0.9"],
        "max_trials": [0, math.nan, "20", None],
    }.items()
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, values) in BUILDERS.items() for value in values]
)
def test_builder_refuses_a_constant_by_name_and_value(name, value):
    build, _ = BUILDERS[name]
    parameter = name.split()[-1]
    with pytest.raises((TypeError, ValueError)) as caught:
        build(**{parameter: value})
    assert parameter in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize("option", ["maxls", "c1", "maxcor"])
def test_constant_that_would_have_to_be_traced_is_refused_by_name(option):
    meant = {"maxls": "max_trials", "c1": "sufficient", "maxcor": "memory"}[option]
    for value in (jnp.ones(2), np.ones(2)):
        with pytest.raises((TypeError, ValueError), match=f"{option}|{meant}"):
            minimize(squares, X0, options={option: value})
    with pytest.raises((TypeError, ValueError), match=f"{option}|{meant}"):
        jax.jit(lambda value: minimize(squares, X0, options={option: value}).x)(3)


# ---- transformations


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_derivative_of_a_solve_is_right(jacobian):
    derivative = jacobian(lambda a: minimize(lambda x: jnp.sum((x - a) ** 2), X0).x)(3.0)
    np.testing.assert_allclose(derivative, [1, 1], atol=1e-4)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((jaxmin.transforms.sgd(0.1), 3), "linesearch=3"),
        ((jnp.sum, jaxmin.wolfe()), "direction=.*: give a Direction"),
    ],
    ids=("linesearch", "direction"),
)
def test_parts_of_a_descent_are_checked(parts, words):
    with pytest.raises((TypeError, ValueError), match=words):
        jaxmin.descend(*parts)
    assert jaxmin.descend(jaxmin.transforms.sgd(0.1), "wolfe").wants >= {"grad"}
