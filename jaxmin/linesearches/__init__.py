"""The line searches: one file each. A file's function of the same name builds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmin._cache.registry import Entry, find
from jaxmin._core.protocol import LineSearch


@dataclass(frozen=True)
class SearchConverter:
    """See :func:`search`."""

    own: str
    defaults: Mapping[str, Any]

    def entry(self, value: str | None) -> Entry:
        """The search of that name; None is the method's own."""
        return find("linesearch", self.own if value is None else value, "linesearches")

    def __call__(self, value: LineSearch | str | None, **constants: Any) -> LineSearch:
        if isinstance(value, LineSearch):
            return value
        entry = self.entry(value)
        known = {name: constant for name, constant in self.defaults.items() if name in entry.parameters}
        return entry.build(**(known | constants))


def search(own: str = "backtracking", /, **defaults: Any) -> SearchConverter:
    """The converter of a method's parameter ``linesearch``: it makes a ``LineSearch`` of what was given.

    A ``LineSearch`` stays as it is. A name, in anybody's spelling, is built with ``defaults``, as far as the search has
    such parameters. None stands for the name ``own``.

    Args:
      own: the name of the method's own search; "backtracking" by default.
      defaults: constants of searches that suit the method better than their own.

    Returns:
      A function for ``@builder(converters={"linesearch": search(curvature=0.4)})``.

    >>> import jaxmin
    >>> from jaxmin.extend import search
    >>> search(curvature=0.4)("strong-wolfe") is jaxmin.wolfe(curvature=0.4)
    True
    """
    return SearchConverter(own, defaults)
