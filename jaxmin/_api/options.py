"""What to run and when to stop: method, search and options, in anybody's spelling, checked by name."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.registry import build_search, find, made_by
from jaxmin._core.protocol import Direction, LineSearch, Method
from jaxmin._core.pytree import is_count
from jaxmin._driver.stopping import Limits
from jaxmin._interop.foreign import Foreign, foreign, is_foreign
from jaxmin.transforms import chain, clip_by_global_norm


class _OwnSearch:
    """The default of ``linesearch``: whatever search is the method's own."""

    def __repr__(self):
        return "'backtracking'"


OWN_SEARCH: Any = _OwnSearch()

_LIMITS = {"gtol": 1e-5, "ftol": -1.0, "xtol": -1.0, "maxiter": 15_000, "maxfun": 15_000}
_LIMIT_SPELLINGS = {name: name for name in _LIMITS} | {
    "maxfev": "maxfun", "xrtol": "xtol", "xatol": "xtol", "fatol": "ftol",
}  # fmt: skip
# Options of SciPy's that have one value here, and why.
_FIXED_OPTIONS = {
    "return_all": (False, "options={'history': N, 'history_x': True} keeps the last N points"),
    "norm": (np.inf, "gtol is compared with the infinity norm"),
}
# Options that say nothing of the method and its limits.
OF_CALL = ("diff", "disp", "flat", "history", "history_x", "warm_start", "wrt")
_NO_DIFFERENCES = ("eps", "finite_diff_rel_step", "workers")


def choose(method, linesearch, tol, options, bounded=False):
    """The method to run and the limits of the solve."""
    limits = _take_limits(options)
    entry = None
    if method is None:
        method = "lbfgs" if bounded else "bfgs"
    if isinstance(method, LineSearch):
        raise TypeError("method: that is a line search; give it as linesearch")
    if isinstance(method, Direction):
        raise TypeError("method: that is a Direction; jaxmin.descend(direction, linesearch) makes a method of it")
    if not isinstance(method, Method) and not is_foreign(method):
        entry = find("method", method, "methods", "transforms")
    known = made_by(method) if isinstance(method, Method) else entry
    if tol is not None:
        _check_limit("tol", tol)
        for name in known.tol_sets if known else ("gtol",):
            limits.setdefault(name, tol)
    own = known.limits if known else {}
    if own and limits.keys() & {"maxiter", "maxfun"}:  # one of both given, the other does not limit: SciPy's rule
        own = own | {"maxiter": np.inf, "maxfun": np.inf}
    elif "maxiter" in limits and "maxfun" not in limits:  # who asks for more iterations wants their evaluations
        limits["maxfun"] = _no_less(_LIMITS["maxfun"], limits["maxiter"])
    limits = Limits(**(_LIMITS | own | limits))

    if isinstance(method, Method):
        if linesearch is not OWN_SEARCH:
            raise ValueError("linesearch: this method is already built; give the search to its builder")
        _reject_options(options, {}, built=True)
        return method, limits
    if entry is None or entry.package == "transforms":
        return _choose_transformation(entry, method, linesearch, options), limits
    constants = _take(options, entry.parameters)
    if entry.takes_search:
        constants |= _choose_search(linesearch, options, entry.parameters, entry.search_defaults)
    elif linesearch is not OWN_SEARCH and linesearch is not None:
        raise ValueError(f"linesearch={linesearch!r}: method {entry.name!r} takes none")
    _reject_options(options, entry.parameters)
    return entry.build(**constants), limits


def is_limit(name):
    """Whether the option is a tolerance or a limit of the solve."""
    return str(name).lower() in _LIMIT_SPELLINGS


def of_what_is_given(method, hess, hessp, bounded):
    """The method, or for "auto" the one that it stands for; the table is in docs/choosing.md."""
    if not isinstance(method, str) or method.lower() != "auto":
        return method
    if hess is not None and not bounded:
        return "trust_exact"
    return "lbfgs" if hess is None and hessp is None else "trust_ncg"


def _choose_transformation(entry, method, linesearch, options):
    """A transformation, by name or as it is, with the search that was given, if any."""
    search, known, kept = {}, {}, False
    if entry is not None:
        known = entry.parameters | {"clip": "clip"}
        constants = _take(options, known)
        clip = constants.pop("clip", None)
        missing = [name for name in entry.required if name not in constants]
        if missing and linesearch is OWN_SEARCH:
            _reject_options(options, known)
        if missing:
            raise ValueError(f"options: method {entry.name!r} needs {', '.join(map(repr, missing))}")
        kept = clip is None and not any(callable(value) or isinstance(value, jax.Array) for value in constants.values())
        method = entry.build(**constants)
        if clip is not None:
            method = chain(clip_by_global_norm(clip), method)
    if linesearch is not OWN_SEARCH and linesearch is not None:
        search = _choose_search(linesearch, options, known, {})
    _reject_options(options, known, built=entry is None)
    return foreign(method, kept=kept, **search)


def _no_less(default, count):
    traced = isinstance(count, jax.core.Tracer)
    return jnp.maximum(default, count) if traced else max(default, float(count))


def _choose_search(linesearch, options, others, defaults):
    """The search as a builder's keyword, out of what is left of the options; empty for the method's own."""
    if isinstance(linesearch, LineSearch):
        _reject_options(options, others)
        return {"linesearch": linesearch}
    own = linesearch is OWN_SEARCH or linesearch is None
    name = "backtracking" if own else linesearch
    known = find("linesearch", name, "linesearches").parameters
    constants = _take(options, known)
    _reject_options(options, others | known)
    return {} if own and not constants else {"linesearch": build_search(name, defaults, **constants)}


def _take(options, spellings):
    """Take out of the options those that ``spellings`` knows."""
    taken = {}
    for given in list(options):
        name = spellings.get(str(given).lower())
        if name is not None:
            if name in taken:
                raise ValueError(f"options: {given!r} is given twice, in two spellings")
            taken[name] = options.pop(given)
    return taken


def _take_limits(options):
    fixed = _take(options, {name: name for name in (*_FIXED_OPTIONS, *_NO_DIFFERENCES)})
    for name, given in fixed.items():
        if name in _NO_DIFFERENCES:
            raise ValueError(f"options[{name!r}]: there are no finite differences; gradients are exact")
        value, reason = _FIXED_OPTIONS[name]
        if given not in (value, None):
            raise NotImplementedError(f"options[{name!r}]: {reason}")
    limits = {name: value for name, value in _take(options, _LIMIT_SPELLINGS).items() if value is not None}
    for name, value in limits.items():
        _check_limit(f"options[{name!r}]", value)
    return limits


def _check_limit(name, value):
    """A real scalar; where its value is known, one that makes sense."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) or np.ndim(value) != 0:
        raise TypeError(f"{name}={value!r}: one number")
    if not np.issubdtype(getattr(value, "dtype", type(value)), np.number) or np.iscomplexobj(value):
        raise TypeError(f"{name}={value!r}: one real number")
    if isinstance(value, jax.core.Tracer):
        return
    value, least = float(value), {"options['maxiter']": 0, "options['maxfun']": 1}.get(name)
    if least is None:
        if np.isnan(value):
            raise ValueError(f"{name}={value!r}: a number; below 0 the test is never met")
    elif not value >= least or (np.isfinite(value) and value != int(value)):
        raise ValueError(f"{name}={value!r}: a whole number, at least {least}, or infinite")


def _reject_options(options, parameters, built=False):
    if options:
        choices = sorted({*_LIMIT_SPELLINGS, *OF_CALL, *parameters})
        unknown = ", ".join(map(repr, options))
        why = "; this method is already built: give its builder what is the method's own" if built else ""
        raise ValueError(f"options: unknown {unknown}{why}; the choices are {', '.join(choices)}")


def trips_unrolled(diff, method, limits):
    """How many trips ``options["diff"]="unroll"`` records; None for another choice."""
    if diff != "unroll":
        return None
    if not isinstance(method, Foreign) or method.linesearch is not None:
        raise ValueError(
            "options['diff']='unroll': for transformations such as 'sgd' and 'adam', each of whose points is a smooth "
            "function of the last; a search or a trust region compares numbers. 'implicit' serves every method"
        )
    for name in ("maxiter", "maxfun"):
        if isinstance(getattr(limits, name), jax.core.Tracer):
            raise TypeError(f"options[{name!r}]: with diff='unroll' a number known while compiling, not a traced one")
    if not np.isfinite(min(limits.maxiter, limits.maxfun)):
        raise ValueError("options['maxiter']: infinite; diff='unroll' records every trip, and needs a number")
    return int(min(limits.maxiter + 1, limits.maxfun))


def history_length(options):
    """How many iterates the options ask to be kept, and whether with x; taken out of the options."""
    length, keep_x = options.pop("history", None), options.pop("history_x", False)
    if not isinstance(keep_x, (bool, np.bool_)):
        raise TypeError(f"options['history_x']={keep_x!r}: True or False")
    if length is True:
        length = options.get("maxiter", _LIMITS["maxiter"])
        if isinstance(length, jax.core.Tracer):
            raise TypeError("options['history']=True: its length is maxiter + 1, which is traced; give a number")
        length = int(np.max(length)) + 1  # of many problems each may have its own
    elif length is None or length is False:
        length = 0
    elif not is_count(length) or length < 1:
        raise ValueError(f"options['history']={length!r}: how many iterates to keep, at least 1; or True")
    if keep_x and not length:
        raise ValueError("options['history_x']: it belongs to a history; options['history'] says how long")
    return {"history": int(length), "keep_x": bool(keep_x)}


def as_arrays(limits, variables):
    """The limits in the dtypes of the solve, whatever they were given as: another type would compile anew."""

    def count(value):
        whole = jnp.iinfo(jnp.int32).max
        if callable(value):
            value = value(variables.size)
        if isinstance(value, jax.core.Tracer):
            return jnp.minimum(value, whole).astype(jnp.int32)
        return np.int32(min(float(value), whole))

    def tolerance(value):
        dtype = variables.dtype
        return value.astype(dtype) if isinstance(value, jax.core.Tracer) else np.asarray(value, dtype)

    return Limits(*map(tolerance, limits[:3]), *map(count, limits[3:]))
