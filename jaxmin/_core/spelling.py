"""Unknown names: what to say of them, with the nearest ones."""

import difflib
from collections.abc import Callable, Iterable

# Names that share less of their letters are different words.
_ALIKE = 0.7


def unknown(
    names: Iterable[object], choices: Iterable[str], quoted: bool = False, hint: str = "",
    plain: Callable[[str], str] = str.lower, aliases: Iterable[tuple[str, str]] = (),
) -> str:  # fmt: skip
    """The end of a message about unknown names: the nearest choice to each, and all choices.

    Args:
      names: the unknown names.
      choices: the names that there are.
      quoted: whether the choices stand in quotes.
      hint: a sentence to stand where no name is near.
      plain: the form in which spellings are compared.
      aliases: pairs of another spelling and the choice that it means.
    """
    choices = list(choices)
    meant = dict(aliases) | {choice: choice for choice in choices}
    spellings = {plain(spelling): choice for spelling, choice in meant.items()}
    near = [
        spellings[match]
        for name in names
        for match in difflib.get_close_matches(plain(str(name)), spellings, 1, _ALIKE)
    ]
    listed = f"choices are {', '.join(map(repr, choices) if quoted else choices)}"
    if near:
        return f"; did you mean {' and '.join(map(repr, dict.fromkeys(near)))}? The {listed}"
    return f"; {hint} The {listed}" if hint else f"; the {listed}"


def refuse_unknown(function: str, keywords: Iterable[str], known: Iterable[str], options: Iterable[str] = ()) -> None:
    """Raise a TypeError for keywords that the function does not have.

    Args:
      function: its name.
      keywords: those of the call.
      known: its own.
      options: keywords that belong into its argument ``options``.
    """
    known = list(known)
    for name in keywords:
        if name in known:
            continue
        if name in set(options):
            raise TypeError(f"{function}: unknown keyword {name!r}; it is an option: options={{{name!r}: ...}}")
        raise TypeError(f"{function}: unknown keyword {name!r}{unknown([name], known)}")
