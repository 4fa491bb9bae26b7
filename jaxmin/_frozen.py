"""A function as a key, where all that it can see is immutable: a trace of it may then be kept.

A trace may not outlive a change in what was traced. ``jax.jit`` trusts its caller there; a person who
rebinds ``y`` in a notebook and calls again expects the new one. So a trace is kept only for a plain
function whose code, closure, defaults and globals hold nothing that can change without changing the key.
Whatever is not known to be so is not kept; that costs a trace, never a compilation.
"""

import dis
import functools
import types

import jax
import numpy as np

from jaxmin._signature import Same

_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)
_TRUSTED = ("jax", "jaxlib", "numpy", "math", "operator", "builtins", "jaxmin")
_JITTED = type(jax.jit(lambda: None))
# By these a function may see what its names do not show.
_OPEN = {"globals", "locals", "vars", "eval", "exec", "getattr", "__import__", "__dict__", "random", "open", "input"}


class Mutable(Exception):
    """Something that can change, or of which that is not known."""


def key(value, seen=()):
    """A hashable key, equal only for what traces alike; raises ``Mutable`` where there is none."""
    if isinstance(value, _VALUES):
        return type(value), value
    if isinstance(value, jax.core.Tracer):
        raise Mutable
    if isinstance(value, jax.Array) or _trusted(value):
        return Same(value)
    if type(value) in (tuple, frozenset):
        return type(value), tuple(key(item, seen) for item in value)
    if isinstance(value, _JITTED):
        return Same(value), key(value.__wrapped__, seen)
    if type(value) is types.FunctionType and not value.__dict__:
        return _function(value, seen)
    raise Mutable


def _trusted(value):
    """Modules, classes and functions of libraries that nobody changes while solving."""
    if isinstance(value, types.ModuleType):
        name = value.__name__
    elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc, _JITTED)):
        name = getattr(value, "__module__", None) or "numpy"
    else:
        # numpy and jax.numpy hold callables of classes of their own
        name = type(value).__module__ if callable(value) and not hasattr(value, "__wrapped__") else ""
    return name.split(".")[0] in _TRUSTED


def _function(function, seen):
    if function in seen:
        return "recursion"
    seen = (*seen, function)
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not bound yet
        raise Mutable from None
    names = _names(function.__code__)
    globals_read = [function.__globals__[name] for name in names if name in function.__globals__]
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return Same(function), tuple(key(value, seen) for value in (*cells, *defaults, *globals_read))


@functools.lru_cache(maxsize=1024)
def _names(code):
    """The names that a piece of code, and code inside it, may look up globally."""
    if any(instruction.opname == "IMPORT_NAME" for instruction in dis.get_instructions(code)):
        raise Mutable
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names.update(_names(const))
    if names & _OPEN:
        raise Mutable
    return tuple(sorted(names))
