"""A function as a key, where all that it can see is known never to change: a trace of it may then be cached.

A trace may not outlive a change in what was traced. ``jax.jit`` trusts its caller there; a person who
rebinds ``y`` in a notebook and calls again expects the new one. So a trace is cached only for a plain
function whose code does and names nothing but what is listed here: immutable values, functions alike, and
members of a few libraries that give the same for the same arguments. Whatever is not known to be so is not cached;
that costs a trace, never a compilation.
"""

import dis
import functools
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def _words(text):
    return frozenset(text.split())


# Exactly these: a class made from them may hold more than the value.
_VALUES = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_JITTED = type(jax.jit(lambda: None))
# Libraries whose functions give the same for the same arguments, except those that read files.
_PURE = frozenset(
    ("jax", "jaxlib", "jaxmin", "math", "cmath", "operator", "_operator", "functools", "_functools", "itertools")
)
_READS = frozenset(("load", "loadtxt", "genfromtxt", "fromfile", "memmap", "live_arrays"))
# NumPy holds files and random states too: of it, its ufuncs, its scalar types and these.
_NUMPY = _words("""
    array asarray arange linspace logspace geomspace zeros ones full eye identity diag tri tril triu dtype finfo
    iinfo sum prod mean std var min max amin amax dot vdot inner outer matmul einsum cumsum cumprod shape size
    ndim reshape ravel transpose concatenate stack vstack hstack tile repeat meshgrid where clip round isscalar
    result_type
""")
_BUILTINS = _words("""
    abs all any bool bytes callable complex dict divmod enumerate filter float frozenset hasattr hash int
    isinstance issubclass len list map max min pow range reversed round set slice sorted str sum tuple type zip
    Exception ValueError TypeError AssertionError NotImplementedError
""")
# What code may do: the operations of CPython 3.11 to 3.14 that change nothing that outlives a call. Code with any other
# operation, from a later Python for example, may change.
_GLOBALS, _CELLS, _MEMBERS = "LOAD_GLOBAL", "LOAD_DEREF", ("LOAD_ATTR", "LOAD_METHOD")
_OPERATIONS = _words("""
    LOAD_GLOBAL LOAD_DEREF LOAD_ATTR LOAD_METHOD
    BEFORE_WITH BINARY_OP BINARY_SLICE BINARY_SUBSCR BUILD_CONST_KEY_MAP BUILD_LIST BUILD_MAP BUILD_SET BUILD_SLICE
    BUILD_STRING BUILD_TUPLE CALL CALL_FUNCTION_EX CALL_INTRINSIC_1 CALL_KW CHECK_EXC_MATCH CLEANUP_THROW COMPARE_OP
    CONTAINS_OP CONVERT_VALUE COPY COPY_FREE_VARS DELETE_DEREF DELETE_FAST DELETE_SUBSCR DICT_MERGE DICT_UPDATE END_FOR
    END_SEND EXTENDED_ARG FORMAT_SIMPLE FORMAT_VALUE FORMAT_WITH_SPEC FOR_ITER GET_ITER GET_LEN GET_YIELD_FROM_ITER
    IS_OP JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT JUMP_FORWARD JUMP_IF_FALSE_OR_POP JUMP_IF_TRUE_OR_POP KW_NAMES
    LIST_APPEND LIST_EXTEND LIST_TO_TUPLE LOAD_ASSERTION_ERROR LOAD_CLOSURE LOAD_COMMON_CONSTANT LOAD_CONST LOAD_FAST
    LOAD_FAST_AND_CLEAR LOAD_FAST_BORROW LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST
    LOAD_SMALL_INT LOAD_SPECIAL MAKE_CELL MAKE_FUNCTION MAP_ADD MATCH_KEYS MATCH_MAPPING MATCH_SEQUENCE NOP NOT_TAKEN
    POP_EXCEPT POP_ITER POP_JUMP_BACKWARD_IF_FALSE POP_JUMP_BACKWARD_IF_NONE POP_JUMP_BACKWARD_IF_NOT_NONE
    POP_JUMP_BACKWARD_IF_TRUE POP_JUMP_FORWARD_IF_FALSE POP_JUMP_FORWARD_IF_NONE POP_JUMP_FORWARD_IF_NOT_NONE
    POP_JUMP_FORWARD_IF_TRUE POP_JUMP_IF_FALSE POP_JUMP_IF_NONE POP_JUMP_IF_NOT_NONE POP_JUMP_IF_TRUE POP_TOP PRECALL
    PUSH_EXC_INFO PUSH_NULL RAISE_VARARGS RERAISE RESUME RETURN_CONST RETURN_GENERATOR RETURN_VALUE SEND SET_ADD
    SET_FUNCTION_ATTRIBUTE SET_UPDATE STORE_DEREF STORE_FAST STORE_FAST_LOAD_FAST STORE_FAST_MAYBE_NULL
    STORE_FAST_STORE_FAST STORE_SLICE STORE_SUBSCR SWAP TO_BOOL UNARY_INVERT UNARY_NEGATIVE UNARY_NOT UNARY_POSITIVE
    UNPACK_EX UNPACK_SEQUENCE WITH_EXCEPT_START YIELD_VALUE
""")


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
    """Something that can change, or may change for all that is known."""


def key(value, seen=()):
    """A hashable key, equal only for what traces alike; raises ``Mutable`` where no key would be safe."""
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
        return name in _NUMPY or (isinstance(value, type) and issubclass(value, np.generic))
    return name in _BUILTINS if root == "builtins" else root in _PURE and name not in _READS


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
            if name not in _BUILTINS or name not in function.__builtins__:
                raise Mutable
            found.append(function.__builtins__[name])
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


@functools.lru_cache(maxsize=1024)
def _names(code):
    """What a piece of code, and code inside it, reads by name: (is it global, the name, the attributes taken of it).

    Raises ``Mutable`` for code that does what is not listed, writes to what outlives it, or looks inside objects.
    """
    found: dict = {}
    chain = None
    for instruction in dis.get_instructions(code):
        name, operation = instruction.argval, instruction.opname
        rebinds = operation in ("STORE_DEREF", "DELETE_DEREF") and name in code.co_freevars
        if operation not in _OPERATIONS or rebinds:
            raise Mutable
        if operation == "EXTENDED_ARG":
            continue
        if operation in _MEMBERS:
            if name.startswith("__"):
                raise Mutable
            if chain is not None:
                chain.append(name)
            continue
        if chain is not None:
            found[tuple(chain)] = None
        chain = [operation == _GLOBALS, name] if operation in (_GLOBALS, _CELLS) else None
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found.update(dict.fromkeys(_names(const)))
    return tuple(found)
