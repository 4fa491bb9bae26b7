"""Names of methods, transformations and searches: their files, and other spellings of them and of their options.

To add one, add a file in ``methods/``, ``transforms/`` or ``linesearches/``. The function with the name of the file is
its builder, and declares the other names (:func:`~jaxmin._cache.builder.builder`).
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxmin._cache.builder import Builder
from jaxmin._core.spelling import unknown

# The names of SciPy and others for the constants that searches share.
_SEARCH_OPTIONS = {"maxls": "max_trials", "c1": "sufficient", "c2": "curvature"}

# SciPy's methods that jaxmin does not have: they do without derivatives.
_NOT_OFFERED = ("cobyla", "cobyqa")


class Entry(NamedTuple):
    """One method, transformation or search."""

    package: str
    name: str
    build: Callable[..., Any]
    names: tuple[str, ...]  # its other names
    parameters: dict[str, str]  # each spelling of a parameter -> the parameter; without ``linesearch``
    required: tuple[str, ...]  # parameters without a default
    converters: Mapping[str, Callable[..., Any]]  # a parameter -> its converter
    absolute: bool  # whether its ftol and xtol are absolute

    @property
    def takes_search(self) -> bool:
        """Whether it takes a line search."""
        return "linesearch" in self.converters


def _entry(package: str, name: str, build: Builder[..., Any]) -> Entry:
    signature = inspect.signature(build).parameters
    own = [parameter for parameter in signature if parameter != "linesearch"]
    spellings = {parameter: parameter for parameter in own} | dict(build.declared.spellings)
    if package == "linesearches":
        spellings |= {spelling: to for spelling, to in _SEARCH_OPTIONS.items() if to in own}
    required = tuple(name for name, parameter in signature.items() if parameter.default is parameter.empty)
    aliases, _, converters, defaults = build.declared
    absolute = defaults is not None and defaults.absolute
    return Entry(package, name, build, aliases, spellings, required, converters, absolute)


@functools.cache
def entries(package: str) -> dict[str, Entry]:
    """All entries of "methods", "transforms" or "linesearches", by name."""
    folder = importlib.import_module(f"jaxmin.{package}")
    names = [module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_")]
    files = {name: importlib.import_module(f"jaxmin.{package}.{name}") for name in names}
    return {name: _entry(package, name, vars(file)[name]) for name, file in files.items()}


def methods_that(able: Callable[[Any], Any]) -> list[str]:
    """The names of the methods for which ``able(method)`` holds when they are built with their defaults."""
    return [name for name, entry in entries("methods").items() if able(entry.build())]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def find(argument: str, name: Any, *packages: str) -> Entry:
    """The entry with this name, in any spelling, in one of the packages.

    Raises:
      TypeError, ValueError, NotImplementedError: if nothing matches; the message begins with ``argument``.
    """
    offered = [entry for package in packages for entry in entries(package).values()]
    found = {_plain(spelling): entry for entry in offered for spelling in (entry.name, *entry.names)}
    if isinstance(name, str) and _plain(name) in found:
        return found[_plain(name)]
    names = [entry.name for entry in offered]
    choices = ", ".join(map(repr, names))
    if callable(name):
        raise TypeError(f"{argument}={name!r}: a function; call it to build one, or give one of {choices}")
    if argument == "method" and isinstance(name, str) and _plain(name) in _NOT_OFFERED:
        raise NotImplementedError(
            f"method={name!r}: not offered, since derivatives are automatic; use 'interior_point' or 'slsqp'. The "
            f"choices are {choices}"
        )
    aliases = [(alias, entry.name) for entry in offered for alias in entry.names]
    near = [name] if isinstance(name, str) else []
    raise ValueError(f"{argument}={name!r}: unknown{unknown(near, names, True, plain=_plain, aliases=aliases)}")
