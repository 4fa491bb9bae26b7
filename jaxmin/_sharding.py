"""Leaves of x0 that are spread over several devices, and the form that the vector has for their sake."""

import jax

from jaxmin._registry import entries
from jaxmin._x0 import ApartVariables


def in_form(flat, problem, method):
    """The ``Problem`` with x as the method is to have it: one flat vector, or a tuple of its leaves.

    Joined leaves are one array, which no sharding of theirs fits: each device would get all of it.

    Args:
      flat: ``options["flat"]``: True joins, False does not, None joins unless a leaf is sharded over several devices
        and the method can do without.
      problem: a ``Problem`` whose variables are flat.
      method: a ``Method`` or a ``Foreign``.

    Raises:
      TypeError, ValueError: naming options["flat"].
    """
    if flat is not None and not isinstance(flat, bool):
        raise TypeError(f"options['flat']={flat!r}: True, False or None")
    able = method.trees and problem.trace.by_hand != "hess"
    if flat is None:
        flat = not (able and any(map(_is_sharded, problem.leaves)))
    if flat:
        return problem
    if not able:
        why = "hess gives one matrix; hessp does not" if method.trees else f"this method does not; {_those_that_do()} do"
        raise ValueError(f"options['flat']=False: leaves of x0 kept apart; {why}. True joins them to one vector")
    return problem._replace(variables=ApartVariables(problem.leaves, wide=problem.trace.value_dtype))


def _is_sharded(leaf):
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return known and not leaf.sharding.is_fully_replicated


def _those_that_do():
    able = [name for name, entry in entries("methods").items() if entry.build().trees]
    return f"{', '.join(map(repr, able))} and transformations"
