"""The solve as one compiled function of arrays, and where it is kept."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _implicit
from jaxmin._foreign import Foreign
from jaxmin._hessian import Evaluation
from jaxmin._history import in_order
from jaxmin._implicit import Solution
from jaxmin._loop import run
from jaxmin._signature import Signature, with_all_constants
from jaxmin._traces import once_per_signature
from jaxmin._watch import ask


def solve(problem, method, limits, diff, box=None, watcher=None, history=0):
    """Solve a ``Problem`` with a ``Method`` or a ``Foreign``.

    Returns:
      The leaves of x, those of the gradient in ``jax.grad``'s convention, and the ``Solution``.
    """
    x_static = problem.x_static.bare() if isinstance(method, Foreign) else None
    trace = problem.trace
    key = (
        trace.signature,
        problem.variables,
        method,
        x_static,
        watcher is not None,
        history,
        trace.by_hand,
        trace.second,
    )
    solve = _by_program(diff, *key) if isinstance(method, Foreign) and not method.kept else _compiled(diff, *key)
    number = None if watcher is None else np.int32(watcher.number)
    return solve(problem.leaves, (*problem.inputs(), number, box), limits)


@once_per_signature
def _compiled(diff, *key):
    differentiable = _on_leaves(_implicit.mode(diff)(*_functions(*key)), key[1])

    # A function of its own: JAX keeps what it compiled for as long as the function lives, and the derivative
    # rule of a solve refers to the solve.
    def solve(*arguments):
        return differentiable(*arguments)

    return jax.jit(solve)


def _by_program(diff, *key):
    """The solve compiled, found by what it does: its transformation may have changed, or be new and the same."""
    solve, evaluate = _functions(*key)
    variables = key[1]

    def traced(leaves, inputs, limits):
        # Traced here, so that what the transformation closes over (a rate that is traced, say) is an input too.
        x0 = variables.ravel(leaves)
        closed, outputs = jax.make_jaxpr(solve, return_shape=True)(x0, inputs, limits)
        closed = with_all_constants(closed, *jax.tree.leaves((x0, inputs, limits)))
        program = _program(Signature(closed.jaxpr))

        def run(x0, more, limits):
            constants, *inputs = more
            results = program(*constants, *jax.tree.leaves((x0, tuple(inputs), limits)))
            return jax.tree.unflatten(jax.tree.structure(outputs), results)

        differentiable = _implicit.mode(diff)(run, lambda x, more: evaluate(x, more[1:]))
        return _on_leaves(differentiable, variables)(leaves, (closed.consts, *inputs), limits)

    return traced


def _on_leaves(solve, variables):
    def on_leaves(leaves, inputs, limits):
        solution = solve(variables.ravel(leaves), inputs, limits)
        jac = None if solution.g is None else [g.conj() for g in variables.unravel(solution.g)]
        return variables.unravel(solution.x), jac, solution

    return on_leaves


@once_per_signature
def _program(signature):
    def solve(*arrays):
        return signature(*arrays)

    return jax.jit(solve)


def _functions(signature, variables, method, x_static, watched, history, by_hand, second):
    """(x0, inputs, limits) -> ``Solution``, and (x, inputs) -> (value, grad, aux).

    The inputs are what the problem is fed, then the watcher's number and the box, or None for each.
    """
    count, wants = len(variables.shapes), method.wants

    def evaluate(x, inputs):
        (constants, _), *rest, _, _ = inputs
        value, *outputs = signature(*constants, *variables.unravel(x), *jax.tree.leaves(rest))
        if wants == "value":
            return value, None, outputs
        return value, variables.ravel([g.conj() for g in outputs[:count]]), outputs[count:]

    def derivative(x, along, inputs):
        (_, constants), *rest, _, _ = inputs
        return second(*constants, *variables.unravel(x), *variables.unravel(along), *jax.tree.leaves(rest))

    def evaluation(inputs):
        first = lambda x: evaluate(x, inputs)
        if by_hand is None:
            return Evaluation(first)
        if by_hand == "hess":
            return Evaluation(first, hessian=lambda x: derivative(x, x, inputs)[0].astype(x.dtype))
        return Evaluation(first, lambda x, v: variables.ravel([h.conj() for h in derivative(x, v, inputs)]))

    def solve(x0, inputs, limits):
        chosen, (number, box) = method, inputs[-2:]
        if isinstance(method, Foreign):
            chosen = method.bind(
                lambda x: x_static.only(variables.unravel(x)), lambda params: variables.ravel(jax.tree.leaves(params))
            )
        first = 1 if wants == "value" else 1 + count
        aux0 = [jnp.zeros(aval.shape, aval.dtype) for aval in signature.outputs[first:]]

        def watch(accepted, iterate, *counts):
            g = None if iterate.g is None else variables.unravel(iterate.g)
            shown = iterate._replace(g=g)
            return ask(number, accepted, (variables.unravel(iterate.x), inputs[1]), shown, *counts)

        watch = watch if watched else None
        end = run(evaluation(inputs), variables.rounded, chosen, x0, aux0, limits, box, watch, history)
        x, f, g = end.state.iterate
        curvature = chosen.inverse_hessian(end.state) if chosen.inverse_hessian else None
        f = f.astype(signature.outputs[0].dtype)
        kept = in_order(end.history, end.state.nit) if history else None
        return Solution(x, f, g, end.aux, end.status, (end.state.nit, end.nfev, end.nhev, curvature, kept))

    return solve, evaluate
