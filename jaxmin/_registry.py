"""Names: which file a method or a search is in, how SciPy and others spell it and its options.

A file in ``methods/`` or ``linesearches/`` is all that it takes to add one: the function that has the
file's name is the builder. The file may say more:

- ``names``: other names for it;
- ``options``: other names for the builder's parameters;
- ``tol_sets``: which tolerances ``tol`` stands for, ("gtol",) where nothing is said.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One method or search."""

    name: str
    build: Callable[..., Any]
    parameters: dict  # every spelling of a parameter -> the parameter
    tol_sets: tuple


@functools.cache
def entries(package):
    """All entries of "methods" or "linesearches", by name."""
    folder = importlib.import_module(f"jaxmin.{package}")
    found = {}
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name.startswith("_"):
            continue
        file = importlib.import_module(f"jaxmin.{package}.{module.name}")
        build = getattr(file, module.name)
        own = [name for name in inspect.signature(build).parameters if name != "linesearch"]
        spellings = {name: name for name in own} | getattr(file, "options", {})
        found[module.name] = Entry(module.name, build, spellings, getattr(file, "tol_sets", ("gtol",)))
    return found


@functools.cache
def _spellings(package):
    known = {}
    for name in entries(package):
        file = importlib.import_module(f"jaxmin.{package}.{name}")
        for spelling in (name, *getattr(file, "names", ())):
            known[_plain(spelling)] = name
    return known


def _plain(name):
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def find(package, argument, name):
    """The entry of that name, in anybody's spelling."""
    known = _spellings(package)
    if not isinstance(name, str) or _plain(name) not in known:
        choices = ", ".join(repr(choice) for choice in entries(package))
        raise ValueError(f"{argument}={name!r}: unknown; the choices are {choices}")
    return entries(package)[known[_plain(name)]]
