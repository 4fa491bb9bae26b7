"""Transformations of other libraries, and triples of functions, as methods."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.protocol import Iterate, LineSearch, Method
from jaxmin._core.pytree import check_tree
from jaxmin._core.status import Status
from jaxmin._core.typing import PyTree, TransformationLike, Vector
from jaxmin.methods._descend import descend
from jaxmin.transforms._lookup import stored
from jaxmin.transforms._transformation import is_transformation, taken
from jaxmin.transforms._triple import from_triple, is_triple

_OFFERED = ("value", "grad", "value_fn")


class ForeignState(NamedTuple):
    trial: Vector  # [n] the point to evaluate next
    iterate: Iterate  # the last point evaluated, if finite: every finite point is an iterate
    accepted: jax.Array  # [] bool: whether the last point evaluated is the iterate
    nit: jax.Array  # [] int32; -1 before x0
    status: jax.Array  # [] int32: Status.RUNNING, or Status.NAN
    inner: PyTree  # the transformation's own state


class Foreign(NamedTuple):
    """A transformation as a method; ``bind`` makes the method when the structure of params is known."""

    transformation: TransformationLike
    linesearch: LineSearch | None = None
    cacheable: bool = False  # equal behaviour implies the same object, so identity is a valid cache key
    wants = frozenset({"grad", "box", "set"})  # type: ignore[misc]  # the loop projects its points
    trees = True  # type: ignore[misc]

    def bind(self, to_params: Callable[[Vector], PyTree], to_vector: Callable[[PyTree], Vector]) -> Method:
        """The ``Method`` on flat vectors; the transformation itself sees ``to_params(vector)``."""
        transformation = _on_vectors(self.transformation, to_params, to_vector)
        if self.linesearch is not None:
            return descend(transformation, self.linesearch)
        return _as_method(transformation, to_params, to_vector)


def foreign(thing: Any, **fields: Any) -> Foreign:
    """``thing`` as a ``Foreign``: a transformation, or a triple (init, update, get_params)."""
    return Foreign(from_triple(thing) if is_triple(thing) else thing, **fields)


def is_foreign(thing: Any) -> bool:
    """Whether it has Optax's two functions, or is a triple."""
    return is_triple(thing) or (is_transformation(thing) and not isinstance(thing, type))


class _OnVectors(NamedTuple):
    init: Callable[..., Any]
    update: Callable[..., Any]


def _on_vectors(
    transformation: TransformationLike, to_params: Callable[[Vector], PyTree], to_vector: Callable[[PyTree], Vector]
) -> _OnVectors:
    _check_arguments(transformation.update)

    def init(x: Vector) -> PyTree:
        return _explained(transformation.init, to_params(x))

    def update(g: Vector, state: PyTree, x: Vector, /, **extra: Any) -> tuple[Vector, PyTree]:
        if "grad" in extra:
            extra["grad"] = to_params(extra["grad"])
        params, extra = to_params(x), taken(transformation.update, extra)
        updates, new = _explained(transformation.update, to_params(g), state, params, **extra)
        check_tree("method: the updates of this transformation", updates, params)
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (updates, params)]
        if shapes[0] != shapes[1]:
            raise TypeError(f"method: its updates have the shapes {shapes[0]}, and params have {shapes[1]}")
        found, wanted = jax.tree.structure(new), jax.tree.structure(state)
        if found != wanted:
            raise TypeError(f"method: the state of this transformation changes its tree: {found}, not {wanted}")
        return to_vector(updates), new

    return _OnVectors(init, update)


def _check_arguments(update: Callable[..., Any]) -> None:
    """Raise where an update requires a keyword argument that minimize does not offer."""
    for parameter in inspect.signature(update).parameters.values():
        required = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        if required and parameter.name not in _OFFERED:
            raise TypeError(
                f"method: its update asks for {parameter.name!r}, which minimize does not pass; it passes "
                f"{', '.join(_OFFERED)}"
            )


def _explained(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of the call; an error is raised again with the arguments that minimize passes."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise TypeError(
            f"method: minimize cannot run this transformation. It passes the arrays of x0 as params, and "
            f"{', '.join(_OFFERED)} by keyword. The transformation raised {type(error).__name__}: {error}"
        ) from error


def _as_method(
    transformation: TransformationLike, to_params: Callable[[Vector], PyTree], to_vector: Callable[[PyTree], Vector]
) -> Method:
    def init(x: Vector, *, box: Any = None) -> ForeignState:
        del box  # the loop projects
        zero, zeros = jnp.zeros((), vec.scalar_dtype(x)), vec.zeros(x)
        return ForeignState(
            trial=x,
            iterate=Iterate(x, zero, zeros),
            accepted=jnp.zeros((), bool),
            nit=jnp.full((), -1, jnp.int32),
            status=jnp.full((), Status.RUNNING, jnp.int32),
            inner=jax.tree.map(jnp.asarray, transformation.init(x)),
        )

    def observe(grad: Vector, state: ForeignState, x: Vector, *, value: jax.Array) -> ForeignState:
        iterate = Iterate(x, value.astype(state.iterate.f.dtype), grad)
        # A point without a finite value is not an iterate, unless it is x0.
        finite = (state.nit < 0) | ((value < jnp.inf) & jnp.isfinite(vec.max_abs(grad)))
        return state._replace(
            trial=x,
            iterate=vec.where(finite, iterate, state.iterate),
            accepted=finite,
            nit=state.nit + finite.astype(jnp.int32),
            status=jnp.where(finite, Status.RUNNING, Status.NAN).astype(jnp.int32),
        )

    def update(
        grad: Vector, state: ForeignState, x: Vector, *, value: jax.Array, value_fn: Callable[[Vector], Any]
    ) -> tuple[Vector, ForeignState]:
        updates, inner = transformation.update(
            grad, state.inner, x, value=value, grad=grad, value_fn=lambda params: value_fn(to_vector(params))
        )
        inner = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), inner, state.inner)
        return updates, state._replace(trial=vec.axpy(1, updates, x), inner=inner)

    def known(state: ForeignState) -> tuple[jax.Array, Vector] | None:
        found = stored(state.inner, to_params(state.trial))
        return None if found is None else (found[0], to_vector(found[1]))

    return Method(init, update, Foreign.wants, observe=observe, stored=known)
