"""Transformations one after the other, or each on its own part of the parameters; and the move itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.pytree import check_tree
from jaxmin._core.typing import PyTree, TransformationLike
from jaxmin.transforms._transformation import Transformation, is_transformation, taken


class Masked(NamedTuple):
    """Stands where another group's parameters are: a node without leaves, which ``jax.tree.map`` skips."""


class PartitionState(NamedTuple):
    inner_states: dict[Any, PyTree]  # each transformation's state


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """params + updates, each leaf in its own dtype.

    Args:
      params: a pytree of numbers and arrays.
      updates: built like params; where it holds None, the leaf of params stays as it is.

    Returns:
      A pytree like params.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import apply_updates
    >>> print(apply_updates({"w": jnp.ones(2, "float16")}, {"w": jnp.array([0.5, -0.5])})["w"].dtype)
    float16

    References:
      The function of the same name in Optax.
    """

    def moved(u: Any, p: Any) -> Any:
        return p if u is None else (jnp.asarray(p) + u).astype(jnp.result_type(p))

    return jax.tree.map(moved, updates, params, is_leaf=lambda u: u is None)


def chain(*transformations: TransformationLike) -> Transformation:
    """Apply transformations one after the other: each is given the last one's updates for gradients.

    Args:
      transformations: this package's, Optax's or, as the last one, a method such as ``jaxmin.lbfgs()``.
        Keyword arguments of ``update`` go to those that take them. Anything else is a TypeError.

    Returns:
      A ``Transformation``; its state is the tuple of theirs.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import chain, clip_by_global_norm, sgd
    >>> tx = chain(clip_by_global_norm(2.5), sgd(2.0))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print(updates)
    [-3. -4.]

    References:
      The function of the same name in Optax.
    """
    for number, transformation in enumerate(transformations):
        _check_member(f"transformations[{number}]", transformation)

    def init(params: PyTree) -> PyTree:
        return tuple(member.init(params) for member in transformations)

    def update(grads: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        new = []
        for member, member_state in zip(transformations, state, strict=True):
            grads, member_state = member.update(grads, member_state, params, **taken(member.update, extra))
            new.append(member_state)
        return grads, tuple(new)

    return Transformation(init, update)


def partition(
    transformations: dict[Any, TransformationLike], labels: PyTree | Callable[[PyTree], PyTree]
) -> Transformation:
    """Apply to each part of the parameters the transformation whose label it bears.

    Args:
      transformations: a dictionary from labels to transformations, this package's or Optax's. Keyword
        arguments of ``update`` go, as they are, to those that take them. Anything else is a TypeError.
      labels: a pytree of labels built like params, or like their upper part: one label then holds for all
        below it; or a callable that makes it of params. A tree that does not fit is a TypeError, a label
        that transformations lacks a ValueError.

    Returns:
      A ``Transformation``. Each member sees its own leaves only: those of the others are empty nodes.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import apply_updates, partition, sgd
    >>> tx = partition({"down": sgd(0.5), "up": sgd(-0.5)}, {"x": "down", "y": "up"})
    >>> params = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> updates, state = tx.update({"x": 1.0, "y": 1.0}, tx.init(params), params)
    >>> {name: float(p) for name, p in apply_updates(params, updates).items()}
    {'x': 0.5, 'y': 1.5}

    References:
      The function of the same name in Optax; there it is called ``multi_transform`` as well.
    """
    if not isinstance(transformations, dict):
        raise TypeError(f"transformations={transformations!r}: a dictionary from labels to transformations")
    for label, transformation in transformations.items():
        _check_member(f"transformations[{label!r}]", transformation)
    members = dict(transformations)

    def labels_of(params: PyTree, name: str) -> tuple[PyTree, list[PyTree]]:
        made = labels(params) if callable(labels) else labels
        unknown = {label for label in jax.tree.leaves(made) if label not in members}
        if unknown:
            choices = ", ".join(map(repr, members))
            raise ValueError(f"labels: no transformation for {unknown}; the choices are {choices}")
        return made, _parts(made, params, name)

    def only(group: Any, made: PyTree, parts: list[PyTree]) -> PyTree:
        found, above = jax.tree.flatten(made)
        return above.unflatten([part if label == group else Masked() for label, part in zip(found, parts, strict=True)])

    def init(params: PyTree) -> PartitionState:
        made, parts = labels_of(params, "params")
        return PartitionState({group: member.init(only(group, made, parts)) for group, member in members.items()})

    def update(
        grads: PyTree, state: PartitionState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, PartitionState]:
        if params is None:
            made, of_grads = labels_of(grads, "grads")
        else:
            check_tree("grads", grads, params)
            made, of_params = labels_of(params, "params")
            of_grads = _parts(made, grads, "grads")
        parts, new = {}, {}
        for group, member in members.items():
            own_params = None if params is None else only(group, made, of_params)
            own_grads, own_state = only(group, made, of_grads), state.inner_states[group]
            own_extra = taken(member.update, extra)
            updates, new[group] = member.update(own_grads, own_state, own_params, **own_extra)
            parts[group] = _parts(made, updates, "updates")
        found, above = jax.tree.flatten(made)
        return above.unflatten([parts[label][n] for n, label in enumerate(found)]), PartitionState(new)

    return Transformation(init, update)


multi_transform = partition


def _parts(labels: PyTree, tree: PyTree, name: str) -> list[PyTree]:
    """What stands below each label."""
    above = jax.tree.structure(labels)
    try:
        return above.flatten_up_to(tree)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: labels do not fit its tree: {above} against {jax.tree.structure(tree)}") from None


def _check_member(name: str, thing: Any) -> None:
    if not is_transformation(thing):
        raise TypeError(f"{name}={thing!r}: a transformation, with init and update; call the function that builds it")
