"""@builder: constants checked by name, and equal constants give the same object, so that nothing recompiles."""

import functools
import inspect
import math
import operator
import weakref
from types import NoneType
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache import purity
from jaxmin._core.protocol import LineSearch


def builder(build):
    """Wrap a builder: each constant must be of its kind; calls with equal constants build once.

    A constant is of its default's kind: True or False, a whole number, or a number, which is what it is
    without a default too. An annotation says what else is welcome: ``float | None`` and ``int | None`` None,
    ``float | jax.Array`` a traced scalar. Two names have kinds of their own: ``linesearch`` takes a
    ``LineSearch``, a search's name (built with the file's ``search_defaults``) or None; ``learning_rate``
    a number, a traced scalar or a schedule, a callable of the iteration index.
    """
    signature = inspect.signature(build)
    kept = once(build)

    @functools.wraps(build)
    def checked(*args, **kwargs):
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            known = ", ".join(signature.parameters)
            raise TypeError(f"{build.__name__}: {error}; its parameters are {known}") from None
        bound.apply_defaults()
        constants = {}
        for name, value in bound.arguments.items():
            if name == "linesearch":
                constants[name] = _search(value, build.__globals__.get("search_defaults", {}))
            else:
                constants[name] = _constant(signature.parameters[name], value)
        return kept(**constants)

    return checked


def once(build):
    """Build once for equal constants; anew where one is traced, or a function that may come to see another value."""

    @functools.lru_cache(maxsize=256)
    def kept(keys, **constants):
        del keys
        built = build(**constants)
        if isinstance(built, tuple) and all(map(is_constant, constants.values())):
            _CONSTANT.update(filter(callable, built))
        return built

    def of(**constants):
        try:
            keys = tuple(map(_key, constants.values()))
        except (purity.Mutable, TypeError):
            return build(**constants)
        return kept(keys, **constants)

    return of


# The functions in records that were built of constants alone.
_CONSTANT: weakref.WeakSet = weakref.WeakSet()


def is_constant(value):
    """Whether a constant of a builder, or a record that one gave, holds nothing traced for certain."""
    if isinstance(value, tuple):
        return all(part in _CONSTANT if callable(part) else is_constant(part) for part in value)
    return True  # it has a key, or is a number


def _key(value):
    """What must be the same beside the value itself; raises where nothing could be."""
    if isinstance(value, jax.Array):
        raise purity.Mutable
    hash(value)
    return purity.key(value) if callable(value) else None


def _constant(parameter, value):
    name, default, others = parameter.name, parameter.default, get_args(parameter.annotation)
    if name == "learning_rate":
        return _rate(value)
    if (value is None and NoneType in others) or (jax.Array in others and _is_traced_number(value)):
        return value
    if isinstance(default, bool):
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        raise TypeError(f"{name}={value!r}: True or False")
    whole = isinstance(default, int) or int in others
    kind = "a whole number" if whole else "a number"
    try:
        return _number(value, _whole if whole else float)
    except Exception:  # also of a tracer, or of an array of several numbers
        known = " or a traced scalar" if jax.Array in others else ", known while compiling (not traced)"
        known = known if isinstance(value, jax.Array) else ""
        raise TypeError(f"{name}={value!r}: {kind}{known}") from None


def _whole(value):
    """The integer that it is; 10.0 is one too."""
    return int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)


def _number(value, convert):
    if isinstance(value, (str, bytes, bool, NoneType)) or np.ndim(value) != 0:
        raise TypeError
    return convert(value)


def _is_traced_number(value):
    if not isinstance(value, jax.core.Tracer) or value.ndim != 0:
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)


def _rate(value):
    if callable(value) or _is_traced_number(value):
        return value
    try:
        rate = _number(value, float)
    except Exception:
        raise TypeError(
            f"learning_rate={value!r}: a number, a traced scalar, or a schedule (a callable of the iteration index)"
        ) from None
    if not math.isfinite(rate):
        raise ValueError(f"learning_rate={value!r}: a finite number")
    return rate


def _search(value, defaults):
    if value is None or isinstance(value, LineSearch):
        return value
    from jaxmin._cache.registry import build_search  # the registry imports the builders' files

    return build_search(value, defaults)
