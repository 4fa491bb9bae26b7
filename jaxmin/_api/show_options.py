"""show_options: the options of a method, from the table of options and the docstrings of the builders."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxmin._api import options as table
from jaxmin._cache.registry import Entry, find
from jaxmin._core.protocol import Defaults, PerDtype, PerVariable

# The limits of methods for constraints alone.
_OF_CONSTRAINTS = {"ctol", "barrier_tol"}
_WIDTH = 88


def show_options(method: str = "lbfgs", linesearch: str | None = None, disp: bool = True) -> str | None:
    r"""Print the options of a method: names, other spellings, defaults and meanings, as in SciPy's ``show_options``.

    Args:
      method: the name of a method or a transformation, in any spelling; "lbfgs" by default.
      linesearch: the name of a line search, whose options are shown too; None (default) means the method's own.
      disp: True (default) prints; False returns the text instead.

    Returns:
      None, or the text as one string.

    Raises:
      ValueError, TypeError: for an unknown name; the message has the choices.
      NotImplementedError: for a method of SciPy that jaxmin does not have.

    >>> import jaxmin
    >>> text = jaxmin.show_options("cg", disp=False)
    >>> print(*text.splitlines()[:3], sep="\n")
    The options of 'cg':
      eta = 0.4
          the truncation, > 0; 0.4 by default [2].
    """
    entry = find("method", method, "methods", "transforms")
    text = "\n".join(line for title, rows in tables(entry, linesearch) for line in _lines(title, rows))
    if not disp:
        return text
    print(text)
    return None


class Row(NamedTuple):
    """An option of a method."""

    name: str
    spellings: tuple[str, ...]  # its other names
    default: str  # in words
    meaning: str


def tables(entry: Entry, linesearch: str | None = None) -> Iterator[tuple[str, list[Row]]]:
    """The options of a method: those of its builder, of its line search and of every call, each with a title."""
    yield f"The options of {entry.name!r}", list(_of_builder(entry, {}))
    converter: Any = entry.converters.get("linesearch")
    if converter is None and linesearch is not None:
        raise ValueError(f"linesearch={linesearch!r}: method {entry.name!r} takes none; omit it")
    if converter is not None:
        search = converter.entry(linesearch)
        yield f"The options of its line search, {search.name!r}", list(_of_builder(search, converter.defaults))
    yield "The options of every call", list(_of_calls(entry))


def _of_builder(entry: Entry, defaults: Any) -> Iterator[Row]:
    """Those of a builder; ``defaults`` are a method's own for its search."""
    meanings = _meanings(entry)
    for name, parameter in inspect.signature(entry.build).parameters.items():
        if name == "linesearch":
            continue
        value = defaults.get(name, parameter.default)
        shown = "required" if value is parameter.empty else repr(value)
        spellings = tuple(spelling for spelling, to in entry.parameters.items() if to == name and spelling != name)
        own = f" This method has {value!r}." if value != parameter.default else ""
        yield Row(name, spellings, shown, meanings.get(name, "") + own)
    if entry.package == "transforms":
        yield Row(table.CLIP.name, (), repr(table.CLIP.default), table.CLIP.text)


def _of_calls(entry: Entry) -> Iterator[Row]:
    """Those of every call, with the method's own defaults."""
    method = entry.build() if entry.package == "methods" else None
    defaults = Defaults() if method is None else method.defaults
    constrained = method is not None and "constraints" in method.wants
    own: dict[str, Any] = dict(defaults.limits)
    relative = set(table.ABSOLUTES.values())
    for row in table.TABLE:
        left_out = row.whose in (table.FIXED, table.REFUSED) or (row.whose == table.ABSOLUTE and not entry.absolute)
        if left_out or (row.name in _OF_CONSTRAINTS and not constrained) or (row.name in relative and entry.absolute):
            continue
        value = own.get(row.name, row.default)
        off = row.whose == table.LIMIT and (value is None or (isinstance(value, float) and value < 0))
        meant = table.ABSOLUTES.get(row.name, row.name)
        sets = "; the argument tol sets it" if meant in defaults.tol else ""
        yield Row(row.name, row.spellings, "off" if off else _shown(value), row.text + sets)


def _shown(value: Any) -> str:
    """A default in words."""
    if isinstance(value, PerVariable):
        return f"{value.times} n"
    if isinstance(value, PerDtype):
        return f"{value.double:g} ({value.single:g} in float32)"
    return repr(value)


def _lines(title: str, rows: list[Row]) -> Iterator[str]:
    """The lines of a table as text."""
    yield f"{title}:"
    for row in rows:
        others = f" (or {', '.join(row.spellings)})" if row.spellings else ""
        yield f"  {row.name} = {row.default}{others}"
        yield from textwrap.wrap(row.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    if not rows:
        yield "  none"


def _meanings(entry: Entry) -> dict[str, str]:
    """The parameters in the docstring of a builder, and what it says of them."""
    found: dict[str, str] = {}
    names: list[str] = []
    lines = (inspect.getdoc(entry.build) or "").split("\n")
    begin = lines.index("Args:") + 1 if "Args:" in lines else len(lines)
    for line in lines[begin:]:
        if line.strip() and not line.startswith("  "):
            break
        head = re.match(r"  (\w+(?:, \w+)*): (.*)", line)
        if head is not None:
            names = head.group(1).split(", ")
        text = line.strip() if head is None else head.group(2)
        found |= {name: f"{found.get(name, '')} {text}".strip() for name in names}
    plain = lambda text: re.sub(r":math:`([^`]*)`", r"\1", text).replace("\\", "").replace("``", "")
    return {name: plain(text) for name, text in found.items()}
