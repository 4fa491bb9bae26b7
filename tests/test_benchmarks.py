"""The benchmarks run from one command, what they count does not grow, and their page is what their results give."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jaxlib
import pytest

import jaxmin

ROOT = pathlib.Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
NEEDED = ("equinox", "jaxopt", "optax", "optimistix", "scipy", "matplotlib")
PARTS = {"speed", "compile", "batch", "large", "kernels"}

pytestmark = [
    pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this installation"),
    pytest.mark.skipif(not PAGE.exists(), reason="the pages are not part of this installation"),
]

# What XLA plans for the Rosenbrock chain in float64: bytes at n = 2 and 10. Another version plans in another way.
VERSION = "0.10.2"
BYTES = {"jaxmin lbfgs": {2: 2440, 10: 7744}, "jaxmin bfgs": {2: 2248, 10: 3904}}
VECTORS = {False: 31.05, True: 33.67}  # of lbfgs in float32, n = 10,000, free and with bounds


def script(name, *arguments):
    """A script run to its end, in a process of its own: it has settings that are not those of the tests."""
    path = os.pathsep.join([str(pathlib.Path(jaxmin.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    for flag in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(flag, None)
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of the results of a small run, and what it printed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("results")
    return folder, script("everything.py", "run", "--small", "--out", folder)


@pytest.fixture(scope="module")
def results(run):
    """Part -> setting, records."""
    folder, _ = run
    found = {}
    for path in folder.iterdir():
        first, *records = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        found[path.stem] = first["setting"], records
    return found


def test_every_part_writes_its_setting_and_its_records(run, results):
    folder, printed = run
    assert set(results) == PARTS
    for part, (setting, records) in results.items():
        assert setting["command"].startswith(f"python benchmarks/{part}.py ")
        assert str(folder) not in setting["command"]
        assert f"$ {setting['command']} " in printed
        assert setting["versions"]["jax"] and setting["processor"] is not None and setting["date"]
        assert records and not any("setting" in record for record in records)


def test_every_solver_reached_the_tolerance(results):
    setting, records = results["speed"]
    solvers = [record for record in records if record["solver"] != "value_and_grad alone"]
    assert {(record["problem"], record["n"]) for record in solvers} == {
        (problem, n) for problem in ("rosenbrock", "smoothing") for n in (2, 10)
    }
    for record in solvers:
        assert record["solved"] and record["gnorm"] <= 1.001 * setting["gtol"], record
        assert record["nfev"] > record["nit"] > 0 and min(record["samples"]) > 0 and record["bytes"] > 0, record
    _, batches = results["batch"]
    for record in batches:
        assert record["stationary"] == record["starts"] and record["nfev"] > 0, record


def test_every_function_was_compiled_by_every_solver(results):
    _, records = results["compile"]
    assert {record["solver"] for record in records} >= {"jaxmin lbfgs", "jaxmin bfgs", "optax lbfgs"}
    assert all(record["seconds"] > 0 for record in records)


@pytest.mark.skipif(jaxlib.__version__ != VERSION, reason=f"the ceilings are those of jaxlib {VERSION}")
def test_a_solve_takes_no_more_memory(results):
    _, records = results["speed"]
    found = {
        (record["solver"], record["n"]): record["bytes"]
        for record in records
        if record["problem"] == "rosenbrock" and record["solver"] in BYTES
    }
    assert len(found) == 4
    assert all(size <= BYTES[solver][n] for (solver, n), size in found.items()), found
    _, records = results["large"]
    vectors = {record["bounds"]: record["vectors"] for record in records}
    assert all(vectors[bounds] <= most for bounds, most in VECTORS.items()), vectors


def test_the_page_is_made_from_results(run, tmp_path):
    """With the committed results of CUTEst, which a small run leaves out."""
    folder = tmp_path / "results"
    shutil.copytree(run[0], folder)
    shutil.copy(BENCHMARKS / "results" / "cutest.jsonl", folder)
    shutil.copy(PAGE, tmp_path)
    script("page.py", folder, "--docs", tmp_path)
    text = (tmp_path / PAGE.name).read_text("utf-8")
    assert "Not measured" not in text
    pictures = [tmp_path / name for name in re.findall(r"!\[[^\]]{40,}\]\((\S+)\)", text)]
    assert len(pictures) == 6
    assert {*pictures} == {*(tmp_path / "_static" / "benchmarks").iterdir()}
    assert all("</svg>" in picture.read_text("utf-8") for picture in pictures)
    regions = re.findall(r"<!-- made: \w+ -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert len(regions) == 10 and all("|---|" in region.replace(" ", "") for region in regions)
    before = PAGE.read_text("utf-8")
    outside = lambda page: re.sub(r"(<!-- made: \w+ -->\n).*?<!-- end -->", r"\1", page, flags=re.DOTALL)
    assert outside(text) == outside(before)


def test_the_committed_page_is_what_the_committed_results_give():
    script("page.py", BENCHMARKS / "results", "--docs", PAGE.parent, "--check")
