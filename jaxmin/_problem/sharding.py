"""Leaves of x0 that are sharded over several devices, and the form of the vector that keeps their sharding."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmin._core.box import Box, Within
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import ApartVariables
from jaxmin._core.vector import typed_sharding
from jaxmin._problem.objective import Problem


def check_manual(arrays: PyTree) -> None:
    """Raise inside ``jax.shard_map`` where arrays vary over the devices by their types: no loop passes then."""
    for leaf in jax.tree.leaves(arrays):
        if isinstance(leaf, jax.core.Tracer) and _varies(jax.typeof(leaf)):
            raise ValueError(
                "minimize inside jax.shard_map: write jax.shard_map(..., check_vma=False). Each device then solves its "
                "own problem. For one problem over all devices, whose fun would use psum, call minimize without "
                "shard_map, with sharded arrays in args"
            )


def _varies(of: Any) -> bool:
    """Whether the type of an array has axes of a mesh over which it varies; JAX has had two names for them."""
    return bool(getattr(of, "vma", None) or getattr(getattr(of, "manual_axis_type", None), "varying", None))


def in_form(flat: Any, problem: Problem, method: Any, choices: Callable[[], str]) -> Problem:
    """The ``Problem`` with x in the form for the method: one flat vector, or a tuple of its leaves.

    Joined leaves lose their sharding: each device would get the whole vector.

    Args:
      flat: ``options["flat"]``: True joins the leaves, False does not. None joins them unless one is sharded over
        several devices and the method works on leaves apart.
      problem: a ``Problem`` whose variables are flat.
      method: a ``Method`` or a ``Foreign``.
      choices: ``choices()`` returns the methods that work on leaves apart, in words, for a message.

    Raises:
      TypeError, ValueError: if ``options["flat"]`` does not fit; the message names it.
    """
    if flat is not None and not isinstance(flat, bool):
        raise TypeError(f"options['flat']={flat!r}: True, False or None")
    able = method.trees and problem.trace.by_hand != "hess"
    if flat is None:
        flat = not (able and any(map(_is_sharded, problem.leaves)))
    if flat:
        is_one_vector = len(problem.leaves) == 1 and problem.leaves[0].ndim <= 1  # it keeps its sharding
        if not is_one_vector and any(_is_sharded(u) and typed_sharding(u) for u in problem.leaves):
            raise ValueError(
                "x0: leaves sharded over explicit axes of a mesh, and this method works on one flat vector of them; "
                f"gather them with jax.sharding.reshard, or use one of {choices()}"
            )
        return problem
    if not able:
        why = "hess is one matrix; give hessp" if method.trees else f"use one of {choices()}"
        raise ValueError(f"options['flat']=False: this method works on one flat vector of x0's leaves; {why}")
    return problem._replace(variables=ApartVariables(problem.leaves, wide=problem.trace.value_dtype))


def placed(box: Within, problem: Problem) -> Within:
    """The box; if leaves are not joined, each bound is moved to the devices of its leaf of x0."""
    if not isinstance(box, Box) or problem.variables.flat:
        return box

    def with_leaves(bounds: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        pairs = zip(bounds, problem.leaves)
        return tuple(jax.device_put(bound, leaf.sharding) if _is_sharded(leaf) else bound for bound, leaf in pairs)

    return Box(*map(with_leaves, box))


def _is_sharded(leaf: Any) -> bool:
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return known and not leaf.sharding.is_fully_replicated
