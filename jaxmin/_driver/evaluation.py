"""The one evaluation of a step: f, and what the method wants there, from one table of providers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.batch_cond import branch
from jaxmin._core.kkt import Rows
from jaxmin._core.protocol import PULLS, SECOND_ORDER
from jaxmin._core.typing import MaybeNone, PyTree, Scalar, Vector


class Found(NamedTuple):
    """The result of the problem's own function at a point."""

    value: Scalar  # []
    grad: Any  # like x; None for a method that does not want it
    aux: PyTree = None
    extras: Any = {}  # noqa: RUF012  # never written  # other results of the same trace: "residual", "constraints", ...


# v -> the derivatives along v of the gradient, and of the extras
Push: TypeAlias = Callable[[Vector], tuple[Any, Any]]


class Evaluation(NamedTuple):
    """The functions of x that the loop evaluates."""

    first: Callable[[Vector], Found]
    product: Callable[[Vector, Vector], Vector] | None = None  # (x, v) -> H v by hand; None: automatic differentiation
    hessian: Callable[[Vector], jax.Array] | None = None  # x -> H by hand, [n, n]
    lagrangian: Callable[[Vector, jax.Array], jax.Array] | None = None  # (x, v) -> the Hessian of f + v.c, [n, n]
    jacobian: Callable[[Vector], jax.Array] | None = None  # x -> J of the residuals, [m, n]
    rows: Rows | MaybeNone = None  # the limits of the constraints; c is 0
    pull: Callable[[Any, jax.Array], Vector] | None = None  # (extras["linear"], u) -> J^T u

    def __call__(self, x: Vector) -> Found:
        return self.first(x)


class CachedHessian(NamedTuple):
    """The user's Hessian at an iterate, for as long as the method stays there."""

    H: jax.Array  # [n, n]
    nit: Scalar  # [] int32: the number of the iterate


class At(NamedTuple):
    """The point of a step, as providers see it."""

    evaluation: Evaluation
    x: Vector  # the trial
    state: Any  # the method's
    found: Found
    push: Push | MaybeNone  # None where no provider is ``linear``


class Provider(NamedTuple):
    """How to evaluate one name that a method may want."""

    provide: Callable[[At], Any]
    linear: bool = False  # whether it reads ``At.push``
    counter: str | None = None  # the counter of its evaluations; None: it comes with f
    when: str = "stays"  # the steps in which it is evaluated: those that stay, "taken" ones, or "every" step


def _extra(name: str) -> Provider:
    return Provider(lambda at: at.found.extras[name])


def _product(at: At) -> Vector:
    return at.push(at.state.along)[0]


def _hessian(at: At) -> jax.Array:
    return _at_stays(at, lambda: symmetric(lambda v: at.push(v)[0], at.x))


def _jacobian(at: At) -> jax.Array:
    """J where the method takes the trial, zeros in all other steps."""
    jacobian = at.evaluation.jacobian
    assert jacobian is not None
    shape = jax.eval_shape(jacobian, at.x)
    J = lax.cond(
        at.state.takes(at.found.value), lambda: jacobian(at.x), lambda: jnp.zeros(shape.shape, shape.dtype)
    )  # fmt: skip
    weights = at.found.extras.get("row_weights")  # of a loss
    return J if weights is None else weights[:, None] * J


def _lagrangian_hessian(at: At) -> jax.Array:
    assert at.evaluation.lagrangian is not None
    return at.evaluation.lagrangian(at.x, at.state.multipliers)


def _lagrangian_product(at: At) -> Vector:
    of_gradient, of_extras = at.push(at.state.along)
    return jax.tree.map(jnp.add, of_gradient, of_extras["constraint_pull"])


# All names that a problem may offer. The loop itself knows none of them.
PROVIDERS = {
    "grad": Provider(lambda at: at.found.grad),
    "hv": Provider(_product, linear=True, counter="nhev"),
    "H": Provider(_hessian, linear=True, counter="nhev"),
    "residual": _extra("residual"),
    "jacobian": Provider(lambda at: _jacobian(at), counter="njev", when="taken"),
    "constraints": _extra("constraints"),
    "constraint_jacobian": _extra("constraint_jacobian"),
    "lagrangian_hessian": Provider(_lagrangian_hessian, counter="nhev", when="every"),
    "constraint_pull": _extra("constraint_pull"),
    "lagrangian_product": Provider(_lagrangian_product, linear=True, counter="nhev"),
}
# Names without an evaluation of their own. Who wants "set" may receive one as the box.
SETTINGS = frozenset({"box", "set", "xtol", "ended", "gauss_newton", "rare"})


def counters(wants: frozenset[str]) -> dict[str, str]:
    """The counters besides nfev of a method with these ``wants``, and the steps that they count."""
    providers = [PROVIDERS[name] for name in wants - SETTINGS]
    return {provider.counter: provider.when for provider in providers if provider.counter is not None}


def empty_cache(evaluation: Evaluation, wants: frozenset[str], x: Vector) -> CachedHessian | None:
    """The cache that the loop carries for :func:`evaluate` before the first step."""
    if not wants & SECOND_ORDER or evaluation.hessian is None:
        return None
    return CachedHessian(jnp.zeros((x.size, x.size), x.dtype), jnp.full((), -1, jnp.int32))


def evaluate(
    evaluation: Evaluation, wants: frozenset[str], carry: Any, x: Vector
) -> tuple[Found, dict[str, Any], CachedHessian | None]:
    """Evaluate f at the trial, and the names that the method wants there.

    Automatic differentiation linearises the one evaluation. A matrix is computed from that under a ``cond``, only in
    the steps that stay. With derivatives by hand, a step evaluates either these or fun.

    Args:
      evaluation: an ``Evaluation``.
      wants: the ``wants`` of the method.
      carry: the ``Carry`` of the loop: the method's state, aux at the iterate, and the cache.
      x: the trial.

    Returns:
      A ``Found``, the wanted values by name, and the cache for the next step.
    """
    names = sorted(wants - SETTINGS - {"grad"})
    if "rare" in wants and evaluation.product is None and evaluation.hessian is None:
        evaluation = evaluation._replace(product=functools.partial(_product_by_ad, evaluation))
    if wants & SECOND_ORDER and (evaluation.product is not None or evaluation.hessian is not None):
        return _by_hand(evaluation, names, carry, x)
    found, push = _linearised(evaluation, names, carry.state, x)
    at = At(evaluation, x, carry.state, found, push)
    return found, {name: PROVIDERS[name].provide(at) for name in names}, carry.cache


def _product_by_ad(evaluation: Evaluation, x: Vector, v: Vector) -> Vector:
    """H v by automatic differentiation, apart from the evaluation of f."""
    return jax.jvp(lambda x: evaluation(x).grad, (x,), (v,))[1]


def _linearised(evaluation: Evaluation, names: list[str], state: Any, x: Vector) -> tuple[Found, Push | None]:
    """The ``Found`` at x, and its derivatives along any vector. It linearises only if a name needs it."""
    linear = [name for name in names if PROVIDERS[name].linear]
    if not linear:
        return _with_pull(evaluation, names, state, x), None

    def smooth(x: Vector) -> tuple[Any, Found]:
        found = _with_pull(evaluation, names, state, x)
        return (found.grad, found.extras), found

    if linear in (
        ["hv"],
        ["lagrangian_product"],
    ):  # one direction: forward mode saves the memory of a stored linear map
        _, along, found = jax.jvp(smooth, (x,), (state.along,), has_aux=True)
        return found, lambda v: along
    _, push, found = jax.linearize(smooth, x, has_aux=True)
    return found, push


def _with_pull(evaluation: Evaluation, names: list[str], state: Any, x: Vector) -> Found:
    """The ``Found`` at x, with J^T u if a name needs it; c is evaluated once."""
    found = evaluation(x)
    if not PULLS & set(names):
        return found
    assert evaluation.pull is not None
    # What the linear map holds has no further use: as an output its derivatives would be computed too.
    extras = {name: extra for name, extra in found.extras.items() if name != "linear"}
    u = state.cotangent(extras["constraints"])
    return found._replace(extras=extras | {"constraint_pull": evaluation.pull(found.extras["linear"], u)})


def _by_hand(
    evaluation: Evaluation, names: list[str], carry: Any, x: Vector
) -> tuple[Found, dict[str, Any], CachedHessian | None]:
    """:func:`evaluate` with the user's ``hess`` or ``hessp``."""
    state, cached = carry.state, carry.cache

    def known() -> Found:
        f = state.iterate.f.astype(shapes.value.dtype)
        return Found(f, state.iterate.g, carry.aux)

    first = lambda: evaluation(x)._replace(extras={})  # no other name is wanted
    shapes = jax.eval_shape(first)
    found = branch(~state.stays, first, known)
    hessian, product = evaluation.hessian, evaluation.product
    if hessian is not None:
        due = state.stays & (cached.nit != state.nit)
        H = lax.cond(due, lambda: hessian(x), lambda: cached.H)
        cached = CachedHessian(H, jnp.where(due, state.nit, cached.nit))
        of_matrix = {"H": lambda: H, "hv": lambda: jnp.matmul(H, state.along, precision=lax.Precision.HIGHEST)}
        return found, {name: of_matrix[name]() for name in names}, cached
    assert product is not None
    at = At(evaluation, x, state, found, lambda v: (product(x, v), None))
    nothing = lambda: jax.tree.map(jnp.zeros_like, x)
    of_product = {"H": lambda: _hessian(at), "hv": lambda: branch(state.stays, lambda: _product(at), nothing)}
    return found, {name: of_product[name]() for name in names}, None


def _at_stays(at: At, matrix: Callable[[], jax.Array]) -> jax.Array:
    """The matrix in the steps that stay, zeros in all others."""
    shape = jax.eval_shape(matrix)
    return lax.cond(at.state.stays, matrix, lambda: jnp.zeros(shape.shape, shape.dtype))


def symmetric(product: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """The matrix of a symmetric linear map of vectors like x."""
    H = jax.vmap(product)(jnp.eye(x.size, dtype=x.dtype))
    return (H + H.T) / 2
