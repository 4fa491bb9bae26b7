"""A solve can be exported with `jax.export` for any number of variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxmin import minimize

METHODS = ("lbfgs", "bfgs", "cg", "gradient_descent", "newton_cg", "trust_ncg", "adam")


@pytest.mark.parametrize("method", METHODS)
def test_solve_of_a_symbolic_number_of_variables(method):
    (n,) = export.symbolic_shape("n")
    options = {"learning_rate": 0.1} if method == "adam" else {}

    @jax.jit
    def nearest(c):
        return minimize(lambda x: jnp.sum((x - c) ** 2), jnp.zeros_like(c), method=method, options=options).x

    exported = export.export(nearest)(jax.ShapeDtypeStruct((n,), jnp.float32))
    for size in (1, 5, 40):
        c = np.arange(size, dtype=np.float32)
        np.testing.assert_allclose(exported.call(c), c, atol=1e-3)
