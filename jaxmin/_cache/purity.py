"""A function as a key, where all that it can see is known never to change: a trace of it may then be kept.

A trace may not outlive a change in what was traced. ``jax.jit`` trusts its caller there; a person who
rebinds ``y`` in a notebook and calls again expects the new one. So a trace is kept only for a plain
function whose code names nothing but what is listed here: immutable values, functions alike, and members
of a few libraries that give the same for the same arguments. Whatever is not known to be so is not kept;
that costs a trace, never a compilation.
"""

import builtins
import dis
import functools
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# Exactly these: a class made from them may hold more than the value.
_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_JITTED = type(jax.jit(lambda: None))
# Libraries of which every function gives the same for the same arguments, but for what reads files.
_PURE = {"jax", "jaxlib", "jaxmin", "math", "cmath", "operator", "_operator", "functools", "_functools", "itertools"}
_READS = {"load", "loadtxt", "genfromtxt", "fromfile", "memmap", "live_arrays"}
# NumPy holds files and random states too: of it, its ufuncs, its scalar types and these.
_NUMPY = """
    array asarray arange linspace logspace geomspace zeros ones full eye identity diag tri tril triu dtype finfo
    iinfo sum prod mean std var min max amin amax dot vdot inner outer matmul einsum cumsum cumprod shape size
    ndim reshape ravel transpose concatenate stack vstack hstack tile repeat meshgrid where clip round isscalar
    result_type
"""
_BUILTINS = """
    abs all any bool bytes callable complex dict divmod enumerate filter float frozenset hasattr hash int
    isinstance issubclass len list map max min pow range reversed round set slice sorted str sum tuple type zip
    Exception ValueError TypeError AssertionError NotImplementedError
"""


class WeaklySame:
    """An object that equals only itself, held weakly: once it is gone, nothing equals it."""

    __slots__ = ("_id", "_ref")

    def __init__(self, value):
        self._id = id(value)
        try:
            self._ref: Callable[[], Any] = weakref.ref(value)
        except TypeError:  # a built-in function or a class of C's, which stay
            self._ref = lambda: value

    def __hash__(self):
        return self._id

    def __eq__(self, other):
        return isinstance(other, WeaklySame) and self._ref() is not None and self._ref() is other._ref()


class Mutable(Exception):
    """Something that can change, or of which it is not known that it cannot."""


def key(value, seen=()):
    """A hashable key, equal only for what traces alike; raises ``Mutable`` where there is none."""
    if (known := plain(value)) is not None:
        return known
    if isinstance(value, jax.core.Tracer):
        raise Mutable
    if isinstance(value, jax.Array) or trusted(value):
        return WeaklySame(value)
    if type(value) in (tuple, frozenset):
        return type(value), tuple(key(item, seen) for item in value)
    if isinstance(value, _JITTED):
        return WeaklySame(value), key(value.__wrapped__, seen)  # type: ignore[attr-defined]
    if type(value) is types.FunctionType and not value.__dict__:
        return _function(value, seen)
    raise Mutable


def plain(value):
    """A key of an immutable value, equal where type and value are to the last bit; None for all else."""
    if type(value) in _VALUES:
        return type(value), repr(value) if isinstance(value, (float, complex)) else value
    if isinstance(value, np.generic) and type(value).__module__ == "numpy" and value.dtype.kind in "biufcSUMm":
        return type(value), str(value.dtype), value.tobytes()
    if isinstance(value, np.dtype):
        return np.dtype, value
    return None


def trusted(value):
    """Whether it stands under its own name in a library, among what is known to be pure."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", getattr(value, "__name__", None))
    if isinstance(value, np.ufunc):
        return getattr(np, value.__name__, None) is value
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    if getattr(sys.modules.get(module), name, None) is not value:
        return False
    root = module.split(".")[0]
    if root == "numpy":
        return name in _NUMPY.split() or (isinstance(value, type) and issubclass(value, np.generic))
    return name in _BUILTINS.split() if root == "builtins" else root in _PURE and name not in _READS


def _function(function, seen):
    if function in seen:
        return "recursion"
    seen = (*seen, function)
    values = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for named in named_by(function):
        values.append(named)
    return WeaklySame(function), function.__code__, tuple(key(value, seen) for value in values)


def named_by(function):
    """What a function closes over and names; for a module, the members that it names."""
    try:
        contents = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not bound yet
        raise Mutable from None
    cells = dict(zip(function.__code__.co_freevars, contents))
    found = [value for value in contents if not isinstance(value, types.ModuleType)]
    for is_global, name, *members in _names(function.__code__):
        if is_global and name not in function.__globals__:
            if name not in _BUILTINS.split() or not hasattr(builtins, name):
                raise Mutable
        elif is_global or isinstance(cells.get(name), types.ModuleType):
            found.append(_member(function.__globals__[name] if is_global else cells[name], members))
    return found


def _member(value, members):
    for name in members:
        if not isinstance(value, types.ModuleType):
            break
        try:
            value = getattr(value, name)
        except AttributeError:
            raise Mutable from None
    if isinstance(value, types.ModuleType):  # handed on: who knows what is taken from it
        raise Mutable
    return value


_READ_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_READ_CELL = ("LOAD_DEREF", "LOAD_CLASSDEREF")
_READ_MEMBER = ("LOAD_ATTR", "LOAD_METHOD")


@functools.lru_cache(maxsize=1024)
def _names(code):
    """What a piece of code, and code inside it, reads by name: (is it global, the name, the attributes taken of it).

    Raises ``Mutable`` for code that imports, writes to what outlives it, or looks inside objects.
    """
    found: dict = {}
    chain = None
    for instruction in dis.get_instructions(code):
        name, operation = instruction.argval, instruction.opname
        if operation == "EXTENDED_ARG":
            continue
        if operation in _READ_MEMBER:
            if name.startswith("__"):
                raise Mutable
            if chain is not None:
                chain.append(name)
            continue
        if chain is not None:
            found[tuple(chain)] = None
        chain = [operation in _READ_GLOBAL, name] if operation in _READ_GLOBAL + _READ_CELL else None
        outlives = operation in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            operation in ("STORE_DEREF", "DELETE_DEREF") and name in code.co_freevars
        )
        if outlives or operation.startswith(("IMPORT_", "LOAD_FROM_DICT", "LOAD_SUPER")):
            raise Mutable
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found.update(dict.fromkeys(_names(const)))
    return tuple(found)
