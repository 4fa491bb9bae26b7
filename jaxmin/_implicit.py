"""Derivatives of a solution, by the implicit function theorem."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _vector as vec
from jaxmin._result import FTOL, PRECISION_LOSS, STATUS, XTOL
from jaxmin._seldom import anywhere

# Up to so many variables the Hessian is formed and factorised; more, and leaves kept apart, are left to conjugate
# gradients.
_DENSE_MAX = 100
# Statuses that are no success, but whose point is a minimum as far as the tolerances, or the dtype, can tell.
_AT_A_MINIMUM = sorted({PRECISION_LOSS, FTOL, XTOL} | {row.code for row in STATUS.values() if row.success})
# What rounding stopped is at a minimum if Newton's step from there is shorter than so much of x.
_NEAR = 1e-2


class Solution(NamedTuple):
    """What a solve gives, as arrays."""

    x: Any  # [n], or a tuple of arrays
    f: Any  # []
    g: Any  # like x
    aux: Any
    status: Any  # [] int32
    others: Any  # what has no derivative: counts, the curvature


def implicit(solve, evaluate):
    r"""The solve with the derivatives of its solution with respect to the inputs.

    At a minimum :math:`g(x, \theta) = 0`, hence

    .. math:: \nabla_x g \; \dot x = -\nabla_\theta g \; \dot\theta.

    Along it the value changes as if x stood still (the envelope theorem); the aux with both; the gradient not
    at all. Variables held at a bound go with the bound. x0 and the limits have no influence on where a minimum
    is. Where the solve did not end at a minimum, or its Hessian is not positive definite, the derivatives of x
    are NaN.

    Args:
      solve: (x0, inputs, limits) -> ``Solution``.
      evaluate: (x, inputs) -> (value, grad, aux). The last of the inputs is the ``Box``, or None.

    Returns:
      A function like ``solve`` with forward- and reverse-mode derivatives of any order.

    References:
      A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., 2008, Section 15.1.
    """
    solved = jax.custom_jvp(solve)

    @solved.defjvp
    def rule(primals, tangents):
        x0, inputs, limits = primals
        inputs_dot = tangents[1]
        solution = solved(x0, inputs, limits)
        x = solution.x

        box, box_dot = inputs[-1], inputs_dot[-1]

        def gradient(x, inputs):
            g = evaluate(x, inputs)[1]
            return jax.grad(lambda x: evaluate(x, inputs)[0])(x) if g is None else g  # of a method that wants none

        g = gradient(x, inputs) if solution.g is None else solution.g
        held = None if box is None else box.binding(x, g)
        free = jax.tree.map(lambda held: held == 0, held)

        def hessian(v):
            return jax.jvp(lambda x: gradient(x, inputs), (x,), (v,))[1]

        def among_free(v):
            return box.only(free, hessian(box.only(free, v)), v)

        def is_near():
            step = _solve_linear(hessian if box is None else among_free, g if box is None else box.only(free, g))
            return vec.max_abs(step) <= _NEAR * jnp.maximum(vec.max_abs(x), 1)

        b = jax.tree.map(jnp.negative, jax.jvp(lambda inputs: gradient(x, inputs), (inputs,), (inputs_dot,))[1])
        x_dot = vec.zeros(x)
        f_bounds: Any = 0
        if box is not None:  # what is held at a bound goes with it, and moves the others
            x_dot = jax.tree.map(
                lambda held, lower, upper: jnp.where(held < 0, lower, jnp.where(held > 0, upper, 0)), held, *box_dot
            )
            b = box.only(free, vec.sub(b, hessian(x_dot)))
            f_bounds = vec.dot(g, x_dot)  # what the value loses or gains with the bounds; for free variables g is 0
        at_minimum = jnp.isin(solution.status, jnp.asarray(_AT_A_MINIMUM))
        by_rounding = solution.status == PRECISION_LOSS
        at_minimum &= ~by_rounding | jax.lax.cond(anywhere(by_rounding), is_near, lambda: jnp.ones((), bool))
        valid = jnp.where(at_minimum, 1, jnp.nan).astype(vec.scalar_dtype(x))
        x_dot = vec.scale(valid, vec.add(x_dot, _solve_linear(hessian if box is None else among_free, b)))
        f_dot = jax.jvp(lambda inputs: evaluate(x, inputs)[0], (inputs,), (inputs_dot,))[1]
        f_dot = (f_dot + f_bounds) * valid
        aux_dot = jax.jvp(lambda x, inputs: evaluate(x, inputs)[2], (x, inputs), (x_dot, inputs_dot))[1]
        still = jax.tree.map(_no_tangent, solution)
        return solution, still._replace(x=x_dot, f=f_dot.astype(solution.f.dtype), aux=aux_dot)

    return solved


def refused(solve):
    """The solve without derivatives: an error where they are asked for, and not a wrong number."""
    solved = jax.custom_jvp(solve)

    @solved.defjvp
    def rule(primals, tangents):
        raise NotImplementedError("options['diff']='none': the solution has no derivatives; 'implicit' gives them")

    return solved


def _solve_linear(hessian, b):
    """The solution of H v = b for a positive definite H; NaN where it is not, or not solved."""
    eps, size = float(jnp.finfo(vec.scalar_dtype(b)).eps), vec.size(b)
    if size <= _DENSE_MAX and not isinstance(b, tuple):
        H = jax.vmap(hessian)(jnp.eye(size, dtype=b.dtype))
        L = jnp.linalg.cholesky((H + H.T) / 2)
        pivots = jnp.diagonal(L) ** 2 / jnp.maximum(jnp.diagonal(H), jnp.finfo(b.dtype).tiny)
        regular = jnp.all(pivots > 10 * size * eps)  # else what is left of a row is rounding
        return jax.scipy.linalg.cho_solve((L, True), b) * jnp.where(regular, 1, jnp.nan).astype(b.dtype)

    def conjugate_gradients(matvec, b):
        bb = vec.dot(b, b)

        def goes_on(carry):
            _, r, _, k, positive = carry
            return positive & (vec.dot(r, r) > (10 * eps) ** 2 * bb) & (k < min(10 * size, 10_000))

        def step(carry):
            v, r, d, k, _ = carry
            rr, Hd = vec.dot(r, r), matvec(d)
            dHd = vec.dot(d, Hd)
            alpha = rr / dHd
            v, r = vec.axpy(alpha, d, v), vec.axpy(-alpha, Hd, r)
            return v, r, vec.axpy(vec.dot(r, r) / rr, d, r), k + 1, dHd > 0

        v, r, *_, positive = jax.lax.while_loop(goes_on, step, (vec.zeros(b), b, b, 0, jnp.ones((), bool)))
        solved = positive & (vec.dot(r, r) <= eps**0.5 * bb)
        return vec.scale(jnp.where(solved, 1, jnp.nan), v)

    if isinstance(b, tuple):
        # Reverse mode wants all parts of b to depend on the inputs, or none: so each does, by nothing.
        nothing = 0 * functools.reduce(jnp.add, map(jnp.sum, b))
        b = tuple(part + nothing for part in b)
    return jax.lax.custom_linear_solve(hessian, b, conjugate_gradients, symmetric=True)


def _no_tangent(leaf):
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(jnp.shape(leaf), jax.dtypes.float0)


_MODES = {
    "implicit": implicit,
    "unroll": lambda solve, evaluate: solve,  # its trips have derivatives of their own
    "none": lambda solve, evaluate: refused(solve),
}


def check_mode(diff):
    """Raise unless ``options["diff"]`` is one of the modes."""
    if not isinstance(diff, str) or diff not in _MODES:
        raise ValueError(f"options['diff']={diff!r}: one of {', '.join(map(repr, _MODES))}")


def mode(diff):
    """What ``options["diff"]`` chooses: (solve, evaluate) -> solve."""
    return _MODES[diff]
