"""What several test files share: starts, dtypes, comparisons, counts of compilations. Problems are in problems.py."""

import contextlib
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmin
from jaxmin import transforms
from jaxmin._cache.registry import entries
from jaxmin._core.protocol import RESIDUALS

START = (-1.2, 1.0)  # of the Rosenbrock function
X0 = (3.0, -2.0)
DTYPES = ("float32", "float64")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
# float64 by default; float32 with `pytest -m slow`.
mostly_float64 = pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
# The other way round, where the promise is about rounding or about what float32 is.
mostly_float32 = pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])


def mostly(names, *always):
    """The names as parameters: by default those of ``always``; the others with `pytest -m slow`."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.slow) for name in names]


# One step of it solves squares: the least that a solve can be, for the tests that are about the call alone.
ONE_STEP = jaxmin.gradient_descent(linesearch=jaxmin.fixed(0.5))

# The ways to have several transformations, each for a part of the parameters.
PARTITIONS = {
    "jaxmin": transforms.partition,
    "optax": lambda *parts: pytest.importorskip("optax").partition(*parts),
    "multi_transform": lambda *parts: pytest.importorskip("optax").multi_transform(*parts),
}


def valley(x, a=1.0):
    """The Rosenbrock chain with a in place of its 1."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)


# ---- methods


def asks_for(name):
    """What the update of a built-in method is given beside the value: a set of names."""
    return entries("methods")[name].build().wants


# The methods for one number without constraints. The others have promises of their own, in files of their own.
UNCONSTRAINED = [name for name in entries("methods") if not asks_for(name) & {"constraints", *RESIDUALS}]


# ---- results


def figures(res):
    """How a solve ended, as numbers of Python."""
    return int(res.status), int(res.nit), int(res.nfev)


def along(limits, solve):
    """The results of the solves that stop at each of the limits, from one program."""
    return jax.lax.map(solve, jnp.asarray(limits))


# ---- comparisons


def identical(a, b):
    """Whether two pytrees hold the same arrays, dtypes and all, leaf by leaf; NaN is NaN."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert pairs
    return all(u.dtype == v.dtype and np.array_equal(u, v, equal_nan=True) for u, v in pairs)


def assert_close(ours, expected, **tolerance):
    """Leaf by leaf, whatever the containers and dtypes; NaN is close to nothing."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True))
    assert pairs
    for one, other in pairs:
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, equal_nan=False, **tolerance)


def assert_trees_close(tree, wanted, **tolerance):
    """The same structure, shapes and dtypes, and numbers that are close."""
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, **tolerance)


def assert_refused(kinds, words, given, fun=lambda x: jnp.sum(x**2)):
    """minimize raises one of the kinds, and its message has each of the words."""
    with pytest.raises(kinds) as caught:
        jaxmin.minimize(fun, jnp.ones(2), **given)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {caught.value!s}"


# ---- traces and compilations

_unlike = itertools.count(1)


def unlike():
    """A number that no program compiled before holds."""
    return 1 + next(_unlike) / 1024


class Traced:
    """A function that counts the times Python runs it."""

    def __init__(self, fun=valley):
        self.fun, self.count = fun, 0

    def __call__(self, *args):
        self.count += 1
        return self.fun(*args)


@contextlib.contextmanager
def compilations():
    """The programs compiled meanwhile, whether or not the compiled code is then found in a cache on disk."""
    found, logger = [], logging.getLogger("jax")
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield (programs := [])
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        programs += [message.split(" with ")[0] for message in found if message.startswith("Compiling")]


def assert_built_anew(build, **options):
    """A method that is built again, equal to the one before, compiles nothing."""

    def solve(maxiter):
        fun = lambda x, y: jnp.sum((x + y) ** 2)
        options_ = {"maxiter": maxiter, **options}
        return jaxmin.minimize(fun, jnp.ones(3), np.arange(4, 7), build(), options=options_)

    solve(2)
    with compilations() as programs:
        res = solve(3)
    assert res.nit == 3 and not programs
    with compilations() as programs:
        jax.jit(lambda x: x + unlike())(1)
    assert programs  # they would be seen
