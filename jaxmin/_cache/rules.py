"""A derivative rule as a key: the rule of a ``custom_jvp`` or ``custom_vjp`` call, by what it computes from.

A traced call holds its rules as Python functions that are traced only when somebody differentiates again.
Each trace makes new ones around the user's own, so they are compared by code and by what they close over
and name. Two rules have equal keys only if they are sure to do the same; what cannot be compared is compared
by identity, and what may change unseen equals nothing. That costs a compilation, never a wrong derivative.
"""

import functools
import hashlib
import types

import jax
import numpy as np

from jaxmin._cache import purity

PARAMETERS = {"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd"}
_LARGEST = 4096  # objects looked at for one rule


def rule_key(rule, identical):
    """A hashable key of a rule; ``identical(value)`` stands for what equals only itself."""
    try:
        return _Walk(identical).key(rule)
    except Exception:  # Mutable, or an object of the user's that cannot be looked into
        return identical(rule)


def content(array):
    """A NumPy array as a key: it may change in place, so its identity says nothing."""
    if array.dtype.hasobject:
        raise purity.Mutable
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).digest()


class _Walk:
    """The key of whatever is reachable from one object."""

    def __init__(self, identical):
        self._identical = identical
        self._number = {}  # id of an object met before -> when
        self._alive = []  # objects made on the way: an id is to stay its own

    def key(self, value):
        if (known := purity.plain(value)) is not None:
            return known
        if id(value) in self._number:
            return "met before", self._number[id(value)]
        if len(self._number) > _LARGEST:
            raise purity.Mutable
        self._number[id(value)] = len(self._number)
        self._alive.append(value)
        return type(value), self._parts(value)

    def _parts(self, value):
        kind = type(value)
        if isinstance(value, np.ndarray):
            return content(value)
        if isinstance(value, (jax.Array, type, types.BuiltinFunctionType, np.ufunc)) or purity.trusted(value):
            return self._identical(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self.key(value.__func__), self.key(value.__self__)
        if isinstance(value, functools.partial):
            return self.key(value.func), self.key(value.args), self.key(value.keywords)
        if isinstance(value, (tuple, list)):
            return tuple(map(self.key, value)), self._attributes(value)
        if isinstance(value, dict):
            return tuple((self.key(name), self.key(item)) for name, item in value.items()), self._attributes(value)
        if isinstance(value, (range, types.CodeType)):
            return value
        if kind in (set, frozenset):
            return frozenset(map(self._plain, value))
        if kind is object:  # a mark, known by identity
            return self._identical(value)
        if _is_of_jax(kind):
            return self._of_jax(value)
        if kind.__module__ == "builtins" or not hasattr(value, "__dict__"):  # an iterator, say: it changes unseen
            raise purity.Mutable
        return self._attributes(value)

    def _plain(self, value):
        known = value if isinstance(value, type) else purity.plain(value)
        if known is None:
            raise purity.Mutable
        return known

    def _function(self, function):
        if _is_of_jax(function):
            contents = [cell.cell_contents for cell in function.__closure__ or ()]
            cells = dict(zip(function.__code__.co_freevars, contents))
            if "cells" in cells and "fn" in cells:  # it remembers what it returned
                return self.key(cells["fn"])
            named: tuple = cells, {}
        else:
            named = purity.named_by(function), vars(function)
        seen = function.__defaults__, function.__kwdefaults__, *named
        return function.__code__, *map(self.key, seen)

    def _attributes(self, value):
        return tuple((name, self.key(item)) for name, item in _attributes(value))

    def _of_jax(self, value):
        """JAX's own wrapping around the user's rules."""
        kind = type(value)
        if hasattr(value, "f_transformed"):  # a wrapped function; what it stores follows from the rest
            return self.key(value.f), self.key(value.transforms), self.key(value.params)
        if kind.__name__ in ("Store", "EqualStore", "DebugInfo") or isinstance(value, jax.core.Trace):
            return ()
        if isinstance(value, jax.core.ShapedArray):
            return value
        if kind.__name__ == "AxisData":  # the name of an axis that was given none is a new object each time
            return tuple((name, self.key(item)) for name, item in _attributes(value) if type(item) is not object)
        if isinstance(value, type(jax.jit(len))):
            return self._identical(value), self.key(value.__wrapped__)  # type: ignore[attr-defined]
        if kind.__hash__ is not object.__hash__ and kind.__hash__ is not None:
            return value
        return self._attributes(value)


def _is_of_jax(thing):
    return (getattr(thing, "__module__", None) or "").split(".")[0] in ("jax", "jaxlib")


def _attributes(value):
    """The attributes of an object itself, by name."""
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()) if name[:2] != "__"]
    return [*((name, getattr(value, name, None)) for name in slots), *getattr(value, "__dict__", {}).items()]
