"""The benchmark of a million variables solves what it says, and a solve that is spread over devices is the same."""

import json

import pytest
from test_benchmarks import BENCHMARKS, PAGE, script

for name in ("equinox", "jaxopt", "optax", "optimistix", "scipy", "sklearn"):
    pytest.importorskip(name)
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this installation")

COMMAND = ("--problems", "network", "--sizes", "5000")


def read(path):
    first, *found = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return first["setting"], found


def test_a_small_network_is_solved_and_not_solved_again(tmp_path):
    """jaxmin and SciPy find about the same f, and the gradient is as small as the command asks for."""
    out = tmp_path / "million.jsonl"
    given = "run", *COMMAND, "--solvers", "jaxmin lbfgs", "scipy L-BFGS-B"
    script("million.py", *given, "--jsonl", out)
    setting, (ours, scipy) = read(out)
    assert setting["command"].startswith("python benchmarks/million.py run --problems network")
    for record in (ours, scipy):
        assert record["status"] == "CONVERGED" and record["gnorm"] <= 1.001e-3 * record["gnorm0"], record
        assert record["nfev"] > record["nit"] > 0 and record["seconds"] > 0, record
        assert record["score"] > 0.85 > record["score0"], record
    assert abs(ours["f"] - scipy["f"]) < 0.05 * scipy["f"]
    assert script("million.py", *given, "--jsonl", out) == ""
    assert "| network | 4,966 | jaxmin lbfgs |" in script("million.py", "report", out)


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are not part of this installation")
def test_the_page_has_the_tables_of_the_committed_results():
    tables = script("million.py", "report", BENCHMARKS / "results" / "million.jsonl")
    assert sum(line.startswith("| --- |") for line in tables.splitlines()) == 2
    assert all(table in PAGE.read_text("utf-8") for table in tables.strip().split("\n\n"))


@pytest.mark.slow
def test_two_devices_give_the_same_with_less_memory_each(tmp_path):
    out = tmp_path / "million.jsonl"
    script("million.py", "spread", *COMMAND, "--jsonl", out)
    _, found = read(out)
    assert len(found) == 3
    for record in found:
        one, two = record["one"], record["two"]
        assert one["nit"] == two["nit"] > 0 and abs(one["f"] - two["f"]) < 1e-4 * one["f"], record
        assert two["as x0"] and two["bytes"] < one["bytes"] and two["gathers"] == 0, record
