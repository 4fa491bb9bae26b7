"""Derivatives of a solution, by the implicit function theorem."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.promotion import standard
from jaxmin._driver import fixed_point, kkt
from jaxmin._driver.ending import is_at_minimum, nearer
from jaxmin._driver.newton import solve_positive
from jaxmin._driver.tangents import is_inexact, no_tangent, nothing


def _at_once(function, *arguments):
    return function(*arguments)


def implicit(solve, functions, call=_at_once):
    r"""The solve with the derivatives of its solution with respect to the inputs.

    At a minimum :math:`g(x, \theta) = 0`, hence

    .. math:: \nabla_x g \; \dot x = -\nabla_\theta g \; \dot\theta.

    Along it the value changes as if x stood still (the envelope theorem); the aux with both; the gradient not
    at all. Variables held at a bound go with the bound. x0 and the limits have no influence on where a minimum is.
    Where the solve did not end at a minimum, or its Hessian is not positive definite, the derivatives of x are NaN. A
    solve that ended by changes of f or x may be far from the minimum: the derivatives are then taken after two of
    Newton's steps from x, and are NaN unless the third step is short. Where there are constraints, the equations are
    those of ``kkt.change``; in a convex set, of ``fixed_point.change``.

    Args:
      solve: (x0, inputs, limits) -> ``Solution``.
      functions: the ``Functions`` of the problem, of inputs that are ``Inputs``.
      call: calls a function of arrays, which it may compile without the derivative rules in it. That function is
        linear in what is differentiated again, if anything is.

    Returns:
      A function like ``solve`` with forward- and reverse-mode derivatives of any order.

    References:
      A. Griewank and A. Walther, Evaluating Derivatives, 2nd ed., 2008, Section 15.1.
    """
    solved = jax.custom_jvp(solve)

    @solved.defjvp
    @standard
    def rule(primals, tangents):
        _, inputs, _ = primals
        solution = solved(*primals)
        dots, tree = jax.tree.flatten(tangents[1])
        has = [leaf.dtype != jax.dtypes.float0 for leaf in dots]

        def change(inputs, solution, dots):
            given = iter(dots)
            inputs_dot = jax.tree.unflatten(tree, [next(given) if h else none for h, none in zip(has, still)])
            return _of_problem(inputs)(functions, inputs, inputs_dot, solution)

        still = [None if h else leaf for leaf, h in zip(dots, has)]
        arguments = inputs, solution
        known = all(map(_is_known, jax.tree.leaves(arguments)))
        moving = [leaf for leaf, h in zip(dots, has) if h]
        x_dot, f_dot, aux_dot, kkt_dot = (call if known else _at_once)(change, *arguments, moving)
        moves = iter(aux_dot)
        aux_dot = jax.tree.map(lambda leaf: next(moves) if is_inexact(leaf) else no_tangent(leaf), solution.aux)
        unmoved = jax.tree.map(no_tangent, solution)
        return solution, unmoved._replace(x=x_dot, f=f_dot, aux=aux_dot, kkt=kkt_dot)

    return solved


def _of_problem(inputs):
    """The function that finds the tangents of its solution: by what limits x."""
    if inputs.box.is_set:
        return fixed_point.change
    return _change if inputs.rows is None else kkt.change


def _change(functions, inputs, inputs_dot, solution):
    """The tangents of a solution's x, f, and those of its aux that have any, where the inputs change so."""
    x, evaluate = solution.x, functions.evaluate
    box, box_dot = inputs.box, inputs_dot.box

    def gradient(x, inputs):
        g = evaluate(x, inputs)[1]
        return jax.grad(lambda x: evaluate(x, inputs)[0])(x) if g is None else g  # of a method that wants none

    g = gradient(x, inputs) if solution.g is None else solution.g
    held = box.active(x, g)
    free = jax.tree.map(lambda held: held == 0, held)

    def product(x, v):
        return jax.jvp(lambda x: gradient(x, inputs), (x,), (v,))[1]

    def among_free_at(x):
        return lambda v: box.only(free, product(x, box.only(free, v)), v)

    def newton(x):
        return solve_positive(among_free_at(x), box.only(free, gradient(x, inputs)))

    x = nearer(solution, x, lambda x: box.clip(vec.sub(x, newton(x))))
    among_free = among_free_at(x)

    g_dot = jax.jvp(lambda inputs: gradient(x, inputs), (inputs,), (inputs_dot,))[1]
    # Reverse mode leaves out an input that the gradient does not see: by nothing it sees them all, and so does NaN.
    zero = nothing(inputs_dot)
    b = jax.tree.map(lambda g_dot: zero.astype(g_dot.dtype) - g_dot, g_dot)
    x_dot = vec.zeros(x)
    f_bounds: Any = 0
    if box.bounded:  # what is held at a bound goes with it, and moves the others
        x_dot = jax.tree.map(
            lambda held, lower, upper: jnp.where(held < 0, lower, jnp.where(held > 0, upper, 0)), held, *box_dot
        )
        b = box.only(free, vec.sub(b, product(x, x_dot)))
        # What the value loses or gains with the bounds. Not by the g at hand, which has no derivatives itself.
        f_bounds = vec.dot(gradient(x, inputs), x_dot)
    at_minimum = is_at_minimum(solution, lambda: newton(x))
    valid = jnp.where(at_minimum, 1, jnp.nan).astype(vec.scalar_dtype(x))
    x_dot = vec.scale(valid, vec.add(x_dot, solve_positive(among_free, b)))
    f_dot = jax.jvp(lambda inputs: evaluate(x, inputs)[0], (inputs,), (inputs_dot,))[1]
    f_dot = (f_dot + f_bounds) * valid
    aux_dot = jax.jvp(lambda x, inputs: evaluate(x, inputs)[2], (x, inputs), (x_dot, inputs_dot))[1]
    aux_dot = [leaf for leaf in jax.tree.leaves(aux_dot) if is_inexact(leaf)]
    return x_dot, f_dot.astype(solution.f.dtype), aux_dot, None


def _is_known(leaf):
    """Whether it is an array, or a batch of arrays under ``vmap``: no derivative is taken with respect to it."""
    while type(leaf).__name__ == "BatchTracer":
        leaf = leaf.val
    return not isinstance(leaf, jax.core.Tracer)


def refused(solve, reason):
    """The solve without derivatives: an error where they are asked for, and not a wrong number."""
    solved = jax.custom_jvp(solve)

    @solved.defjvp
    def rule(primals, tangents):
        raise NotImplementedError(reason)

    return solved


def unknown(solve):
    """The solve, with NaN for its derivatives: it may be called where they are not wanted of it."""
    solved = jax.custom_jvp(solve)

    @solved.defjvp
    def rule(primals, tangents):
        out, nan = solved(*primals), jnp.nan * nothing(tangents)
        return out, jax.tree.map(lambda leaf: jnp.full_like(leaf, nan) if is_inexact(leaf) else no_tangent(leaf), out)

    return solved


_MODES = {
    "implicit": implicit,
    "unroll": lambda solve, functions, call=None: solve,  # its steps have derivatives of their own
    "none": lambda solve, functions, call=None: refused(
        solve, "options['diff']='none': the solution has no derivatives; 'implicit' gives them"
    ),
}


def check_mode(diff):
    """Raise unless ``options["diff"]`` is one of the modes."""
    if not isinstance(diff, str) or diff not in _MODES:
        raise ValueError(f"options['diff']={diff!r}: one of {', '.join(map(repr, _MODES))}")


def mode(diff):
    """What ``options["diff"]`` chooses: (solve, functions, call) -> solve."""
    return _MODES[diff]
