"""Any pair of init and update in Optax's form is a method; what cannot be one raises one clear error."""

import subprocess
import sys

import jax
import jax.example_libraries.optimizers as library
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import START, assert_built_anew, assert_refused
from problems import rosenbrock

import jaxmin
from jaxmin import minimize, transforms
from jaxmin.transforms import Transformation

VALLEY = jnp.array(START)


def halving():
    """Halves its step until the value falls; it tells nobody how often."""

    def update(grads, state, params=None, *, value, value_fn):
        t = jax.lax.while_loop(lambda t: value_fn(params - t * grads) >= value, lambda t: t / 2, jnp.ones(()))
        return -t * grads, state

    return Transformation(lambda params: (), update)


def test_evaluations_of_a_search_that_reports_none_are_not_made_up():
    res = minimize(rosenbrock, VALLEY, method=halving(), options={"maxiter": 20})
    assert (res.nfev, res.nit) == (-1, 20) and res.fun < 5


class Descent:
    """An optimizer whose rate can be set between calls."""

    rate = 0.1

    def init(self, params):
        return ()

    def update(self, grads, state, params=None):
        return jax.tree.map(lambda g: -self.rate * g, grads), state


def test_a_rate_changed_between_calls_is_seen():
    tx, moved, x0, target = Descent(), [], np.array([1.0, 2.0, 3.0]), -np.array([4.0, 5.0, 6.0])
    for tx.rate in (0.1, 0.25):
        moved.append(minimize(lambda x: jnp.sum((x - target) ** 2), x0, method=tx, options={"maxiter": 1}).x)
    np.testing.assert_allclose(moved, [0.8 * x0 + 0.2 * target, (x0 + target) / 2], atol=1e-15)


ANEW = {
    "triple": (lambda: library.adam(0.1), {}),
    "ours": (lambda: transforms.chain(transforms.clip_by_global_norm(1.0), transforms.adam(0.1)), {}),
    "name": (lambda: "adam", {"learning_rate": 0.1}),
}


@pytest.mark.parametrize("name", ANEW)
def test_an_equal_transformation_built_anew_compiles_nothing(name):
    build, options = ANEW[name]
    assert_built_anew(build, **options)


# ---- errors


def passing(update):
    return {"method": Transformation(lambda params: (), update)}


REFUSED = {
    "an argument that minimize does not pass": (
        TypeError,
        ("'grad_fn'", "does not pass", "value, grad, value_fn"),
        passing(lambda grads, state, params=None, *, grad_fn: (grads, state)),
    ),
    "an update of two arguments": (TypeError, ("method", "3 were given"), passing(lambda grads, state: (grads, state))),
    "updates of another tree": (
        TypeError,
        ("method", str(jax.tree.structure({"step": 0})), str(jax.tree.structure(0))),
        passing(lambda grads, state, params=None: ({"step": grads}, state)),
    ),
    "updates of another shape": (
        (TypeError, ValueError),
        ("method", "(1,)", "(2,)"),
        passing(lambda grads, state, params=None: (grads[:1], state)),
    ),
    "a state of another tree": (
        TypeError,
        ("method", "state", str(jax.tree.structure(())), str(jax.tree.structure((0,)))),
        passing(lambda grads, state, params=None: (grads, (*state, grads))),
    ),
    "jaxmin's builder": (TypeError, ("method", "call it", "lbfgs"), {"method": jaxmin.lbfgs}),
    "the library's builder": (TypeError, ("method", "call it", "adam"), {"method": library.adam}),
    "a line search": (TypeError, ("method", "linesearch"), {"method": jaxmin.wolfe()}),
    "a direction": (TypeError, ("method", "Direction", "descend"), {"method": jaxmin.Direction(tuple, tuple)}),
    "a rate in words": (TypeError, ("learning_rate='0.1'",), {"method": "adam", "options": {"learning_rate": "0.1"}}),
    "rates": (TypeError, ("learning_rate=[0.1]",), {"method": "sgd", "options": {"learning_rate": [0.1]}}),
    "no rate": (ValueError, ("options", "'adam'", "'learning_rate'"), {"method": "adam"}),
    "a search beside a built method": (
        ValueError,
        ("linesearch", "built"),
        {"method": jaxmin.lbfgs(), "linesearch": "wolfe"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_method_is_one_clear_error(name):
    assert_refused(*REFUSED[name])


@pytest.mark.parametrize("wrap", [lambda method: method, jaxmin.as_optax], ids=["alone", "as_optax"])
def test_a_gradient_tree_that_does_not_match_names_both_trees(wrap):
    tx, params, grads = wrap(jaxmin.lbfgs()), {"w": jnp.ones(2)}, {"bias": jnp.ones(2)}
    with pytest.raises(TypeError) as caught:
        tx.update(grads, tx.init(params), params, value=jnp.ones(()))
    for tree in (grads, params):
        assert str(jax.tree.structure(tree)) in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda method: method, jaxmin.as_optax], ids=["alone", "as_optax"])
def test_a_method_without_the_value_says_so(wrap):
    tx = wrap(jaxmin.lbfgs())
    with pytest.raises(TypeError, match="value"):
        tx.update(VALLEY, tx.init(VALLEY), VALLEY)


def test_a_value_that_is_a_python_number_is_as_good():
    method, grad = jaxmin.lbfgs(), jax.grad(rosenbrock)(VALLEY)
    updates = [
        method.update(grad, method.init(VALLEY), VALLEY, value=kind(rosenbrock(VALLEY)))[0]
        for kind in (jnp.asarray, float)
    ]
    np.testing.assert_array_equal(*updates)


def test_as_optax_refuses_what_is_no_transformation():
    with pytest.raises(TypeError, match=r"method.*jaxmin.lbfgs\(\)"):
        jaxmin.as_optax(jaxmin.lbfgs)


# ---- the package


def test_import_brings_in_no_other_library():
    code = (
        "import sys, jaxmin; print(sorted({'optax', 'equinox', 'flax'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
