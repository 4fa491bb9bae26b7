"""@builder: constants checked by name, and equal constants give the same object, so that nothing recompiles."""

import functools
import inspect
import operator

import numpy as np

from jaxmin._method import LineSearch


def builder(build):
    """Wrap a builder: each constant must be of its default's kind; calls with equal constants build once.

    A parameter ``linesearch`` takes a ``LineSearch``, a search's name or None. A number may be None only
    where its default is, or where ``curvature`` or ``step`` says so in the builder's own docstring.
    """
    signature = inspect.signature(build)
    cached = functools.lru_cache(maxsize=256)(build)

    @functools.wraps(build)
    def checked(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        kinds = {name: parameter.default for name, parameter in signature.parameters.items()}
        return cached(**{name: _constant(name, value, kinds[name]) for name, value in bound.arguments.items()})

    return checked


_MAY_BE_NONE = ("curvature", "step")


def _constant(name, value, default):
    if name == "linesearch":
        return _search(value)
    if value is None and name in _MAY_BE_NONE:
        return None
    if isinstance(default, bool):
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        raise TypeError(f"{name}={value!r}: True or False")
    kind = "a whole number" if isinstance(default, int) else "a number"
    try:
        if isinstance(value, (str, bool, type(None))):
            raise TypeError
        return operator.index(value) if isinstance(default, int) else float(value)
    except Exception:  # also of a tracer, or of an array of several numbers
        raise TypeError(f"{name}={value!r}: {kind}, known while compiling (not traced)") from None


def _search(value):
    if value is None or isinstance(value, LineSearch):
        return value
    from jaxmin._registry import find  # the registry imports the builders' files

    return find("linesearches", "linesearch", value).build()
