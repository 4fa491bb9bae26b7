"""What XLA makes of a solve on a CPU does not grow: kernels, copies and instructions of a step, and of the program."""

import importlib.util
import pathlib

import jax
import jaxlib
import numpy as np
import pytest
from helpers import valley

from jaxmin import minimize

# Of the chained Rosenbrock function, n = 10, float64. Other versions of XLA fuse in other ways.
VERSION = "0.10.2"
CEILINGS = {  # kernels, copies and instructions of a step; instructions of the program
    "lbfgs": (31, 3, 910, 940),
    "bfgs": (30, 3, 920, 950),
    "cg": (30, 3, 980, 1000),
    "trust_ncg": (35, 4, 660, 740),
    "newton_cg": (39, 4, 1210, 1260),
    "nelder_mead": (18, 4, 410, 430),
}


@pytest.fixture(scope="module")
def programs():
    """The benchmarks' reader of programs."""
    path = pathlib.Path(__file__).parents[1] / "benchmarks" / "programs.py"
    if not path.exists():
        pytest.skip("the benchmarks are not part of this installation")
    spec = importlib.util.spec_from_file_location("programs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(jaxlib.__version__ != VERSION, reason=f"the ceilings are those of jaxlib {VERSION}")
@pytest.mark.parametrize("method", CEILINGS)
def test_a_step_has_no_more_kernels(method, programs):
    x0 = np.resize([-1.2, 1.0], 10)
    lowered = jax.jit(lambda x0: minimize(valley, x0, method=method)).lower(x0)
    found = programs.count(lowered.compile().as_text())
    counts = tuple(found[name] for name in ("kernels", "copies", "instructions", "compiled"))
    assert all(n <= most for n, most in zip(counts, CEILINGS[method], strict=True)), counts
