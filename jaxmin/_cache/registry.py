"""Names: which file a method, a transformation or a search is in, how SciPy and others spell it and its options.

A file in ``methods/``, ``transforms/`` or ``linesearches/`` is all that it takes to add one: the function that has the
file's name is the builder, and declares its other names (:func:`~jaxmin._cache.builder.builder`).
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# What SciPy and others call the constants that searches share.
_SEARCH_OPTIONS = {"maxls": "max_trials", "c1": "sufficient", "c2": "curvature"}

# SciPy's methods that are still to come.
_NOT_YET = ("cobyla", "cobyqa", "slsqp", "trustconstr")


class Entry(NamedTuple):
    """One method, transformation or search."""

    package: str
    name: str
    build: Callable[..., Any]
    names: tuple[str, ...]  # other names for it
    parameters: dict[str, str]  # every spelling of a parameter but ``linesearch`` -> the parameter
    required: tuple[str, ...]  # parameters without a default
    converters: Mapping[str, Callable[..., Any]]  # of parameters

    @property
    def takes_search(self) -> bool:
        return "linesearch" in self.converters


def _entry(package, name, build):
    signature = inspect.signature(build).parameters
    own = [parameter for parameter in signature if parameter != "linesearch"]
    spellings = {parameter: parameter for parameter in own} | build.declared.spellings
    if package == "linesearches":
        spellings |= {spelling: to for spelling, to in _SEARCH_OPTIONS.items() if to in own}
    required = tuple(name for name, parameter in signature.items() if parameter.default is parameter.empty)
    return Entry(package, name, build, build.declared.aliases, spellings, required, build.declared.converters)


@functools.cache
def entries(package):
    """All entries of "methods", "transforms" or "linesearches", by name."""
    folder = importlib.import_module(f"jaxmin.{package}")
    names = [module.name for module in pkgutil.iter_modules(folder.__path__) if not module.name.startswith("_")]
    files = {name: importlib.import_module(f"jaxmin.{package}.{name}") for name in names}
    return {name: _entry(package, name, vars(file)[name]) for name, file in files.items()}


def methods_that(able):
    """The names of the methods that, built by default, are able: ``able(method)``."""
    return [name for name, entry in entries("methods").items() if able(entry.build())]


def _plain(name):
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def find(argument, name, *packages):
    """The entry of that name in one of the packages, in anybody's spelling."""
    found = {
        _plain(spelling): entry
        for package in packages
        for entry in entries(package).values()
        for spelling in (entry.name, *entry.names)
    }
    if isinstance(name, str) and _plain(name) in found:
        return found[_plain(name)]
    choices = ", ".join(repr(choice) for package in packages for choice in entries(package))
    if callable(name):
        raise TypeError(f"{argument}={name!r}: a function; call it to build one, or name one of {choices}")
    if argument == "method" and isinstance(name, str) and _plain(name) in _NOT_YET:
        raise NotImplementedError(f"method={name!r}: not offered yet; the choices are {choices}")
    raise ValueError(f"{argument}={name!r}: unknown; the choices are {choices}")
