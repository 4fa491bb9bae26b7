"""A function as a key, where all that it can see is immutable: a trace of it may then be kept.

A trace may not outlive a change in what was traced. ``jax.jit`` trusts its caller there; a person who
rebinds ``y`` in a notebook and calls again expects the new one. So a trace is kept only for a plain
function whose code, closure, defaults and globals hold nothing that can change without changing the key.
Whatever is not known to be so is not kept; that costs a trace, never a compilation.
"""

import dis
import functools
import sys
import types
import weakref

import jax
import numpy as np

_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)
_TRUSTED = ("jax", "jaxlib", "numpy", "math", "operator", "builtins", "jaxmin")
_JITTED = type(jax.jit(lambda: None))
# By these a function may see what its names do not show.
_OPEN = {"globals", "locals", "vars", "eval", "exec", "getattr", "__import__", "__dict__", "random", "open", "input"}


class Same:
    """An object that equals only itself, held weakly: once it is gone, nothing equals it."""

    __slots__ = ("_id", "_ref")

    def __init__(self, value):
        self._id = id(value)
        try:
            self._ref = weakref.ref(value)
        except TypeError:  # a built-in function or a class of C's, which stay
            self._ref = lambda: value

    def __hash__(self):
        return self._id

    def __eq__(self, other):
        return isinstance(other, Same) and self._ref() is not None and self._ref() is other._ref()


class Mutable(Exception):
    """Something that can change, or of which that is not known."""


def key(value, seen=()):
    """A hashable key, equal only for what traces alike; raises ``Mutable`` where there is none."""
    if isinstance(value, _VALUES):
        return type(value), repr(value) if isinstance(value, (float, complex, np.generic)) else value
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
    """Modules, and what stands in them under its own name, of libraries that nobody changes while solving."""
    if isinstance(value, types.ModuleType):
        return value.__name__.split(".")[0] in _TRUSTED
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", getattr(value, "__name__", None))
    if not isinstance(module, str) or not isinstance(name, str) or module.split(".")[0] not in _TRUSTED:
        return isinstance(value, np.ufunc)
    bound_to = getattr(value, "__self__", None)
    if bound_to is not None and not isinstance(bound_to, types.ModuleType):
        return False
    return getattr(sys.modules.get(module), name, None) is value


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
    seen_by_it = tuple(key(value, seen) for value in (*cells, *defaults, *globals_read))
    return Same(function), function.__code__, seen_by_it


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
