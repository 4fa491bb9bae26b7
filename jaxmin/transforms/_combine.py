"""Apply transformations one after another, or each to its own part of the parameters; and apply updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core.pytree import check_tree
from jaxmin._core.typing import PyTree, TransformationLike
from jaxmin.transforms._transformation import Transformation, is_transformation, taken


class Masked(NamedTuple):
    """Takes the place of another group's parameters: a node without leaves, which ``jax.tree.map`` skips."""


class PartitionState(NamedTuple):
    """The state of :func:`partition`."""

    inner_states: dict[Any, PyTree]  # each transformation's state


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """params + updates, each leaf in its own dtype.

    Args:
      params: a pytree of numbers and arrays.
      updates: a pytree like params. A leaf of params does not change if its update is None.

    Returns:
      A pytree like params.

    Raises:
      ValueError: if the structures of params and updates differ.

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
    """Apply transformations one after another: the updates of each are the gradients of the next.

    Args:
      transformations: those of this package, those of Optax or, as the last one, a method such as
        ``jaxmin.lbfgs()``. Keyword arguments of ``update`` go to those that accept them.

    Returns:
      A ``Transformation``. Its state is the tuple of their states.

    Raises:
      TypeError: if one of them is not a transformation.

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
    """Apply to each part of the parameters the transformation with its label.

    Args:
      transformations: a dictionary from labels to transformations of this package or of Optax. Keyword arguments of
        ``update`` go unchanged to those that accept them.
      labels: a pytree of labels, built like params or like their upper part, where one label holds for everything
        below it. Or a callable that returns such a pytree for params.

    Returns:
      A ``Transformation``. Each member is given its own leaves only. Empty nodes replace the other leaves.

    Raises:
      TypeError: if a member is not a transformation; by ``init`` and ``update``, if the labels do not fit params.
      ValueError: by ``init`` and ``update``, for a label without a transformation.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import apply_updates, partition, sgd
    >>> tx = partition({"down": sgd(0.5), "up": sgd(-0.5)}, {"x": "down", "y": "up"})
    >>> params = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
    >>> updates, state = tx.update({"x": 1.0, "y": 1.0}, tx.init(params), params)
    >>> {name: float(p) for name, p in apply_updates(params, updates).items()}
    {'x': 0.5, 'y': 1.5}

    References:
      The function of the same name in Optax, which also has the name ``multi_transform``.
    """
    if not isinstance(transformations, dict):
        raise TypeError(f"transformations={transformations!r}: give a dictionary from labels to transformations")
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
    """The part of the tree below each label."""
    above = jax.tree.structure(labels)
    try:
        return above.flatten_up_to(tree)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: labels do not fit its tree; give labels built like {jax.tree.structure(tree)}, not {above}"
        ) from None


def _check_member(name: str, thing: Any) -> None:
    if not is_transformation(thing):
        raise TypeError(f"{name}={thing!r}: give a transformation, with init and update; call its builder")
