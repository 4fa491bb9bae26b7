"""@builder: checks constants by name, and returns one object for equal constants, so that nothing recompiles."""

import functools
import inspect
import math
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, get_args, get_origin, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache import purity
from jaxmin._core.protocol import Defaults, Limit, Method
from jaxmin._core.spelling import refuse_unknown

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Declaration(NamedTuple):
    """The declarations of a builder; see :func:`builder`."""

    aliases: tuple[str, ...]
    spellings: Mapping[str, str]
    converters: Mapping[str, Callable[..., Any]]
    defaults: Defaults | None  # None: those of the method that it builds


class Builder(Protocol[P, R_co]):
    """A function that builds a method, a search or a transformation, with its declarations."""

    declared: Declaration

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@overload
def builder(build: Callable[P, R], /) -> Builder[P, R]: ...


@overload
def builder(
    *,
    aliases: Iterable[str] = (),
    spellings: Mapping[str, str] | None = None,
    tol: Iterable[str] | None = None,
    limits: Mapping[str, Limit] | None = None,
    absolute: bool = False,
    converters: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[[Callable[P, R]], Builder[P, R]]: ...


def builder(
    build: Callable[..., Any] | None = None,
    /,
    *,
    aliases: Iterable[str] = (),
    spellings: Mapping[str, str] | None = None,
    tol: Iterable[str] | None = None,
    limits: Mapping[str, Limit] | None = None,
    absolute: bool = False,
    converters: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """Wrap a builder: it checks the kind of each constant, and calls with equal constants build once.

    A constant has the kind of its default: True or False, a whole number, or a number. The annotation of a parameter
    gives the kind where there is no default. It also allows other values: ``float | None`` allows None,
    ``float | jax.Array`` a traced scalar, a ``Callable`` a schedule, and a class its instances.

    Args:
      build: the function, for a builder without declarations: ``@builder``.
      aliases: other names of the method, search or transformation, for ``minimize``; () by default.
      spellings: a dictionary from other names of parameters to the parameters, for ``options``; empty by default.
      tol: the tolerances that the argument ``tol`` sets; ("gtol",) by default.
      limits: a dictionary of the method's own tolerances and limits, numbers or :class:`PerVariable`; empty by
        default.
      absolute: whether the method's ftol and xtol are absolute, so that they also have SciPy's names fatol and xatol;
        False by default.
      converters: a dictionary from a parameter to a function that checks its value and returns the value for
        ``build``, which must be hashable if nothing in it is traced: ``{"linesearch": search(curvature=0.4)}``. Empty
        by default.

    Returns:
      The wrapped function; or a decorator, if called with keywords only. The wrapped function raises a TypeError or a
      ValueError for an unknown parameter, or for a constant that is not of its kind. The decorator raises a ValueError
      for a declaration that names no parameter or no limit.

    >>> from jaxmin.extend import LineSearch, Method, builder, search
    >>> @builder(aliases=("sd",), converters={"linesearch": search()})
    ... def steepest(linesearch: LineSearch | str | None = None) -> Method: ...
    """
    defaults = None
    if tol is not None or limits is not None or absolute:
        defaults = Defaults(("gtol",) if tol is None else tuple(tol), tuple((limits or {}).items()), absolute)
    declared = Declaration(tuple(aliases), dict(spellings or {}), dict(converters or {}), defaults)
    if build is None:
        return lambda build: _wrapped(build, declared)
    return _wrapped(build, declared)


def _check_declared(name: str, signature: inspect.Signature, declared: Declaration) -> None:
    """Raise for a declaration that names a parameter or a limit that does not exist."""
    tol, limits, _ = declared.defaults or Defaults()
    for what, names, known in (
        ("spellings", declared.spellings.values(), tuple(signature.parameters)),
        ("converters", declared.converters, tuple(signature.parameters)),
        ("tol", tol, ("gtol", "ftol", "xtol")),
        ("limits", [limit for limit, _ in limits], ("gtol", "ftol", "xtol", "maxiter", "maxfun")),
    ):
        for given in names:
            if given not in known:
                raise ValueError(f"{name}: {what} names {given!r}; the choices are {', '.join(map(repr, known))}")


def _wrapped(build: Callable[..., Any], declared: Declaration) -> Any:
    signature = inspect.signature(build, eval_str=True)
    _check_declared(build.__name__, signature, declared)
    cached = _built_once(build, declared.defaults)

    @functools.wraps(build)
    def checked(*args: Any, **kwargs: Any) -> Any:
        refuse_unknown(build.__name__, kwargs, signature.parameters)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            known = ", ".join(signature.parameters)
            raise TypeError(f"{build.__name__}: {error}; its parameters are {known}") from None
        bound.apply_defaults()
        constants = {}
        for name, value in bound.arguments.items():
            convert = declared.converters.get(name)
            constants[name] = _constant(signature.parameters[name], value) if convert is None else convert(value)
        return cached(**constants)

    checked.declared = declared  # type: ignore[attr-defined]  # a function takes attributes
    return checked


def _built_once(build: Callable[..., Any], defaults: Defaults | None) -> Callable[..., Any]:
    """Build once for equal constants, and at each call if one is traced, or is a function whose results may change."""

    def built(constants: dict[str, Any]) -> Any:
        made = build(**constants)
        return made._replace(defaults=defaults) if isinstance(made, Method) and defaults is not None else made

    @functools.lru_cache(maxsize=256)
    def cached(keys: Any, **constants: Any) -> Any:
        del keys
        made = built(constants)
        if isinstance(made, tuple) and all(map(is_constant, constants.values())):
            _CONSTANT.update(_functions(made))
        return made

    def of(**constants: Any) -> Any:
        try:
            keys = tuple(map(_key, constants.values()))
        except (purity.Mutable, TypeError):
            return built(constants)
        return cached(keys, **constants)

    return of


# The functions in records that were built from constants only.
_CONSTANT: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


def _functions(record: tuple[Any, ...]) -> Iterator[Callable[..., Any]]:
    """The functions in a record and in the records that it holds."""
    for part in record:
        if callable(part):
            yield part
        elif isinstance(part, tuple):
            yield from _functions(part)


def is_constant(value: Any) -> bool:
    """Whether a constant of a builder, or a record that a builder returned, certainly holds nothing traced."""
    if isinstance(value, tuple):
        return all(part in _CONSTANT if callable(part) else is_constant(part) for part in value)
    return True  # it has a key, or is a number


def _key(value: Any) -> Any:
    """A key that must be equal too before a cached record is used; raises if the value cannot be cached."""
    if isinstance(value, jax.Array):
        raise purity.Mutable
    hash(value)
    return purity.key(value) if callable(value) else None


def _constant(parameter: inspect.Parameter, value: Any) -> Any:
    """The value in the form of its parameter; raises if the value is not of the parameter's kind."""
    name, default, kinds = parameter.name, parameter.default, _kinds(parameter.annotation)
    classes = tuple(kind for kind in kinds if isinstance(kind, type) and kind not in (float, int, bool, jax.Array))
    if isinstance(value, classes) or (jax.Array in kinds and _is_traced_number(value)):
        return value
    if any(get_origin(kind) is Callable for kind in kinds):
        return _rate(name, value)
    if isinstance(default, bool) or bool in kinds:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        raise TypeError(f"{name}={value!r}: True or False")
    whole = int in kinds or (isinstance(default, int) and float not in kinds)
    if classes and not (whole or float in kinds):
        choices = " or ".join("None" if kind is NoneType else f"a {kind.__name__}" for kind in classes)
        raise TypeError(f"{name}={value!r}: {choices}")
    try:
        return _number(value, _whole if whole else float)
    except Exception:  # also of a tracer, or of an array of several numbers
        known = " or a traced scalar" if jax.Array in kinds else ", known while compiling (not traced)"
        known = known if isinstance(value, jax.Array) else ""
        raise TypeError(f"{name}={value!r}: {'a whole number' if whole else 'a number'}{known}") from None


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, or the annotation itself; () without an annotation."""
    if annotation is inspect.Parameter.empty:
        return ()
    return (annotation,) if get_origin(annotation) is Callable else get_args(annotation) or (annotation,)


def _whole(value: Any) -> int:
    """The value as an integer; 10.0 is one too."""
    return int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)


def _number(value: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, (str, bytes, bool, NoneType)) or np.ndim(value) != 0:
        raise TypeError
    return convert(value)


def _is_traced_number(value: Any) -> bool:
    if not isinstance(value, jax.core.Tracer) or value.ndim != 0:
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)


def _rate(name: str, value: Any) -> Any:
    """A finite number, or a schedule."""
    if callable(value):
        return value
    try:
        rate = _number(value, float)
    except Exception:
        raise TypeError(
            f"{name}={value!r}: give a number, a traced scalar, or a schedule (a callable of the iteration index)"
        ) from None
    if not math.isfinite(rate):
        raise ValueError(f"{name}={value!r}: a finite number")
    return rate
