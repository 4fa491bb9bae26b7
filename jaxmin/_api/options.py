"""The arguments method, linesearch, tol and options: checked by name, in the spelling of SciPy or of jaxmin."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.registry import Entry, entries, find
from jaxmin._core.convex_set import ConvexSet
from jaxmin._core.protocol import Defaults, Direction, LineSearch, Method, PerDtype, PerVariable, check_method
from jaxmin._core.pytree import is_count
from jaxmin._core.spelling import unknown
from jaxmin._core.variables import Variables
from jaxmin._driver.evaluation import counters
from jaxmin._driver.stopping import Limits
from jaxmin._interop.foreign import Foreign, foreign, is_foreign
from jaxmin.linesearches import search
from jaxmin.transforms import chain, clip_by_global_norm

# ---- the table


class Option(NamedTuple):
    """A row of the table of options."""

    name: str
    spellings: tuple[str, ...]  # other names
    kind: str  # the values that it takes, in words
    default: Any
    whose: str  # what it belongs to; LIMIT, ABSOLUTE, FIXED and REFUSED are special
    text: str


LIMIT, ABSOLUTE, FIXED, REFUSED = "the solve", "'nelder_mead'", "SciPy, with one value", "SciPy, refused"

# The options of every call. The reference shows them in this order.
TABLE = (
    Option("gtol", (), "a number", 1e-5, LIMIT,
           "the infinity norm of the gradient that is small enough, in units of fun over units of x"),
    Option("gtol_relative", (), "a number >= 0", None, LIMIT,
           "so much of the gradient's norm at x0 is small enough too, whatever the units; gtol is then 0 if not given"),
    Option("ftol", (), "a number", -1.0, LIMIT,
           "the decrease of fun in an iteration that is small enough, relative to max(|fun|, 1)"),
    Option("xtol", ("xrtol",), "a number", -1.0, LIMIT,
           "the largest change of x in an iteration that is small enough, relative to max(|x|, 1)"),
    Option("fatol", (), "a number", 1e-4, ABSOLUTE,
           "the spread of fun over its points that is small enough, absolute; another name of its ftol"),
    Option("xatol", (), "a number", 1e-4, ABSOLUTE,
           "the spread of its points that is small enough, absolute; another name of its xtol"),
    Option("maxiter", (), "a whole number", 15_000, LIMIT, "iterations"),
    Option("maxfun", ("maxfev",), "a whole number", 15_000, LIMIT, "evaluations; at least maxiter, if that is given"),
    Option("maxhev", (), "a whole number", None, LIMIT,
           "Hessians, or products with them, for methods that use them; None: any number"),
    Option("ctol", (), "a number", None, LIMIT,
           "with constraints: the violation of a row that is small enough, over its largest derivative"),
    Option("barrier_tol", (), "a number", None, LIMIT,
           "with constraints: the product of a multiplier and the distance from its limit that is small enough, "
           "relative to max(|fun|, 1)"),
    Option("disp", (), "True or False", False, "the report", "whether to print a line an iteration"),
    Option("history", (), "a whole number, or True", None, "the report",
           "how many iterates res.history holds, the last ones; True: maxiter + 1"),
    Option("history_x", (), "True or False", False, "the report", "whether it holds their points too"),
    Option("warm_start", (), "a result", None, "'lbfgs', 'bfgs', and methods for constraints",
           "the result of a similar problem, whose hess_inv, or multipliers v, the method begins with; the start is x0 "
           "all the same"),
    Option("diff", (), "'implicit', 'none' or 'unroll'", "implicit", "derivatives of the solution",
           "by the implicit function theorem; refused; or, for a transformation, through every evaluation"),
    Option("flat", (), "True, False or None", None, "a sharded x0",
           "whether the leaves of x0 are joined to one vector; None: unless one is sharded over several devices"),
    Option("wrt", (), "a filter", None, "a Flax NNX module as x0",
           "which of its variables vary; None: those that are nnx.Param"),
    Option("return_all", (), "False", False, FIXED,
           "options={'history': N, 'history_x': True} keeps the last N points"),
    Option("norm", (), "inf", np.inf, FIXED, "gtol is compared with the infinity norm"),
    Option("hess_inv0", (), "nothing", None, FIXED,
           "options={'warm_start': res} begins with the hess_inv of an earlier result"),
    Option("iprint", (), "-1", -1, FIXED, "options={'disp': True} prints a line an iteration"),
    Option("verbose", (), "0", 0, FIXED, "options={'disp': True} prints a line an iteration"),
    Option("mesg_num", (), "nothing", None, FIXED, "options={'disp': True} prints a line an iteration"),
    *(Option(name, (), "nothing", None, FIXED,
             "no method scales x; minimize fun(offset + scale * z) over z, where z is about 1")
      for name in ("scale", "offset")),
    Option("rescale", (), "-1", -1, FIXED, "no method scales f; multiply fun by a number"),
    Option("stepmx", (), "0", 0, FIXED, "options={'max_step': ...} limits the step of a line search"),
    Option("accuracy", (), "0", 0, FIXED, "there are no finite differences; gradients are exact"),
    Option("minfev", (), "0", 0, FIXED, "give ftol, the decrease that is small enough"),
    Option("initial_tr_radius", (), "1", 1.0, FIXED, "the steps of 'interior_point' begin with no radius"),
    *(Option(name, (), "nothing", None, FIXED, "derivatives of constraints are dense arrays")
      for name in ("sparse_jacobian", "factorization_method")),
    *(Option(name, (), "nothing", None, REFUSED, "there are no finite differences; gradients are exact")
      for name in ("eps", "finite_diff_rel_step", "workers")),
)  # fmt: skip
# An option of transformations by name, in addition to the parameters of their builders.
CLIP = Option("clip", (), "a number", None, "a transformation by name",
              "the largest 2-norm of a gradient that is not scaled down; None: any")  # fmt: skip

_SPELLINGS = {spelling: row.name for row in TABLE if row.whose != REFUSED for spelling in (row.name, *row.spellings)}
# Names that are refused unless a method has them: "adam" has an eps.
_REFUSALS = {row.name: row.text for row in TABLE if row.whose == REFUSED}
_LIMITS = {row.name: row.default for row in TABLE if row.whose == LIMIT}
ABSOLUTES = {"fatol": "ftol", "xatol": "xtol"}  # SciPy's names of tolerances that are absolute
_STEPS = {"maxiter", "maxfun"}
_COUNTS = _STEPS | {"maxhev"}  # the limits that are whole numbers


class CallOptions(NamedTuple):
    """The options of a call, by their names in the table."""

    limits: dict[str, Any]  # the tolerances and limits in the call
    disp: bool
    history: dict[str, Any]  # the arguments history and keep_x of the loop's ``begin``
    warm_start: Any
    diff: str
    flat: bool | None
    wrt: Any
    others: dict[str, Any]  # the options for the method and its search


def parse(options: Any) -> CallOptions:
    """The options of a call as ``CallOptions``.

    Raises:
      TypeError, ValueError, NotImplementedError: for an option that is not right; the message names it.
    """
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options={options!r}: a dictionary")
    given, others = _split(options or {}, _SPELLINGS)
    values = {row.name: row.default for row in TABLE} | given
    _check_scipys(given)
    limits = {name: given[name] for name in (*_LIMITS, *ABSOLUTES) if given.get(name) is not None}
    for name, value in limits.items():
        _check_limit(f"options[{name!r}]", value)
    return CallOptions(
        limits=limits,
        disp=bool(values["disp"]),
        history=history_length(values),
        warm_start=values["warm_start"],
        diff=values["diff"],
        flat=values["flat"],
        wrt=values["wrt"],
        others=others,
    )


def _split(options: Mapping[Any, Any], spellings: Mapping[str, str]) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The options in ``spellings``, under their names there, and the other options."""
    known: dict[str, Any] = {}
    others: dict[Any, Any] = {}
    for given, value in options.items():
        name = spellings.get(str(given).lower())
        if name is None:
            others[given] = value
        elif name in known:
            raise ValueError(f"options: {given!r} is given twice, in two spellings")
        else:
            known[name] = value
    return known, others


def named(options: Mapping[Any, Any] | None) -> dict[Any, Any]:
    """The options, those of the table under their names there."""
    given, others = _split(options or {}, _SPELLINGS)
    return given | others


def spellings() -> set[str]:
    """The names of all options, of every call and of the methods by name, in all spellings."""
    return {*_SPELLINGS, *(name for entry in entries("methods").values() for name in entry.parameters)}


def is_limit(name: Any) -> bool:
    """Whether the option is a tolerance or a limit of the solve."""
    return _SPELLINGS.get(str(name).lower()) in (*_LIMITS, *ABSOLUTES)


def _check_scipys(given: Mapping[str, Any]) -> None:
    """Raise for SciPy's options that jaxmin has with one value only."""
    for row in TABLE:
        if row.name in given and row.whose == FIXED and not _is(given[row.name], row.default):
            raise NotImplementedError(f"options[{row.name!r}]: {row.text}")


def _is(value: Any, default: Any) -> bool:
    """Whether the value is None or the default; no array of numbers is."""
    return value is None or (default is not None and np.ndim(value) == 0 and bool(value == default))


def _check_limit(name: str, value: Any) -> None:
    """Raise unless the value is a real scalar, and in its range if it is not traced."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) or np.ndim(value) != 0:
        raise TypeError(f"{name}={value!r}: give one number")
    if not np.issubdtype(getattr(value, "dtype", type(value)), np.number) or np.iscomplexobj(value):
        raise TypeError(f"{name}={value!r}: give one real number")
    if isinstance(value, jax.core.Tracer):
        return
    value, least = float(value), {"options['maxiter']": 0, "options['maxfun']": 1, "options['maxhev']": 1}.get(name)
    if name == "options['gtol_relative']":
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}={value!r}: give a finite number >= 0")
    elif least is None:
        if np.isnan(value):
            raise ValueError(f"{name}={value!r}: give a number; a number below 0 turns the test off")
        if name == "tol" and value < 0:
            raise ValueError(f"tol={value!r}: give a number >= 0; 0 goes on until nothing is left to gain")
    elif not value >= least or (np.isfinite(value) and value != int(value)):
        raise ValueError(f"{name}={value!r}: a whole number, at least {least}, or infinite")


def history_length(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the loop's ``begin`` for these options: ``history``, a length, and ``keep_x``."""
    length, keep_x = options.get("history"), options.get("history_x", False)
    if not isinstance(keep_x, (bool, np.bool_)):
        raise TypeError(f"options['history_x']={keep_x!r}: True or False")
    if length is True:
        maxiter = options.get("maxiter")
        if isinstance(maxiter, jax.core.Tracer):
            raise TypeError("options['history']=True: its length is maxiter + 1, which is traced; give a number")
        # In minimize_many each problem may have its own maxiter.
        length = int(np.max(_LIMITS["maxiter"] if maxiter is None else maxiter)) + 1
    elif length is None or length is False:
        length = 0
    elif not is_count(length) or length < 1:
        raise ValueError(f"options['history']={length!r}: the number of iterates to keep, at least 1; or True")
    if keep_x and not length:
        raise ValueError("options['history_x']: it needs a history; give its length as options['history']")
    return {"history": int(length), "keep_x": bool(keep_x)}


# ---- the method


def choose(
    method: Any, linesearch: Any, tol: Any, options: CallOptions, bounded: bool = False
) -> tuple[Method | Foreign, Limits]:
    """The method to run and the limits of the solve."""
    chosen = _choose_method(method, linesearch, options.others, bounded)
    for name in ("ctol", "barrier_tol"):
        if name in options.limits and "constraints" not in chosen.wants:
            raise ValueError(
                f"options[{name!r}]: it is for methods with constraints; this method has gtol, ftol and xtol"
            )
    defaults = chosen.defaults if isinstance(chosen, Method) else Defaults()
    if "gtol_relative" in options.limits and "grad" not in chosen.wants:
        raise ValueError("options['gtol_relative']: this method uses no gradient; give xtol and ftol")
    if "maxhev" in options.limits and "nhev" not in counters(chosen.wants):
        raise ValueError("options['maxhev']: this method uses no second derivatives; give maxfun")
    return chosen, _limits(defaults, tol, _relative(options.limits, defaults))


def _relative(limits: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The limits, without SciPy's names for absolute tolerances."""
    limits = dict(limits)
    for name, meant in ABSOLUTES.items():
        if name not in limits:
            continue
        if not defaults.absolute:
            raise ValueError(
                f"options[{name!r}]: an absolute tolerance, which this method has not; give {meant!r}, relative to "
                f"{'max(|fun|, 1)' if meant == 'ftol' else 'max(|x|, 1)'}"
            )
        if meant in limits:
            raise ValueError(f"options: {meant!r} is given twice, in two spellings")
        limits[meant] = limits.pop(name)
    return limits


def _limits(defaults: Defaults, tol: Any, given: dict[str, Any]) -> Limits:
    """The ``Limits`` of the solve: from ``options`` first, then from ``tol``, then the method's own."""
    if tol is not None:
        _check_limit("tol", tol)
        given = dict.fromkeys(defaults.tol, tol) | given
    own: dict[str, Any] = dict(defaults.limits)
    if "gtol_relative" in given:  # else the units of f would matter all the same
        own["gtol"] = 0.0
    # SciPy's rule: if one limit is given, the other is infinite. An infinite one leaves the other as it is by default.
    if own.keys() & _STEPS:
        if any(_is_finite(given[name]) for name in given.keys() & _STEPS):
            own |= dict.fromkeys(_STEPS, np.inf)
    elif "maxiter" in given and "maxfun" not in given:  # more iterations need more evaluations
        own["maxfun"] = _no_less(_LIMITS["maxfun"], given["maxiter"])
    return Limits(**(_LIMITS | own | given))


def _is_finite(count: Any) -> bool:
    return isinstance(count, jax.core.Tracer) or bool(np.all(np.isfinite(count)))


def _no_less(default: int, count: Any) -> Any:
    traced = isinstance(count, jax.core.Tracer)
    return jnp.maximum(default, count) if traced else max(default, float(count))


# What "auto" is where no derivative is given by hand, and where fun has only first derivatives.
AUTO, AUTO_FIRST_ORDER = "lbfgs_newton", "lbfgs"


def for_first_order(options: CallOptions) -> CallOptions:
    """The options for AUTO without those that only its second derivatives have."""
    own, first = (find("method", name, "methods").parameters for name in (AUTO, AUTO_FIRST_ORDER))
    limits = {name: value for name, value in options.limits.items() if name != "maxhev"}
    others = {name: value for name, value in options.others.items() if name not in own.keys() - first.keys()}
    return options._replace(limits=limits, others=others)


def resolve_auto(method: Any, hess: Any, hessp: Any, bounds: Any, constrained: bool) -> Any:
    """Resolve ``method="auto"`` by the table in docs/choosing.md; return any other method unchanged.

    In a set None is resolved too, and with constraints None and the default.
    """
    by_itself = method is None or (isinstance(method, str) and method.lower() in ("auto", "lbfgs"))
    if constrained and by_itself:
        return "interior_point"
    is_auto = isinstance(method, str) and method.lower() == "auto"
    if isinstance(bounds, ConvexSet) and (is_auto or method is None):
        return "gradient_descent"
    if not is_auto:
        return method
    if hess is not None and bounds is None:
        return "trust_exact"
    return AUTO if hess is None and hessp is None else "trust_ncg"


def _choose_method(method: Any, linesearch: Any, options: dict[Any, Any], bounded: bool) -> Method | Foreign:
    """The ``Method`` or the ``Foreign``, built with the options; each option must belong to it or to its search."""
    if method is None:
        method = "lbfgs" if bounded else "bfgs"
    if isinstance(method, LineSearch):
        raise TypeError("method: this is a line search; give it as linesearch")
    if isinstance(method, Direction):
        raise TypeError("method: this is a Direction; give jaxmin.descend(direction, linesearch)")
    if isinstance(method, Method):
        check_method(method)
        if linesearch is not None:
            raise ValueError("linesearch: this method is already built; give the search to its builder")
        _reject(options, (), built=True)
        return method
    if is_foreign(method):
        _, found = _constants(options, {}, linesearch, search() if linesearch is not None else None, built=True)
        return foreign(method, **found)
    entry = find("method", method, "methods", "transforms")
    if entry.package == "transforms":
        return _choose_transformation(entry, linesearch, options)
    if linesearch is not None and not entry.takes_search:
        raise ValueError(f"linesearch={linesearch!r}: method {entry.name!r} takes none; omit it")
    known = entry.parameters | (ABSOLUTES if entry.absolute else {})
    constants, found = _constants(options, known, linesearch, entry.converters.get("linesearch"))
    return entry.build(**constants, **found)


def _choose_transformation(entry: Entry, linesearch: Any, options: dict[Any, Any]) -> Foreign:
    """A transformation by name, with a line search if one is given."""
    known = entry.parameters | {CLIP.name: CLIP.name}
    constants, found = _constants(options, known, linesearch, search() if linesearch is not None else None)
    clip = constants.pop(CLIP.name, None)
    missing = [name for name in entry.required if name not in constants]
    if missing:
        raise ValueError(f"options: method {entry.name!r} needs {', '.join(map(repr, missing))}")
    cacheable = clip is None and not any(
        callable(value) or isinstance(value, jax.Array) for value in constants.values()
    )
    transformation = entry.build(**constants)
    if clip is not None:
        transformation = chain(clip_by_global_norm(clip), transformation)
    return foreign(transformation, cacheable=cacheable, **found)


def _constants(
    options: dict[Any, Any], known: Mapping[str, str], linesearch: Any, converter: Any, built: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The constants of a method, and its search as a keyword; each option must belong to the method or to its search.

    Args:
      options: the options.
      known: the spellings of the method's parameters.
      linesearch: the argument of the call; None for the method's own search.
      converter: makes a search of a name and constants; None where there is no search.
      built: whether the method is built already.
    """
    by_name = converter is not None and not isinstance(linesearch, LineSearch)
    of_search = converter.entry(linesearch).parameters if by_name else {}
    constants, others = _split(options, known)
    of_its_search, others = _split(others, of_search)
    _reject(others, (*known, *of_search), built)
    if linesearch is None and not of_its_search:
        return constants, {}
    return constants, {"linesearch": converter(linesearch, **of_its_search)}


def _reject(options: Mapping[Any, Any], parameters: Iterable[str], built: bool = False) -> None:
    """Raise for unknown options, with the nearest names and the choices; do nothing if there are none."""
    if not options:
        return
    for name in options:
        if str(name).lower() in _REFUSALS:
            raise ValueError(f"options[{name!r}]: {_REFUSALS[str(name).lower()]}")
    offered = [
        spelling
        for row in TABLE
        if row.whose not in (ABSOLUTE, FIXED, REFUSED)
        for spelling in (row.name, *row.spellings)
    ]
    hint = "this method is already built: give its own parameters to its builder." if built else ""
    message = unknown(options, sorted({*offered, *parameters}), hint=hint)
    raise ValueError(f"options: unknown {', '.join(map(repr, options))}{message}")


# ---- the solve


def steps_unrolled(diff: str, method: Method | Foreign, limits: Limits) -> int | None:
    """How many steps ``options["diff"]="unroll"`` records; None for another choice."""
    if diff != "unroll":
        return None
    if not isinstance(method, Foreign) or method.linesearch is not None:
        raise ValueError(
            "options['diff']='unroll': only for transformations such as 'sgd' and 'adam', where each point is a smooth "
            "function of the last; a search or a trust region is not smooth. Use 'implicit', which suits every method"
        )
    for name in ("maxiter", "maxfun"):
        if isinstance(getattr(limits, name), jax.core.Tracer):
            raise TypeError(f"options[{name!r}]: traced; diff='unroll' needs a number that is known while compiling")
    if not np.isfinite(min(limits.maxiter, limits.maxfun)):
        raise ValueError("options['maxiter']: infinite; diff='unroll' records every step, so give a number")
    return int(min(limits.maxiter + 1, limits.maxfun))


def as_arrays(limits: Limits, variables: Variables) -> Limits:
    """The limits in the dtypes of the solve, so that a call with other types compiles nothing."""

    def count(value: Any) -> Any:
        whole = jnp.iinfo(jnp.int32).max
        if isinstance(value, PerVariable):
            value = value.times * (variables.size if isinstance(variables.size, int) else jnp.asarray(variables.size))
        if isinstance(value, jax.core.Tracer):
            return jnp.minimum(value, whole).astype(jnp.int32)
        return np.int32(min(float(value), whole))

    def tolerance(value: Any) -> Any:
        dtype = variables.dtype
        if value is None:
            return None
        if isinstance(value, PerDtype):
            is_double = all(jnp.finfo(leaf).bits == 64 for _, leaf in variables.shapes)
            value = value.double if is_double else value.single
        return value.astype(dtype) if isinstance(value, jax.core.Tracer) else np.asarray(value, dtype)

    own = {name: value for name, value in limits._asdict().items() if value is not None}
    return Limits(**{name: (count if name in _COUNTS else tolerance)(value) for name, value in own.items()})
