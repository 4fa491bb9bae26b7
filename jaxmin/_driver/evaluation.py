"""The one evaluation of a step: f, and whatever a method wants of it, from one table of providers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Found(NamedTuple):
    """What the problem's own function gives at a point."""

    value: Any  # []
    grad: Any  # like x; None for a method that does not want it
    aux: Any = None
    beside: Any = {}  # noqa: RUF012  # read alone  # what else comes of the same trace: "residual", "constraints"


class Evaluation(NamedTuple):
    """What the loop evaluates, as functions of x."""

    first: Callable[[Any], Found]
    product: Any = None  # (x, v) -> H v by hand; None: by automatic differentiation
    hessian: Any = None  # x -> H by hand, [n, n]

    def __call__(self, x):
        return self.first(x)


class CachedHessian(NamedTuple):
    """The user's Hessian at an iterate, for as long as the method stays there."""

    H: Any  # [n, n]
    nit: Any  # [] int32: the iterate's number


class At(NamedTuple):
    """A point at which something is provided."""

    evaluation: Evaluation
    x: Any  # the trial
    state: Any  # the method's
    found: Found
    push: Callable[[Any], tuple[Any, Any]]  # v -> the derivatives along v of the gradient, and of what is beside it


class Provider(NamedTuple):
    """How one name that a method may want is worked out."""

    provide: Callable[[At], Any]
    linear: bool = False  # it reads ``At.push``
    counter: str | None = None  # counts the steps that stay for it; None: it comes in every step, with f


def _beside(name):
    return Provider(lambda at: at.found.beside[name])


def _product(at):
    return at.push(at.state.along)[0]


def _hessian(at):
    return _at_stays(at, lambda: symmetric(lambda v: at.push(v)[0], at.x))


def _jacobian_of(name, at):
    return jax.vmap(lambda v: at.push(v)[1][name], out_axes=-1)(jnp.eye(at.x.size, dtype=at.x.dtype))


def _lagrangian_hessian(at):
    v = at.state.multipliers

    def gradient(x):
        found, pull = jax.vjp(lambda x: at.evaluation(x).beside["constraints"], x)
        del found
        return at.evaluation(x).grad + pull(v)[0]

    def matrix():
        _, push = jax.linearize(gradient, at.x)
        return symmetric(push, at.x)

    return _at_stays(at, matrix)


# What a problem may offer. The loop knows none of the names.
PROVIDERS = {
    "grad": Provider(lambda at: at.found.grad),
    "hv": Provider(_product, linear=True, counter="nhev"),
    "H": Provider(_hessian, linear=True, counter="nhev"),
    "residual": _beside("residual"),
    "jacobian": Provider(lambda at: _at_stays(at, lambda: _jacobian_of("residual", at)), linear=True, counter="njev"),
    "constraints": _beside("constraints"),
    "constraint_jacobian": Provider(functools.partial(_jacobian_of, "constraints"), linear=True),
    "lagrangian_hessian": Provider(_lagrangian_hessian, counter="nhev"),
}
# What the loop itself gives: it is no evaluation.
SETTINGS = frozenset({"box", "xtol", "ended"})
# Derivatives that a user may give by hand.
SECOND_ORDER = frozenset({"hv", "H"})


def counters(wants):
    """The counters of steps that stay, by what a method wants."""
    return {PROVIDERS[name].counter for name in wants - SETTINGS} - {None}


def empty_cache(evaluation, wants, x):
    """The cache that the loop carries for :func:`evaluate` before the first step."""
    if not wants & SECOND_ORDER or evaluation.hessian is None:
        return None
    return CachedHessian(jnp.zeros((x.size, x.size), x.dtype), jnp.full((), -1, jnp.int32))


def evaluate(evaluation, wants, carry, x):
    """f at the trial, and what the method wants there, by name.

    Automatic differentiation linearises the one evaluation. A matrix is worked out of that under a ``cond``, in the
    steps alone that stay. With derivatives by hand a step evaluates either those or fun.

    Args:
      evaluation: an ``Evaluation``.
      wants: the method's.
      carry: the loop's: the method's state, aux of the iterate, and the cache.
      x: the trial.

    Returns:
      A ``Found``, a dictionary of what is wanted, and the cache for the next step.
    """
    names = sorted(wants - SETTINGS - {"grad"})
    if wants & SECOND_ORDER and (evaluation.product is not None or evaluation.hessian is not None):
        return _by_hand(evaluation, names, carry, x)
    found, push = _linearised(evaluation, names, carry.state, x)
    at = At(evaluation, x, carry.state, found, push)
    return found, {name: PROVIDERS[name].provide(at) for name in names}, carry.cache


def _linearised(evaluation, names, state, x):
    """What is found at x, and its derivatives along any vector; no more is linearised than is asked for."""
    linear = [name for name in names if PROVIDERS[name].linear]
    if not linear:
        return evaluation(x), None

    def smooth(x):
        found = evaluation(x)
        return (found.grad, found.beside), found

    if linear == ["hv"]:  # one direction: forward mode needs no memory for what a linear map would store
        _, along, found = jax.jvp(smooth, (x,), (state.along,), has_aux=True)
        return found, lambda v: along
    _, push, found = jax.linearize(smooth, x, has_aux=True)
    return found, push


def _by_hand(evaluation, names, carry, x):
    """The same with ``hess`` or ``hessp`` of the user's."""
    (name,) = names
    state, cached = carry.state, carry.cache

    def known():
        f = state.iterate.f.astype(shapes.value.dtype)
        return Found(f, state.iterate.g, carry.aux)

    shapes = jax.eval_shape(lambda: evaluation(x))
    found = lax.cond(state.stays, known, lambda: evaluation(x))
    if evaluation.hessian is not None:
        due = state.stays & (cached.nit != state.nit)
        H = lax.cond(due, lambda: evaluation.hessian(x), lambda: cached.H)
        cached = CachedHessian(H, jnp.where(due, state.nit, cached.nit))
        wanted = H if name == "H" else jnp.matmul(H, state.along, precision=lax.Precision.HIGHEST)
        return found, {name: wanted}, cached
    at = At(evaluation, x, state, found, lambda v: (evaluation.product(x, v), None))
    if name == "H":
        return found, {name: _hessian(at)}, None
    product = lax.cond(state.stays, lambda: _product(at), lambda: jax.tree.map(jnp.zeros_like, x))
    return found, {name: product}, None


def _at_stays(at, matrix):
    """The matrix in the steps that stay, zeros in all others."""
    shape = jax.eval_shape(matrix)
    return lax.cond(at.state.stays, matrix, lambda: jnp.zeros(shape.shape, shape.dtype))


def symmetric(product, x):
    """The matrix of a symmetric linear map of vectors like x."""
    H = jax.vmap(product)(jnp.eye(x.size, dtype=x.dtype))
    return (H + H.T) / 2
