"""The wings of the house: imports run one way, from the public calls down to the vocabulary."""

import ast
import pathlib

import jaxmin

PACKAGE = pathlib.Path(jaxmin.__file__).parent
# Each wing imports from those before it, and from itself.
WINGS = ("_core", "_cache", "linesearches", "methods", "transforms", "_problem", "_interop", "_driver", "_api")


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
    public = {"__init__.py", "__main__.py", "extend.py", "datasets", "py.typed"}
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == public | set(WINGS)
