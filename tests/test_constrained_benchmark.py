"""The judge of constrained minimizers says what is right, and a peer runs through the command."""

import importlib.util
import json

import numpy as np
import pytest
from test_benchmarks import BENCHMARKS, script

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this installation")

SOLUTION = np.array([1.0, 4.74299963, 3.82114998, 1.37940829])  # of HS71
BOUNDS = np.full(4, 1.0), np.full(4, 5.0)
COMMAND = ("run", "--solver", "scipy-slsqp", "--problems", "HS71", "HS6")


@pytest.fixture(scope="module")
def judge():
    spec = importlib.util.spec_from_file_location("constrained_judge", BENCHMARKS / "constrained_judge.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hs71(judge, x):
    a, b, c, d = x
    rows = np.array([x @ x - 40, a * b * c * d - 25])
    g = np.array([d * (2 * a + b + c), a * d, a * d + 1, a * (a + b + c)])
    J = np.array([2 * x, [b * c * d, a * c * d, a * b * d, a * b * c]])
    values = judge.Values(a * d * (a + b + c) + c, rows, g, J)
    return judge.verdict(x, values, 1, BOUNDS)


def test_the_solution_of_hs71_is_a_kkt_point(judge):
    found = hs71(judge, SOLUTION)
    assert found["feasible"] and found["kkt"] and judge.is_best(found, 17.0140173)
    assert found["residual"] < 1e-6 and found["violation"] < 1e-7
    np.testing.assert_allclose(found["f"], 17.0140173, rtol=1e-8)


def test_a_feasible_point_elsewhere_is_no_kkt_point(judge):
    """The equality holds, and the inequality strictly."""
    found = hs71(judge, np.array([2.0, 4.0, np.sqrt(11.0), 3.0]))
    assert found["feasible"] and not found["kkt"] and not judge.is_best(found, 17.0140173)
    assert found["residual"] > 1e-2


@pytest.mark.parametrize(
    "x, violation",
    [
        (SOLUTION + np.array([0, 0, 0.1, 0]), 0.1),  # off the equality: by 0.77, gradient 9.5
        (SOLUTION - np.array([1e-3, 0, 0, 0]), 1e-3),  # below a bound
    ],
)
def test_an_infeasible_point_is_worth_nothing(judge, x, violation):
    found = hs71(judge, x)
    assert not found["feasible"] and not found["kkt"] and not judge.is_best(found, 17.0140173)
    np.testing.assert_allclose(found["violation"], violation, rtol=0.2)


def test_a_multiplier_of_the_wrong_sign_does_not_count(judge):
    """The maximum of x on [0, 1] and the minimum."""
    at = lambda x: judge.Values(x[0], np.zeros(0), np.ones(1), np.zeros((0, 1)))
    sides = np.zeros(1), np.ones(1)
    least, most = (judge.verdict(x, at(x), 0, sides) for x in sides)
    assert least["kkt"] and not most["kkt"] and most["feasible"]


def test_steep_rows_hide_no_violation(judge):
    """At a point far away, 0.04 is little beside the gradient."""
    values = judge.Values(0.0, np.array([0.04]), np.zeros(1), np.array([[1e13]]))
    found = judge.verdict(np.array([1e13]), values, 1, (np.array([-np.inf]), np.array([np.inf])))
    assert not found["feasible"] and not found["kkt"]


def test_a_point_that_is_not_finite_is_worth_nothing(judge):
    found = hs71(judge, np.array([1.0, np.nan, 1.0, 1.0]))
    assert not found["feasible"] and not found["kkt"] and found["f"] is None


@pytest.mark.skipif(importlib.util.find_spec("sif2jax") is None, reason="sif2jax is not installed")
def test_a_peer_runs_through_the_command_and_is_not_run_again(tmp_path):
    out = tmp_path / "results.jsonl"
    script("constrained.py", *COMMAND, "--out", out)
    setting, *records = map(json.loads, out.read_text("utf-8").splitlines())
    assert setting["setting"]["command"] == "python benchmarks/constrained.py " + " ".join(COMMAND)
    assert [record["problem"] for record in records] == ["HS6", "HS71"]
    for record in records:
        assert record["claim"] and record["kkt"] and record["best"] and record["outside"] == 0, record
        assert 2 < record["nfev"] < 30 and record["run"] > 0
    assert "0 to run, 2 in the file" in script("constrained.py", *COMMAND, "--out", out)
    name, run, kkt, best, *_ = script("constrained.py", "report", out).splitlines()[2].split()
    assert (name, run, kkt, best) == ("scipy-slsqp", "2", "2", "2")
