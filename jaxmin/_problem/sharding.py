"""Leaves of x0 that are spread over several devices, and the form that the vector has for their sake."""

from collections.abc import Callable
from typing import Any

import jax

from jaxmin._core.box import Box, Unbounded
from jaxmin._core.variables import ApartVariables
from jaxmin._core.vector import typed_sharding
from jaxmin._problem.objective import Problem


def in_form(flat: Any, problem: Problem, method: Any, choices: Callable[[], str]) -> Problem:
    """The ``Problem`` with x as the method is to have it: one flat vector, or a tuple of its leaves.

    Joined leaves are one array, which no sharding of theirs fits: each device would get all of it.

    Args:
      flat: ``options["flat"]``: True joins, False does not, None joins unless a leaf is sharded over several devices
        and the method can do without.
      problem: a ``Problem`` whose variables are flat.
      method: a ``Method`` or a ``Foreign``.
      choices: ``choices()`` gives the methods that work on leaves apart, in words, for a message.

    Raises:
      TypeError, ValueError: naming options["flat"].
    """
    if flat is not None and not isinstance(flat, bool):
        raise TypeError(f"options['flat']={flat!r}: True, False or None")
    able = method.trees and problem.trace.by_hand != "hess"
    if flat is None:
        flat = not (able and any(map(_is_sharded, problem.leaves)))
    if flat:
        is_one_vector = len(problem.leaves) == 1 and problem.leaves[0].ndim <= 1  # which is not moved
        if not is_one_vector and any(_is_sharded(u) and typed_sharding(u) for u in problem.leaves):
            raise ValueError(
                "x0: leaves sharded over explicit axes of a mesh, and this method works on one flat vector of them; "
                f"jax.sharding.reshard gathers them, {choices()} take them as they are"
            )
        return problem
    if not able:
        why = "hess gives one matrix; hessp works" if method.trees else f"use one of {choices()}"
        raise ValueError(f"options['flat']=False: this method works on one flat vector of x0's leaves; {why}")
    return problem._replace(variables=ApartVariables(problem.leaves, wide=problem.trace.value_dtype))


def placed(box: Box | Unbounded, problem: Problem) -> Box | Unbounded:
    """The box with each bound on the devices of its leaf of x0, where leaves are not joined."""
    if not box.bounded or problem.variables.flat:
        return box

    def beside(bounds: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        pairs = zip(bounds, problem.leaves)
        return tuple(jax.device_put(bound, leaf.sharding) if _is_sharded(leaf) else bound for bound, leaf in pairs)

    return Box(*map(beside, box))


def _is_sharded(leaf: Any) -> bool:
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return known and not leaf.sharding.is_fully_replicated
