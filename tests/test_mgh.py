"""The problems of Moré, Garbow and Hillstrom are those of the paper, and their judge and command say what is right."""

import importlib
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_benchmarks import BENCHMARKS, script

pytest.importorskip("scipy")
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not part of this installation")

# Norms of the residuals at 1, 10 and 100 times the standard start, as the drivers of MINPACK's lmder and hybrj print
# them; where both start from another point than the paper, there are none.
NORMS = {
    "rosenbrock": (4.919350, 1340.063, 143000.1),
    "freudenstein_roth": (20.01250, 12432.83, 0.1142645e8),
    "powell_badly_scaled": (1.065487, 1.000000),
    "helical_valley": (50.0, 102.9563, 991.2618),
    "jennrich_sampson": (64.58565,),
    "bard": (6.456136, 36.14185, 384.1147),
    "meyer": (41153.47, 4168217.0),
    "box": (32.11158,),
    "powell_singular": (14.66288, 1270.984, 126887.9),
    "kowalik_osborne": (0.07289151, 2.979370, 29.95906),
    "brown_dennis": (2815.438, 555073.4, 0.6121125e8),
    "osborne_1": (0.9375640,),
    "osborne_2": (1.446865,),
    "watson 6": (5.477226, 6433.126, 674256.0),
    "watson 9": (5.477226, 12088.13, 1269109.0),
    "watson 12": (5.477226, 19220.76, 2018918.0),
    "trigonometric 10": (0.08411753, 20.30519, 93.36937),
    "brown_almost_linear 10": (16.53022, 9765624.0, 0.9765625e17),
    "brown_almost_linear 30": (83.47604,),
    "brown_almost_linear 40": (128.0264,),
    "discrete_boundary_value 10": (0.02808058, 0.5255526, 106.5739),
    "discrete_integral_equation 10": (0.2518270, 6.116833, 1269.309),
    "broyden_tridiagonal 10": (4.582576, 639.1009, 63337.58),
    "broyden_banded 10": (18.97367, 17130.92, 0.1594986e8),
    "linear_full_rank 5x10": (5.0,),
    "linear_full_rank 5x50": (8.062258,),
    "linear_rank_1 5x10": (291.5219,),
    "linear_rank_1 5x50": (3101.600,),
    "linear_rank_1_zeros 5x10": (126.0397,),
    "linear_rank_1_zeros 5x50": (1748.950,),
    "chebyquad 1x8": (1.886238, 0.5383344e10, 0.1180887e19),
    "chebyquad 8x8": (0.1965139,),
    "chebyquad 9x9": (0.1699499,),
    "chebyquad 10x10": (0.1837478,),
}
# Sums of squares at the standard start, as Algorithm 566 gives them: for its n, where n is free.
SUMS = {
    "brown_badly_scaled": (None, 1e12), "beale": (None, 14.2), "gaussian": (None, 3.89e-6), "gulf": (None, 12.1),
    "wood": (None, 1.92e4), "biggs": (None, 0.779), "extended_rosenbrock": (np.tile([-1.2, 1], 20), 484),
    "extended_powell": (np.tile([3.0, -1, 0, 1], 15), 3.23e3), "penalty_1": (np.arange(1.0, 61), 5.45e9),
    "penalty_2": (np.full(65, 0.5), 2.87e5), "variably_dimensioned": (1 - np.arange(1, 41) / 40, 9.39e10),
}  # fmt: skip


@pytest.fixture(scope="module")
def modules():
    """The problems and the judge."""
    sys.path.append(str(BENCHMARKS))
    yield importlib.import_module("mgh_problems"), importlib.import_module("mgh_judge")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def problems(modules):
    return modules[0].problems()


@pytest.fixture(scope="module")
def least():
    return json.loads((BENCHMARKS / "mgh_reference.json").read_text("utf-8"))


def test_all_35_problems_are_there(problems, least):
    assert {problem.number for problem in problems.values()} == set(range(1, 36))
    assert set(least) == set(problems)


def test_starts_are_those_of_minpack(problems):
    for name, norms in NORMS.items():
        for factor, norm in zip((1, 10, 100), norms):
            r = problems[name].residuals(jnp.asarray(problems[name].start_times(factor)))
            assert float(jnp.linalg.norm(r)) == pytest.approx(norm, rel=1e-6), name


def test_other_starts_are_those_of_algorithm_566(modules, problems):
    checked = {name.split()[0] for name in NORMS} | set(SUMS)
    assert checked == {name.split()[0] for name in problems}
    for name, (start, total) in SUMS.items():
        start = problems[name].start if start is None else start
        assert float(jnp.sum(getattr(modules[0], name)(jnp.asarray(start)) ** 2)) == pytest.approx(total, rel=5e-3)


def test_minima_are_those_of_the_paper(modules, problems, least):
    """All six digits, which the paper does not round; the residuals are in the dtype of x."""
    for name, problem in problems.items():
        x = jnp.asarray(least[name]["x"])
        total = float(jnp.sum(problem.residuals(x) ** 2))
        printed = problem.minima[0]
        unit = 10 ** (math.floor(math.log10(printed)) - 5) if printed else 1e-20
        assert -1e-9 * printed <= total - printed < unit, name
        assert jax.eval_shape(problem.residuals, x.astype("float32")).dtype == "float32"


def test_the_judge_knows_minima_plateaus_and_slopes(modules, problems):
    judge = modules[1]

    def verdict(name, x, dtype="float64", solver="jaxmin"):
        problem = problems[name]
        found = judge.measure(problem, x, dtype)
        return judge.verdict({"dtype": dtype, "solver": solver, **found}, problem.minima)

    assert verdict("rosenbrock", [1, 1]) == verdict("rosenbrock", [1 + 1e-6, 1 + 2e-6]) == "least"
    assert verdict("freudenstein_roth", [11.412779, -0.89680525]) == "stationary"  # the paper's second minimum
    assert verdict("bard", [0.8406667, -1e9, -1.034e9]) == "stationary"  # its minimum at infinity
    assert verdict("rosenbrock", [-1.2, 1]) == verdict("bard", [1, 1, 1]) == "unsolved"
    assert verdict("meyer", [0.02, 4000, 250]) == verdict("rosenbrock", [math.nan, 1]) == "unsolved"
    # In float32 x itself is rounded.
    assert verdict("brown_badly_scaled", [1e6, 2.0000001e-6], "float32") == "least"
    assert verdict("brown_badly_scaled", [1e6 + 100, 2e-6], "float32") == "unsolved"


def test_a_run_and_its_report(tmp_path):
    """Peers are not needed for it."""
    out = tmp_path / "results.jsonl"
    script("mgh.py", "run", "--problems", "rosenbrock", "--solver", "jaxmin", "minpack", "--out", out)
    again = script("mgh.py", "run", "--problems", "rosenbrock", "--solver", "jaxmin", "--out", out)
    assert again == ""
    printed = script("mgh.py", "report", out, "--details")
    for solver in ("jaxmin", "minpack"):
        assert f"| `{solver}` | 3 | 3 | 0 | 0 | 3 | 0 | 0 |" in printed
