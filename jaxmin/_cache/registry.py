"""Names: which file a method, a transformation or a search is in, how SciPy and others spell it and its options.

A file in ``methods/``, ``transforms/`` or ``linesearches/`` is all that it takes to add one: the function that has the
file's name is the builder. The file may say more:

- ``names``: other names for it;
- ``options``: other names for the builder's parameters;
- ``search_defaults``: constants of its line search that differ from the search's own;
- ``tol_sets``: which tolerances ``tol`` stands for, ("gtol",) where nothing is said;
- ``limits``: when to stop by default, where that is its own; ``maxiter`` and ``maxfun`` as functions of the
  number of variables.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

# What SciPy and others call the constants that searches share.
_SEARCH_OPTIONS = {"maxls": "max_trials", "c1": "sufficient", "c2": "curvature"}

# SciPy's methods that are still to come.
_NOT_YET = (
    "cobyla", "cobyqa", "slsqp", "trustconstr",
)  # fmt: skip


class Entry(NamedTuple):
    """One method, transformation or search."""

    package: str
    name: str
    build: Callable[..., Any]
    parameters: dict  # every spelling of a parameter -> the parameter
    required: tuple  # parameters without a default
    takes_search: bool
    tol_sets: tuple
    search_defaults: dict
    names: tuple  # other names for it
    limits: dict  # limits of its own


@functools.cache
def entries(package):
    """All entries of "methods", "transforms" or "linesearches", by name."""
    folder = importlib.import_module(f"jaxmin.{package}")
    found = {}
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name.startswith("_"):
            continue
        file = importlib.import_module(f"jaxmin.{package}.{module.name}")
        build = getattr(file, module.name)
        signature = inspect.signature(build).parameters
        own = [name for name in signature if name != "linesearch"]
        spellings = {name: name for name in own} | getattr(file, "options", {})
        if package == "linesearches":
            spellings |= {name: to for name, to in _SEARCH_OPTIONS.items() if to in own}
        found[module.name] = Entry(
            package,
            module.name,
            build,
            spellings,
            tuple(name for name, parameter in signature.items() if parameter.default is parameter.empty),
            "linesearch" in signature,
            getattr(file, "tol_sets", ("gtol",)),
            getattr(file, "search_defaults", {}),
            getattr(file, "names", ()),
            getattr(file, "limits", {}),
        )
    return found


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


def made_by(method):
    """The entry whose file a ``Method``'s own update is in; None for what ``descend`` or somebody else made."""
    file = getattr(method.update, "__module__", None)
    return next((entry for entry in entries("methods").values() if entry.build.__module__ == file), None)


def build_search(name, defaults, **constants):
    """The line search of that name, with a method's defaults where its builder has such a constant."""
    entry = find("linesearch", name, "linesearches")
    known = {key: value for key, value in defaults.items() if key in entry.parameters}
    return entry.build(**(known | constants))
