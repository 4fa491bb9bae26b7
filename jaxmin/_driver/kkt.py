r"""Derivatives of a solution within constraints, by the equations of Karush, Kuhn and Tucker.

With the Lagrangian :math:`L = f + v \cdot c + w \cdot x`, a solution has :math:`\nabla_x L = 0`, and the product of
each multiplier and the distance from its limit is 0, or the little that the method has left. Differentiated,

.. math::
    H \dot x + J^T \dot v + \dot w &= -\nabla_\theta \nabla_x (f + v \cdot c) \; \dot\theta \\
    |v| \, (J \dot x + \nabla_\theta c \; \dot\theta - \dot u) &= (u - c) \, \dot v \\
    |w| \, (\dot x - \dot b) &= (b - x) \, \dot w

for rows and variables at upper limits u and b, and likewise for lower ones. H is the Hessian of :math:`f + v \cdot c`.
A row far from its limits keeps its multiplier, and one at a limit goes with it; nothing has to decide which. Where the
limits are equal, the distance is 0.

References:
  A. V. Fiacco, Introduction to Sensitivity and Stability Analysis in Nonlinear Programming, 1983, Chapters 3 and 6.
  N. I. M. Gould, Math. Program. 32 (1985), 90-99: the inertia of the matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.kkt import Kkt
from jaxmin._driver.ending import is_at_minimum, is_success
from jaxmin._driver.evaluation import symmetric
from jaxmin._driver.newton import flat
from jaxmin._driver.tangents import is_inexact, nothing

# So often the matrix is scaled by its largest elements before its eigenvalues are counted.
_SCALINGS = 4


class Hold(NamedTuple):
    """How limits hold rows, or bounds variables: firm (its change - that of the limit) = loose (the multiplier's)."""

    firm: Any  # [k] 1 at a limit, 0 where the multiplier is 0
    loose: Any  # [k] 0 at a limit
    upper: Any  # [k] bool: the limit is the upper one
    finite: Any  # [k] bool: there is a limit
    equal: Any  # [k] bool: both limits are the same

    def of_limits(self, lower, upper):
        """From two vectors, one for each side, the elements of the limits that hold; 0 where there is no limit."""
        return jnp.where(self.finite, jnp.where(self.upper, upper, lower), 0)


class System(NamedTuple):
    """The equations for the changes of x and of the multipliers of the rows."""

    K: Any  # [n + m, n + m]
    H: Any  # [n, n] the Hessian of f + v.c
    J: Any  # [m, n]
    variables: Hold
    rows: Hold
    w: Any  # [n] the multipliers of the bounds
    missing: Any  # the right-hand sides that lead from x and v to the solution
    determined: Any  # [] bool: H is positive definite along all that no limit holds
    unique: Any  # [] bool: the multipliers are, since the gradients of all that limits hold are independent

    def solve(self, slopes, bounds, limits):
        """The changes of x and v, for right-hand sides: [n] of the slopes, [n] of the bounds, [m] of the limits."""
        x, rows = self.variables, self.rows
        b = jnp.concatenate([x.loose * slopes + x.firm * bounds, rows.firm * limits])
        # Pivots are chosen by size: each equation in units of its own.
        units = lax.stop_gradient(1 / jnp.max(jnp.abs(self.K), axis=1))
        both = jnp.linalg.solve(self.K * units[:, None], b * units)
        return both[: slopes.size], both[slopes.size :]


def change(functions, inputs, inputs_dot, solution):
    """The tangents of a constrained solution, where the inputs change so.

    Args:
      functions: the ``Functions`` of the problem.
      inputs, inputs_dot: ``Inputs`` and their change.
      solution: a ``Solution``. An ending by ftol or xtol is good where Newton's step from there is short.

    Returns:
      The tangents of x, of f, of the leaves of aux that have any, and of the ``Kkt``.
    """
    x, kkt, evaluate = solution.x, solution.kkt, functions.evaluate
    found, by_inputs = jax.jvp(lambda inputs: evaluate(x, inputs, kkt.v), (inputs,), (inputs_dot,))
    system = _system(functions, inputs, solution, found)
    # Newton's step is short where x is near the solution; where a search has failed, the multipliers may be wrong.
    at_minimum = is_success(solution) & is_at_minimum(solution, lambda: system.solve(*system.missing)[0])
    valid = lambda holds: jnp.where(holds, 1, jnp.nan).astype(x.dtype)

    c_dot, limits = by_inputs.extras["constraints"].c, inputs_dot.rows
    limits_dot = system.rows.of_limits(limits.lower, limits.upper)
    bounds_dot = system.variables.of_limits(*inputs_dot.box) if inputs.box.bounded else jnp.zeros_like(x)
    # Reverse mode leaves out an input that the gradient does not see: by nothing it sees them all, and so does NaN.
    zero = nothing(inputs_dot).astype(x.dtype)
    slope_dot = _slope(by_inputs, kkt.v) + zero
    x_dot, v_dot = system.solve(-slope_dot, bounds_dot, limits_dot - c_dot)
    x_dot = x_dot * valid(at_minimum & system.determined)
    v_dot = v_dot * valid(at_minimum & system.determined & system.unique)
    # The value changes with the Lagrangian, as if x and the multipliers stood still.
    of_rows, of_bounds = _dot(kkt.v, c_dot - limits_dot), _dot(system.w, bounds_dot)
    f_dot = (by_inputs.value + zero + of_rows - of_bounds) * valid(at_minimum)

    slope_dot = slope_dot + _dot(system.H, x_dot) + _dot(v_dot, system.J)
    w_dot = jnp.where(system.variables.finite & ~system.variables.equal, -slope_dot, 0)
    rows_dot = limits._replace(c=c_dot + _dot(system.J, x_dot))
    kkt_dot = Kkt(rows_dot, v_dot, w_dot, slope_dot, jnp.zeros_like(kkt.unit))
    kkt_dot = jax.tree.map(lambda dot, leaf: dot.astype(leaf.dtype), kkt_dot, kkt)
    aux_dot = []
    if jax.tree.leaves(found.aux):
        aux_dot = jax.tree.leaves(jax.jvp(lambda *given: evaluate(*given).aux, (x, inputs), (x_dot, inputs_dot))[1])
    return x_dot, f_dot.astype(solution.f.dtype), [leaf for leaf in aux_dot if is_inexact(leaf)], kkt_dot


def _dot(a, b):
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _slope(found, v):
    """The gradient of f + v.c, where v stands still."""
    extras = found.extras
    pull = extras.get("constraint_pull")  # without J its derivative is cheap, for any number of rows
    return found.grad + (_dot(v, extras["constraint_jacobian"]) if pull is None else pull)


def _system(functions, inputs, solution, found):
    """The ``System`` at a solution."""
    x, kkt, evaluate = solution.x, solution.kkt, functions.evaluate
    J = functions.jacobian(x, inputs)
    c, *limits = found.extras["constraints"]
    bounds = inputs.box if inputs.box.bounded else (jnp.full_like(x, -jnp.inf), jnp.full_like(x, jnp.inf))
    slope = _slope(found, kkt.v)
    w = jnp.where(bounds[0] == bounds[1], -slope, kkt.w)  # a method need not know that of a fixed variable
    H = symmetric(lambda d: jax.jvp(lambda x: _slope(evaluate(x, inputs, kkt.v), kkt.v), (x,), (d,))[1], x)

    size, steep = jnp.maximum(jnp.abs(x), 1), jnp.max(jnp.abs(found.grad), initial=0)
    steep = jnp.where(steep > 0, steep, 1)
    variables = _hold(w, x, bounds, steep / size)
    unit = jnp.maximum(kkt.unit, jnp.finfo(x.dtype).eps)
    rows = _hold(kkt.v, c, limits, steep / (unit**2 * jnp.max(size)))
    determined, unique, soft = _examined(H, J, variables, rows)
    # Where rows depend on each other, a little give makes the equations regular, and leaves x as it is.
    loose = rows.loose + jnp.where(unique, 0, soft) * rows.firm
    of_slopes = variables.loose[:, None] * jnp.concatenate([H, J.T], axis=1)
    of_rows = jnp.concatenate([rows.firm[:, None] * J, -jnp.diag(loose)], axis=1)
    K = jnp.concatenate([of_slopes, of_rows]) + jnp.diag(jnp.concatenate([variables.firm, jnp.zeros_like(loose)]))
    to_bounds, to_limits = (
        hold.of_limits(*(limit - at for limit in ends))
        for hold, at, ends in ((variables, x, bounds), (rows, c, limits))
    )
    return System(K, H, J, variables, rows, w, (-slope, to_bounds, to_limits), determined, unique)


def _hold(multiplier, value, limits, price):
    """The ``Hold`` of limits on a value.

    Args:
      price: how much a distance counts beside a multiplier; the equations do not depend on it.
    """
    lower, upper = limits
    above, equal = multiplier > 0, lower == upper
    finite = jnp.isfinite(jnp.where(above, upper, lower))
    gap = jnp.maximum(jnp.where(above, upper - value, value - lower), 0)
    gap = jnp.where(equal, 0, jnp.where(finite, gap, 1))
    pull = jnp.where(equal, 1, jnp.where(finite, jnp.abs(multiplier), 0))
    whole = pull + lax.stop_gradient(price) * gap
    # With both 0 it stays at the limit.
    some = whole > 0
    whole = jnp.where(some, whole, 1)
    return Hold(jnp.where(some, pull / whole, 1), gap / whole, above, finite, equal)


def _examined(H, J, variables, rows):
    """(determined, unique, soft): see ``System``; soft [m] is a little beside what ``loose`` may be for each row.

    What is held by more than half counts as held. The matrix then has n positive eigenvalues if and only if H is
    positive definite along all that is not held, and m negative ones where no row depends on others.
    """
    (m, n), held, active = J.shape, variables.firm > 0.5, rows.firm > 0.5
    H = jnp.where(held[:, None] | held[None, :], 0, H) + jnp.diag(held.astype(H.dtype))
    J = jnp.where(active[:, None] & ~held[None, :], J, 0)
    M = lax.stop_gradient(jnp.block([[H, J.T], [J, -jnp.diag((~active).astype(H.dtype))]]))
    scale = jnp.ones(n + m, M.dtype)
    for _ in range(_SCALINGS):
        largest = jnp.max(jnp.abs(scale[:, None] * M * scale[None, :]), axis=1)
        scale = scale / jnp.sqrt(jnp.where(largest > 0, largest, 1))
    eigenvalues = jnp.linalg.eigvalsh(scale[:, None] * M * scale[None, :])
    little = jnp.sqrt(jnp.finfo(M.dtype).eps)
    determined = jnp.sum(eigenvalues > flat(n + m, M.dtype)) == n
    return determined, jnp.sum(eigenvalues < -little) == m, little / scale[n:] ** 2
