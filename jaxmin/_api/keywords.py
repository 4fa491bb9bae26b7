"""The keywords of the public calls: a wrong one is refused with the nearest one, and an option with its place."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from jaxmin._api.options import spellings
from jaxmin._core.spelling import refuse_unknown

P = ParamSpec("P")
R = TypeVar("R")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """The function with a better message for an unknown keyword than Python's own."""
    names = tuple(inspect.signature(function).parameters)
    known = frozenset(names)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not kwargs.keys() <= known:
            refuse_unknown(function.__name__, kwargs, names, spellings())
        return function(*args, **kwargs)

    return call
