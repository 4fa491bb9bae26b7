"""The names for your own methods and line searches.

=================  =====================================================================
name               what it is
=================  =====================================================================
``Method``         a minimiser: two pure functions and what they want of a problem
``Iterate``        an accepted point, with f and the gradient there
``Status``         how a solve ended, or ``Status.RUNNING``
``Defaults``       the tolerances and limits of a method
``PerVariable``    a limit in proportion to the number of variables
``PerDtype``       a tolerance for each precision
``Usual``          a part of a method that most solves need no more than
``Rest``           what goes on where such a part cannot
``Rows``           the constraints at a point, with their limits
``Kkt``            what the tests of a constrained solve read at an iterate
``Multipliers``    those of an earlier solve, with which a method for constraints may begin
``Box``            the bounds, and what they do to points and gradients
``Unbounded``      the same without bounds
``Region``         the same in a convex set of ``jaxmin.sets``
``Direction``      a rule for a descent direction
``descend``        a method, made of a ``Direction`` and a ``LineSearch``
``LineSearch``     a search for a step along a direction; it sees numbers only
``Start``          what a line search knows before its first trial
``search``         for a parameter ``linesearch``: a converter of names and searches
``builder``        a decorator that checks constants and declares names
``vector``         operations on an array, or on a pytree of arrays
``Dense``          an inverse Hessian as a matrix, for ``Method.inverse_hessian``
``Compact``        the same as the last pairs of an L-BFGS matrix
``Unlimited``      the same as the L-BFGS matrix of all pairs, for few variables
=================  =====================================================================

The pages "Writing a method" and "Writing a line search" use nothing else.
"""

from jaxmin._cache.builder import builder
from jaxmin._core import vector
from jaxmin._core.box import Box, Unbounded
from jaxmin._core.convex_set import Region
from jaxmin._core.inverse_hessian import Compact, Dense, Unlimited
from jaxmin._core.kkt import Kkt, Multipliers, Rows
from jaxmin._core.protocol import (
    Defaults,
    Direction,
    Iterate,
    LineSearch,
    Method,
    PerDtype,
    PerVariable,
    Rest,
    Start,
    Usual,
)
from jaxmin._core.status import Status
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend

__all__ = [
    "Box", "Compact", "Defaults", "Dense", "Direction", "Iterate", "Kkt", "LineSearch", "Method", "Multipliers",
    "PerDtype", "PerVariable", "Region", "Rest", "Rows", "Start", "Status", "Unbounded", "Unlimited", "Usual",
    "builder", "descend", "search", "vector",
]  # fmt: skip
