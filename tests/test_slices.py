"""A solve in slices is the solve in one piece, whatever the length of a slice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import mostly

import jaxmin
from jaxmin._driver.slices import MOST, Slices

SETTINGS = {
    "adam": {"options": {"learning_rate": 0.1, "maxiter": 60}},
    "levenberg_marquardt": {},
    "slsqp": {"constraints": {"type": "ineq", "fun": lambda x: 2 - x @ x}},
}


def solved(method, steps, monkeypatch):
    """The result with so many evaluations in each slice."""
    monkeypatch.setattr(Slices, "_learn", lambda self, *_: None)
    monkeypatch.setattr(Slices, "__init__", lambda self: setattr(self, "steps", steps))
    lengths = []
    through = Slices.through
    monkeypatch.setattr(Slices, "through", lambda self, *rest: lengths.append(self.steps) or through(self, *rest))
    # A literal of its own for each length: a program that is known has its slices already.
    shift = 0.0 if steps == MOST // 2 else 1e-30
    residuals = lambda x: jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]) + shift
    fun = residuals if method == "levenberg_marquardt" else lambda x: jnp.sum(residuals(x) ** 2)
    x0 = np.array([-1.2, 1.0, 0.5], np.float32)
    res = jaxmin.minimize(fun, x0, method=method, **SETTINGS.get(method, {}))
    assert lengths and set(lengths) == {steps}
    return res


@pytest.mark.parametrize(
    "method",
    mostly(
        ("lbfgs", "bfgs", "trust_ncg", "trust_exact", "nelder_mead", "adam", "levenberg_marquardt", "slsqp"),
        *("lbfgs", "trust_ncg", "nelder_mead", "adam", "slsqp"),
    ),
)
def test_the_length_of_a_slice_changes_nothing(method, monkeypatch):
    whole, slices = (solved(method, steps, monkeypatch) for steps in (MOST // 2, 3))
    assert whole.nfev > 9 and (whole.nfev, whole.nit, whole.status) == (slices.nfev, slices.nit, slices.status)
    np.testing.assert_array_equal(whole.x, slices.x)


def test_a_random_key_in_what_a_slice_hands_on():
    def fun(x):
        return jnp.sum((x - 1) ** 2), jax.random.key(3)

    options = {"learning_rate": 1e-3, "gtol": 0, "maxiter": 300, "maxfun": 300}
    res = jaxmin.minimize(fun, jnp.zeros(2), method="adam", has_aux=True, options=options)
    assert res.nfev == 300 and jax.random.key_data(res.aux).tolist() == jax.random.key_data(jax.random.key(3)).tolist()


def test_x0_is_not_lost():
    """What one slice hands to the next is donated; the arrays of the user's are not."""
    x0, y = jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0])
    for _ in range(2):
        res = jaxmin.minimize(lambda x, y: jnp.sum((x - y) ** 2), x0, args=(y,))
    again = jaxmin.minimize(lambda x, y: jnp.sum((x - y) ** 2), res.x, args=(y,), options={"warm_start": res})
    assert x0.tolist() == [3, 4] and y.tolist() == [1, 2] and again.success and res.x.shape == (2,)
    assert np.all(np.isfinite(res.hess_inv @ x0))
