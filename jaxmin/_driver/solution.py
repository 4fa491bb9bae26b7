"""What a solve gives, as arrays."""

from typing import Any, NamedTuple

from jaxmin._core import vector as vec
from jaxmin._core.box import gradient_norm


class Solution(NamedTuple):
    """What a solve gives, as arrays."""

    x: Any  # [n], or a tuple of arrays
    f: Any  # []
    g: Any  # like x
    aux: Any
    status: Any  # [] int32
    others: Any  # what has no derivative: counts, the curvature


class Bounded(NamedTuple):
    """What a result says of bounds; None where there are none."""

    gnorm: Any = None  # [] the infinity norm of the projected gradient; of leaves kept apart without bounds too
    active: Any = None  # -1, 0 or 1 for each variable, in the leaves' shapes


def bounded(variables, within, solution):
    """The ``Bounded`` of a solution."""
    x, g = solution.x, solution.g
    if within is None:  # a sharded gradient would have to be gathered for its norm to be told
        return Bounded(None if variables.flat else gradient_norm(x, g))
    gnorm = gradient_norm(x, g, within)
    g = vec.zeros(x) if g is None else g  # without a gradient: where x is at a bound
    return Bounded(gnorm, variables.parts(within.active(x, g)))
