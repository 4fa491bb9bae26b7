"""The solve as one compiled function of arrays, and where it is kept."""

import jax
import jax.numpy as jnp

from jaxmin import _implicit
from jaxmin._foreign import Foreign
from jaxmin._implicit import Solution
from jaxmin._loop import run
from jaxmin._signature import Signature, with_all_constants
from jaxmin._traces import once_per_signature


def solve(problem, method, limits, diff, box=None):
    """Solve a ``Problem`` with a ``Method`` or a ``Foreign``.

    Returns:
      The leaves of x, those of the gradient in ``jax.grad``'s convention, and the ``Solution``.
    """
    x_static = problem.x_static.bare() if isinstance(method, Foreign) else None
    key = problem.trace.signature, problem.variables, method, x_static
    solve = _by_program(diff, *key) if isinstance(method, Foreign) and not method.kept else _compiled(diff, *key)
    return solve(problem.leaves, (*problem.inputs(), box), limits)


@once_per_signature
def _compiled(diff, *key):
    solve = _on_leaves(_implicit.mode(diff)(*_functions(*key)), key[1])
    # A function of its own: JAX keeps what it compiled for as long as the function lives, and the derivative
    # rule of a solve refers to the solve.
    return jax.jit(lambda *arguments: solve(*arguments))


def _by_program(diff, *key):
    """The solve compiled, found by what it does: its transformation may have changed, or be new and the same."""
    solve, evaluate = _functions(*key)

    def traced(*arguments):
        closed, outputs = jax.make_jaxpr(solve, return_shape=True)(*arguments)
        leaves = jax.tree.leaves(arguments)
        closed = with_all_constants(closed, *leaves)
        results = _program(Signature(closed.jaxpr))(*closed.consts, *leaves)
        return jax.tree.unflatten(jax.tree.structure(outputs), results)

    return _on_leaves(_implicit.mode(diff)(traced, evaluate), key[1])


def _on_leaves(solve, variables):
    def on_leaves(leaves, inputs, limits):
        solution = solve(variables.ravel(leaves), inputs, limits)
        return variables.unravel(solution.x), [g.conj() for g in variables.unravel(solution.g)], solution

    return on_leaves


@once_per_signature
def _program(signature):
    return jax.jit(lambda *arrays: signature(*arrays))


def _functions(signature, variables, method, x_static):
    """(x0, inputs, limits) -> ``Solution``, and (x, inputs) -> (value, grad, aux). The last of inputs is the box."""
    count = len(variables.shapes)

    def evaluate(x, inputs):
        constants, *rest, _ = inputs
        value, *outputs = signature(*constants, *variables.unravel(x), *jax.tree.leaves(rest))
        return value, variables.ravel([g.conj() for g in outputs[:count]]), outputs[count:]

    def solve(x0, inputs, limits):
        chosen, box = method, inputs[-1]
        if isinstance(method, Foreign):
            chosen = method.bind(
                lambda x: x_static.only(variables.unravel(x)), lambda params: variables.ravel(jax.tree.leaves(params))
            )
        aux0 = [jnp.zeros(aval.shape, aval.dtype) for aval in signature.outputs[1 + count :]]
        end = run(lambda x: evaluate(x, inputs), variables.rounded, chosen, x0, aux0, limits, box)
        x, f, g = end.state.iterate
        curvature = chosen.inverse_hessian(end.state) if chosen.inverse_hessian else None
        f = f.astype(signature.outputs[0].dtype)
        return Solution(x, f, g, end.aux, end.status, (end.state.nit, end.nfev, curvature))

    return solve, evaluate
