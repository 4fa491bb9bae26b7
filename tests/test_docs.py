"""Worked examples of the pages are drop-in files, and no page imports a private module."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import jaxmin

ROOT = pathlib.Path(__file__).parent.parent
WHERE = {"polak_ribiere": "methods", "barzilai_borwein": "methods", "goldstein": "linesearches"}
ONE_EACH = "test_a_convex and (polak_ribiere-backtracking or barzilai_borwein or lbfgs-goldstein)"
ALL = "polak_ribiere or barzilai_borwein or goldstein"


def conformance(folder, which):
    """The outcome of the conformance tests, run on a copy of the package with the worked examples in their places."""
    package = pathlib.Path(jaxmin.__file__).parent
    shutil.copytree(package, folder / "jaxmin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for example in (ROOT / "docs" / "examples").glob("*.py"):
        shutil.copy(example, folder / "jaxmin" / WHERE[example.stem])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", which]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_one_file_makes_a_method_or_a_search(tmp_path):
    run = conformance(tmp_path, ONE_EACH)
    assert run.returncode == 0, run.stdout
    assert "4 passed" in run.stdout  # each method with its own search once, lbfgs in both precisions


@pytest.mark.slow
def test_the_worked_examples_keep_every_promise(tmp_path):
    run = conformance(tmp_path, ALL)
    assert run.returncode == 0, run.stdout


# What a reader may copy; conf.py builds the site from the registry.
PAGES = [ROOT / "README.md"] + sorted(
    path
    for path in (ROOT / "docs").rglob("*")
    if path.suffix in (".md", ".py", ".rst") and path.name != "conf.py" and not {"_build", "_gallery"} & {*path.parts}
)
PRIVATE = re.compile(r"\bjaxmin(\.\w+)*\._(?!_)|\bfrom jaxmin(\.\w+)* import .*\b_(?!_)")


def test_no_page_uses_a_private_module():
    assert len(PAGES) > 20
    found = [
        f"{page.relative_to(ROOT)}:{number}: {line.strip()}"
        for page in PAGES
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("from jaxmin._core.box import Box", True),
        ("import jaxmin._core.box as box", True),
        ("from jaxmin import _core", True),
        ("from jaxmin import minimize, _core", True),
        ("jaxmin.transforms._lookup.find(state)", True),
        ("from jaxmin.methods import _descend", True),
        ("from jaxmin.extend import vector", False),
        ("print(jaxmin.__version__)", False),
        ("from jaxmin import __main__ as demo", False),
        ("what `_core/` holds", False),
    ],
)
def test_what_a_private_import_is(line, private):
    assert bool(PRIVATE.search(line)) == private


@pytest.mark.parametrize("file", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_a_test_file_begins_with_what_it_promises(file):
    """In one line, a row of docs/promises.md."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    assert docstring and docstring.split("\n")[0].endswith(".")


def test_every_status_has_an_entry():
    """What it says, whether it is a success, and what to do."""
    page = (ROOT / "docs" / "statuses.md").read_text("utf-8")
    found = re.findall(r"^## `(\w+)` \((-?\d+)\)\n\n(.*)", page, re.MULTILINE)
    assert {name: int(code) for name, code, _ in found} == {status.name: status.value for status in jaxmin.Status}
    for name, _, first in found:
        assert first.startswith("**A success") == jaxmin.Status[name].success, name
