"""A function as a key, where all that it can see is immutable: a trace of it may then be kept.

A trace may not outlive a change in what was traced. ``jax.jit`` trusts its caller there; a person who
rebinds ``y`` in a notebook and calls again expects the new one. So a trace is kept only for a function
whose code, closure, defaults and globals hold nothing that can change without changing the key.
"""

import types

import jax
import numpy as np

from jaxmin._signature import Same

_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)
_NAMES = (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc)


class Mutable(Exception):
    """Something that can change, or of which that is not known."""


def key(value, seen=()):
    """A hashable key, equal only for what traces alike; raises ``Mutable`` where there is none."""
    if isinstance(value, _VALUES):
        return type(value), value
    if isinstance(value, jax.core.Tracer):
        raise Mutable
    if isinstance(value, (jax.Array, *_NAMES)):
        return Same(value)
    if isinstance(value, (tuple, frozenset)):
        return type(value), tuple(key(item, seen) for item in value)
    if isinstance(value, types.FunctionType):
        return _function(value, seen)
    if isinstance(getattr(value, "__wrapped__", None), types.FunctionType) and type(value).__module__.startswith("jax"):
        return Same(value), _function(value.__wrapped__, seen)  # jitted, or with a derivative rule
    raise Mutable


def _function(function, seen):
    if function in seen:
        return "recursion"
    if (function.__module__ or "").split(".")[0] in ("jax", "numpy"):
        return Same(function)
    seen = (*seen, function)
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not bound yet
            raise Mutable from None
    names = _names(function.__code__)
    known = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    seen_by_it = (*cells, *defaults, *known.values())
    return Same(function), tuple(key(value, seen) for value in seen_by_it)


def _names(code):
    """The names that a piece of code, and code inside it, may look up globally."""
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*inner)
