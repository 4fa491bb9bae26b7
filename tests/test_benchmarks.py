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
BYTES = {"jaxmin lbfgs": {2: 2440, 10: 7744}, "jaxmin bfgs": {2: 2312, 10: 3968}}
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


def read(folder):
    """Part -> setting, records."""
    found = {}
    for path in folder.iterdir():
        first, *records = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        found[path.stem] = first["setting"], records
    return found


@pytest.mark.slow
def test_one_command_runs_all_and_its_page_has_every_picture(tmp_path):
    """One test, so that the run is made once."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path / "results"
    printed = script("everything.py", "run", "--small", "--out", folder)
    results = read(folder)
    assert set(results) == PARTS
    for part, (setting, records) in results.items():
        assert f"$ {setting['command']} " in printed
        names_its_command(part, setting)
        assert records and not any("setting" in record for record in records)
    solvers_reach_the_tolerance(*results["speed"])
    for record in results["batch"][1]:
        assert record["stationary"] == record["starts"] and record["nfev"] > 0, record
    compiled = {record["solver"] for record in results["compile"][1] if record["seconds"] > 0}
    assert compiled >= {"jaxmin lbfgs", "jaxmin bfgs", "optax lbfgs"}
    if jaxlib.__version__ == VERSION:
        solves_take_no_more_memory(results["speed"][1], results["large"][1])
    the_page_has_everything(folder, tmp_path)


def names_its_command(part, setting):
    assert setting["command"].startswith(f"python benchmarks/{part}.py ")
    assert not re.search(r"jsonl|--out", setting["command"])  # a path of this machine
    assert setting["versions"]["jax"] and setting["date"] and "processor" in setting


def solvers_reach_the_tolerance(setting, records):
    solvers = [record for record in records if record["solver"] != "value_and_grad alone"]
    solved = {(record["problem"], record["n"]) for record in solvers}
    assert solved == {(problem, n) for problem in ("rosenbrock", "smoothing") for n in (2, 10)}
    for record in solvers:
        assert record["solved"] and record["gnorm"] <= 1.001 * setting["gtol"], record
        assert record["nfev"] > record["nit"] > 0 and min(record["samples"]) > 0 and record["bytes"] > 0, record


def solves_take_no_more_memory(speed, large):
    chains = [record for record in speed if record["problem"] == "rosenbrock" and record["solver"] in BYTES]
    found = {(record["solver"], record["n"]): record["bytes"] for record in chains}
    assert len(found) == 4
    assert all(size <= BYTES[solver][n] for (solver, n), size in found.items()), found
    vectors = {record["bounds"]: record["vectors"] for record in large}
    assert all(vectors[bounds] <= most for bounds, most in VECTORS.items()), vectors


def the_page_has_everything(folder, docs):
    """With the committed results of CUTEst, which a small run leaves out."""
    shutil.copy(BENCHMARKS / "results" / "cutest.jsonl", folder)
    shutil.copy(PAGE, docs)
    shutil.copy(PAGE.with_name("index.md"), docs)
    script("page.py", folder, "--docs", docs)
    text, before = (path.read_text("utf-8") for path in (docs / PAGE.name, PAGE))
    assert "Not measured" not in text
    pictures = [docs / name for name in re.findall(r"!\[[^\]]{40,}\]\((\S+)\)", text)]
    assert len(pictures) == 6
    assert {*pictures} == {*(docs / "_static" / "benchmarks").iterdir()}
    assert all("</svg>" in picture.read_text("utf-8") for picture in pictures)
    regions = re.findall(r"<!-- made: \w+ -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert len(regions) == 10 and all("| --- |" in region for region in regions)
    outside = lambda page: re.sub(r"(<!-- made: \w+ -->\n).*?<!-- end -->", r"\1", page, flags=re.DOTALL)
    assert outside(text) == outside(before)


def test_the_committed_page_is_what_the_committed_results_give():
    script("page.py", BENCHMARKS / "results", "--docs", PAGE.parent, "--check")
