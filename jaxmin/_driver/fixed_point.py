r"""Derivatives of a solution within a convex set, by the equation of its fixed point.

Where P projects onto the set, a solution has :math:`x = P(x - s g)` for any s > 0. The derivative D of P there is
symmetric, with eigenvalues from 0 to 1. With the Hessian H of f, and the changes :math:`\partial g` and
:math:`\partial P` that come from the inputs alone,

.. math::
    (s H - I) \, \dot x + w &= -s \; \partial g \\
    \dot x - D w &= \partial P

In the directions that the set leaves free D is 1 where its boundary is flat, and less where it is curved; across its
boundary it is 0. The minimum is a strict one if :math:`I - D + s \, D^{1/2} H D^{1/2}` is positive definite: on a flat
face that is H along the face, and otherwise the curvature of the boundary, by the multiplier, is added. The equations
then have one solution.

The value changes by :math:`\partial f + g \cdot \partial P` (the envelope theorem), since :math:`D g = 0`.

References:
  J. F. Bonnans and A. Shapiro, Perturbation Analysis of Optimization Problems, 2000, Sections 4.3 and 5.2.
  M. Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022, Section 2.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.inverse_hessian import times
from jaxmin._driver.ending import is_at_minimum, nearer
from jaxmin._driver.evaluation import symmetric
from jaxmin._driver.newton import DENSE_MAX, factor_beside, flat, solved_by_steps
from jaxmin._driver.tangents import is_inexact, nothing


class Equations(NamedTuple):
    """The equations at a point x."""

    g: Any  # [n] the gradient
    s: Any  # [] > 0
    z: Any  # [n] -s g
    hessian: Callable[[jax.Array], jax.Array]  # v -> s H v
    tangent: Callable[[jax.Array], jax.Array]  # v -> D v
    missing: Any  # [n] P(x - s g) - x, which is 0 at a solution

    def solve(self, a, b):
        """The change of x, for two right-hand sides; NaN where the minimum is not a strict one."""

        def product(unknowns):
            x, w = unknowns
            return jnp.stack([self.hessian(x) - x + w, x - self.tangent(w)])

        def solve(_, sides):
            a, b = sides
            x = (_by_matrices if b.size <= DENSE_MAX else _by_steps)(self.hessian, self.tangent, a, b)
            return jnp.stack([x, a + x - self.hessian(x)])

        # For x and w they are symmetric: nothing is transposed, and derivatives of any order have the same matrix.
        # One array, as JAX transposes a solve only where all of its right-hand sides are linear.
        return lax.custom_linear_solve(product, jnp.stack([a, b]), solve, symmetric=True)[0]

    def newton(self):
        """Newton's step."""
        return self.solve(jnp.zeros_like(self.missing), self.missing)


def change(functions, inputs, inputs_dot, solution):
    """The tangents of a solution in a set, where the inputs change so.

    Args:
      functions: the ``Functions`` of the problem.
      inputs, inputs_dot: ``Inputs``, with a ``Region``, and their change.
      solution: a ``Solution``. From an ending by ftol or xtol the derivatives are taken two of Newton's steps further.

    Returns:
      The tangents of x, of f, of the leaves of aux that have any, and None.
    """
    evaluate, box, box_dot = functions.evaluate, inputs.box.exact(), inputs_dot.box.exact()

    def gradient(x, inputs=inputs):
        g = evaluate(x, inputs)[1]
        return jax.grad(lambda x: evaluate(x, inputs)[0])(x) if g is None else g  # of a method that wants none

    x = nearer(solution, solution.x, lambda x: box.clip(x + _equations(gradient, box, x).newton()))
    system = _equations(gradient, box, x)
    at_minimum = is_at_minimum(solution, system.newton)
    valid = jnp.where(at_minimum, 1, jnp.nan).astype(x.dtype)

    # Reverse mode leaves out an input that the gradient does not see: by nothing it sees them all, and so does NaN.
    zero = nothing(inputs_dot).astype(x.dtype)
    g_dot = jax.jvp(lambda inputs: gradient(x, inputs), (inputs,), (inputs_dot,))[1]
    P_dot = jax.jvp(lambda box: box.within.move(x, system.z), (box,), (box_dot,))[1] + zero
    x_dot = system.solve(-system.s * g_dot, P_dot) * valid
    f_dot = jax.jvp(lambda inputs: evaluate(x, inputs)[0], (inputs,), (inputs_dot,))[1]
    f_dot = (f_dot + vec.dot(system.g, P_dot)) * valid
    aux_dot = jax.jvp(lambda x, inputs: evaluate(x, inputs)[2], (x, inputs), (x_dot, inputs_dot))[1]
    aux_dot = [leaf for leaf in jax.tree.leaves(aux_dot) if is_inexact(leaf)]
    return x_dot, f_dot.astype(solution.f.dtype), aux_dot, None


def _equations(gradient, box, x):
    """The ``Equations`` at x.

    s is about 1 / |H|: what is missing of x is then about an error of x, and both terms of the matrix count alike. It
    is less where s g would exceed x, and hide it.
    """
    g, product = jax.linearize(gradient, x)
    steep = vec.norm(product(vec.probe(x))) + vec.max_abs(g) / jnp.maximum(vec.max_abs(x), 1)
    s = lax.stop_gradient(1 / jnp.where(steep == 0, 1, steep)).astype(x.dtype)
    z = -s * g
    missing, tangent = jax.linearize(lambda d: box.within.move(x, d), z)
    return Equations(g, s, z, lambda v: s * product(v), tangent, missing)


def _by_matrices(hessian, tangent, a, b):
    """The change of x, from (I - D + s D H) x = b + D a."""
    eye = jnp.eye(b.size, dtype=b.dtype)
    H, D = symmetric(hessian, b), symmetric(tangent, b)
    x = jnp.linalg.solve(eye - D + times(D, H), b + tangent(a))
    return x * jnp.where(_is_strict(H, D), 1, jnp.nan).astype(b.dtype)


def _is_strict(H, D):
    """Whether I - D + D^(1/2) H D^(1/2) is positive definite by more than rounding, for an H times s."""
    d, V = jnp.linalg.eigh(D)
    d, V = jnp.clip(d, 0, 1), V * jnp.sqrt(jnp.clip(d, 0, 1))
    curved = jnp.where(1 - d > flat(d.size, D.dtype), 1 - d, 0)
    S = times(V.T, times(H, V)) + jnp.diag(curved)
    # A diagonal element is known up to the rounding of its sum.
    terms = curved + jnp.sum(jnp.abs(V) * times(jnp.abs(H), jnp.abs(V)), axis=0)
    return factor_beside(S, terms)[1]


def _by_steps(hessian, tangent, a, b):
    """The change of x by conjugate gradients, from D (I - D + s H D) w = D (a + b - s H b) and x = b + D w."""

    def product(w):
        inside = tangent(w)
        return tangent(w - inside + hessian(inside))

    # Both right-hand sides are among what D gives, and so are all steps.
    probe = tangent(vec.probe(b))
    return b + tangent(solved_by_steps(product, tangent(a + b - hessian(b)), probe))
