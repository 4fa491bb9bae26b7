"""Derivative rules inside a traced computation: whose they are, and the computation without them.

A call of a ``custom_jvp`` or a ``custom_vjp`` function holds its rules as Python functions, often new ones at each
trace, which are traced only when somebody differentiates. No key can say what they will do by then. So a computation
that is compiled once for many calls is one without them: each call is replaced by what it computes. JAX's own rules
alone stay, as they never change.
"""

import functools
import pathlib
import sys
import types

import jax
import jax.extend.core as jex
from jax.extend.core import primitives

_CALLS = ("custom_jvp_call", "custom_vjp_call")
_JAX = pathlib.Path(jax.__file__).parent
_DEPTH = 24  # of wrappers around a rule


def is_call(eqn):
    """Whether it calls a function that has derivative rules of its own."""
    return eqn.primitive.name in _CALLS


def any_unknown(jaxpr):
    """Whether rules that are not JAX's own are left anywhere in it."""
    return any((is_call(eqn) and known(eqn) is None) or any(map(any_unknown, inside(eqn))) for eqn in jaxpr.eqns)


def without(jaxpr):
    """The same computation, with no rules."""
    eqns = []
    for eqn in jaxpr.eqns:
        params = {name: _without(value) for name, value in eqn.params.items()}
        if is_call(eqn):
            eqn = eqn.replace(primitive=primitives.closed_call_p)
            params = {"call_jaxpr": params["call_jaxpr"]}
        eqns.append(eqn.replace(params=params))
    return jaxpr.replace(eqns=eqns)


def known(eqn):
    """The function of JAX's that such a call is of, where its rule is the one that JAX gave it; else None."""
    if eqn.primitive.name != "custom_jvp_call":
        return None
    info = eqn.params["call_jaxpr"].jaxpr.debug_info
    function = getattr(_module(info.func_filename), info.func_name or "", None)
    # A static argument, which its rule sees, stands nowhere in the computation.
    if not isinstance(function, jax.custom_jvp) or function.nondiff_argnums:
        return None
    return function if all(map(_is_of_jax, _functions(eqn.params["jvp_jaxpr_fun"]))) else None


@functools.lru_cache(maxsize=256)
def _module(file):
    """The module of JAX's that a file is."""
    try:
        path = pathlib.Path(file or "").relative_to(_JAX).with_suffix("")
    except ValueError:
        return None
    return sys.modules.get(".".join(("jax", *path.parts)))


def _functions(thing, depth=_DEPTH):
    """All functions in a rule: it and its wrappers."""
    if depth == 0:
        yield thing  # no function of JAX's
    elif isinstance(thing, types.FunctionType):
        yield thing
        for cell in thing.__closure__ or ():
            yield from _functions(cell.cell_contents, depth - 1)
    elif isinstance(thing, types.MethodType):
        yield from _functions(thing.__func__, depth - 1)
        yield from _functions(thing.__self__, depth - 1)
    elif isinstance(thing, functools.partial):
        yield from _functions((thing.func, thing.args), depth - 1)
    elif isinstance(thing, (tuple, list)):
        for part in thing:
            yield from _functions(part, depth - 1)
    elif hasattr(thing, "f_transformed"):  # a wrapped function
        yield from _functions((thing.f, thing.transforms), depth - 1)
    elif callable(thing) and not isinstance(thing, (type, jax.custom_jvp)):
        yield thing


def _is_of_jax(function):
    return (getattr(function, "__module__", None) or "").split(".")[0] == "jax"


def inside(eqn):
    """The computations that an operation holds."""
    for value in eqn.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(inner, (jex.Jaxpr, jex.ClosedJaxpr)):
                yield inner


def lack_derivative(jaxpr, outputs):
    """Whether some of the outputs, flags, need a derivative that a ``custom_vjp`` function does not have.

    JAX leaves ``custom_lin`` for it, and raises where it compiles that.
    """
    needed = {v for v, is_needed in zip(jaxpr.outvars, outputs) if is_needed and not isinstance(v, jex.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if needed.isdisjoint(eqn.outvars):
            continue
        if eqn.primitive.name == "custom_lin":
            return True
        needed.update(v for v in eqn.invars if not isinstance(v, jex.Literal))
    return False


def _without(value):
    if isinstance(value, jex.ClosedJaxpr):
        return value.replace(jaxpr=without(value.jaxpr))
    if isinstance(value, jex.Jaxpr):
        return without(value)
    if isinstance(value, (tuple, list)) and any(isinstance(part, (jex.Jaxpr, jex.ClosedJaxpr)) for part in value):
        parts = map(_without, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
