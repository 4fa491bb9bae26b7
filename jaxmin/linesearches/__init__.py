"""The line searches, one file each. The function with the name of the file builds the search."""

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
        """The search of that name; None means the method's default."""
        return find("linesearch", self.own if value is None else value, "linesearches")

    def __call__(self, value: LineSearch | str | None, **constants: Any) -> LineSearch:
        if isinstance(value, LineSearch):
            return value
        entry = self.entry(value)
        known = {name: constant for name, constant in self.defaults.items() if name in entry.parameters}
        return entry.build(**(known | constants))


def search(own: str = "backtracking", /, **defaults: Any) -> SearchConverter:
    """The converter for a method's parameter ``linesearch``: it turns an argument into a ``LineSearch``.

    A ``LineSearch`` is returned unchanged. A name, in any spelling, is built with those of the ``defaults`` that the
    search has as parameters. None means the name ``own``.

    Args:
      own: the name of the method's default search; "backtracking" by default.
      defaults: constants of searches that suit the method better than the defaults of the searches.

    Returns:
      A function for ``@builder(converters={"linesearch": search(curvature=0.4)})``. It raises a ValueError for an
      unknown name.

    >>> import jaxmin
    >>> from jaxmin.extend import search
    >>> search(curvature=0.4)("strong-wolfe") is jaxmin.wolfe(curvature=0.4)
    True
    """
    return SearchConverter(own, defaults)
