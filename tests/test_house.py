"""The wings of the house: imports run one way, from the public calls down to the vocabulary. Its words are plain."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

import jaxmin

PACKAGE = pathlib.Path(jaxmin.__file__).parent
# Each wing imports from those before it, and from itself.
WINGS = ("_core", "_cache", "linesearches", "methods", "transforms", "_problem", "_interop", "_driver", "_api", "_demo")


def imported(file):
    """The wings that a file imports from, wherever in it the import stands."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{name.name}" for node in nodes for name in node.names]
    return {name.split(".")[1] for name in names if name.startswith("jaxmin.")} & set(WINGS)


def test_imports_run_one_way():
    backwards = [
        f"{file.relative_to(PACKAGE)} imports from {wing}"
        for number, here in enumerate(WINGS)
        for file in sorted((PACKAGE / here).glob("*.py"))
        for wing in imported(file) - set(WINGS[: number + 1])
    ]
    assert not backwards, "\n".join(backwards)


def test_every_file_is_in_a_wing_or_public():
    public = {"__init__.py", "__main__.py", "extend.py", "datasets", "sets", "py.typed"}
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == public | set(WINGS)


# ---- the words

# Words that plain English does not need. "is None" is Python.
WORDS = re.compile(
    r"\b(told|seldom|nobody|anew|lest|whoever|trips?|for ever|that one|of which|of what|(?-i:is none))\b", re.IGNORECASE
)
TEXT = {"COMMENT", "STRING", "FSTRING_MIDDLE"}
BETWEEN = {"NL", "FSTRING_START", "FSTRING_END"}


def passages(source):
    """The comments and strings of a file, as (line, text); those that follow each other are one."""
    line, parts = 0, []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind in TEXT:
            line = line if parts else token.start[0]
            parts.append(re.sub(r"^(#|[a-z]*[\"']+)|[\"']+$", "", token.string, flags=re.IGNORECASE).strip())
        elif kind not in BETWEEN and parts:
            yield line, " ".join(" ".join(parts).split())
            parts = []


def unplain(source):
    """The lines with such words, each with the words."""
    found = ((line, WORDS.findall(text)) for line, text in passages(source))
    return [f"{line}: {', '.join(words)}" for line, words in found if words]


def test_the_source_keeps_to_plain_words():
    files = [file.relative_to(PACKAGE).as_posix() for file in sorted(PACKAGE.rglob("*.py"))]
    wrong = [f"{file}:{line}" for file in files for line in unplain((PACKAGE / file).read_text("utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "# Seldom true.\n", 'f"""A point\n\nof which x is {x} told."""\n', "# The case, of\n# which there are two.\n",
        'error("use that " "one")\n', 'f(  # x\n    "a trip"\n)\n',
    ],
)  # fmt: skip
def test_such_words_are_found(source):
    assert unplain(source)


def test_names_and_plain_words_are_not_such_words():
    assert not unplain("told = None  # where it is None, a triple or atold is fine; the only one\n")
