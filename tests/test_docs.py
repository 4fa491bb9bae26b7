"""What the pages promise beyond their own blocks: the worked examples drop in, the gallery's scripts run."""

import os
import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest

import jaxmin

ROOT = pathlib.Path(__file__).parent.parent
GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.py"))
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
    cache = os.environ.get("JAXMIN_TEST_CACHE", str(ROOT / ".jax_cache"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", which]
    environment = os.environ | {"PYTHONPATH": str(folder), "JAXMIN_TEST_CACHE": cache}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_one_file_makes_a_method_or_a_search(tmp_path):
    run = conformance(tmp_path, ONE_EACH)
    assert run.returncode == 0, run.stdout
    assert "4 passed" in run.stdout  # each method with its own search once, lbfgs in both precisions


@pytest.mark.slow
def test_the_worked_examples_keep_every_promise(tmp_path):
    run = conformance(tmp_path, ALL)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("script", GALLERY, ids=lambda path: path.stem)
def test_the_gallery_runs(script, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    if "sklearn" in script.read_text("utf-8"):
        pytest.importorskip("sklearn")
    pyplot.switch_backend("agg")
    monkeypatch.chdir(script.parent)
    names = runpy.run_path(str(script))
    assert pyplot.get_fignums(), "a script of the gallery draws"
    pyplot.close("all")
    assert names["solved"], "a script of the gallery ends by saying that its solves succeeded"
