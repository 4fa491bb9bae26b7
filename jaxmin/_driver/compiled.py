"""The solve as one compiled function of arrays, and where it is kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.builder import is_constant
from jaxmin._cache.computation import Signature, with_all_constants
from jaxmin._cache.traces import once_per_signature
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Method
from jaxmin._driver import loop, stopping
from jaxmin._driver.batch import in_batches, strongly_typed
from jaxmin._driver.callbacks import ask, stopped
from jaxmin._driver.evaluation import Evaluation, Found
from jaxmin._driver.history import in_order
from jaxmin._driver.implicit import mode
from jaxmin._driver.solution import Solution
from jaxmin._interop.foreign import Foreign


class Extras(NamedTuple):
    """Inputs on which it does not depend where a minimum is."""

    number: Any = None  # the watcher's
    constants: Any = None  # of the traced callback
    curvature: Any = None  # of an earlier result, to begin with


class Parts(NamedTuple):
    """A solve as functions of arrays."""

    begin: Any  # (x0, inputs) -> ``Carry``
    run: Any  # (carry, inputs, limits, steps) -> ``Carry``
    end: Any  # carry -> ``Solution``
    evaluate: Any = None  # (x, inputs) -> (value, grad, aux)
    trip: Any = None  # (carry, inputs, limits) -> ``Carry``, of a lane of a batch


def solve(problem, method, limits, diff, box=None, watcher=None, traced=None, curvature=None, unrolled=None, **history):
    """Solve a ``Problem`` with a ``Method`` or a ``Foreign``.

    Args:
      traced: a ``TracedCallback``, or None.
      curvature: to begin with, or None.
      unrolled: see ``loop.run``.
      history: see ``loop.begin``.

    Returns:
      The leaves of x, those of the gradient in ``jax.grad``'s convention, and the ``Solution``.
    """
    key = _key(problem, method, watcher, traced, **history)
    solve = (_by_program if _is_new(method) else _compiled)(diff, unrolled, *key)
    return solve(problem.leaves, inputs(problem, box, watcher, traced, curvature), limits)


def stepwise(problem, method, watcher=None, traced=None, **history):
    """The compiled ``Parts`` of the same solve, which begin with the leaves of x0."""
    key = _key(problem, method, watcher, traced, **history)
    return _parts_by_program(*key) if _is_new(method) else _compiled_parts(*key)


def many(problem, method, make, plan, **history):
    """``make(plan, begin, trip, end)`` compiled, with the ``Parts`` that begin with and give leaves.

    Args:
      make: gives a function of arrays; itself and the plan hashable.
    """
    key = _key(problem, method, None, None, **history)
    if not _is_new(method):
        return _compiled_many(make, plan, *key)
    made = _made(make, plan, *key)

    def run(*arguments):
        constants, program = _found(made, *arguments)
        return program(constants, *arguments)

    return run


def inputs(problem, box=None, watcher=None, traced=None, curvature=None):
    """What a solve is fed beside x0 and its limits."""
    number = None if watcher is None else np.int32(watcher.number)
    extras = Extras(number, None if traced is None else traced.constants, curvature)
    return *problem.inputs(), extras, box


def _key(problem, method, watcher, traced, history=0, keep_x=False):
    x_static = problem.x_static.bare() if isinstance(method, Foreign) else None
    stops = None if traced is None else traced.signature
    shown = watcher is not None, history, keep_x
    trace = problem.trace
    return trace.signature, problem.variables, method, x_static, *shown, stops, trace.by_hand, trace.second


def _is_new(method):
    """Whether it may do something else, or the same as another, than its identity says."""
    return isinstance(method, Foreign) and not method.kept


@once_per_signature
def _compiled(diff, unrolled, *key):
    differentiable = _on_leaves(mode(diff)(*_functions(unrolled, *key)), key[1])

    # A function of its own: JAX keeps what it compiled for as long as the function lives, and the derivative
    # rule of a solve refers to the solve.
    def solve(*arguments):
        return differentiable(*arguments)

    return jax.jit(solve)


@once_per_signature
def _compiled_parts(*key):
    return Parts(*map(jax.jit, _parts_on_leaves(*key)))


@once_per_signature
def _compiled_many(*key):
    return jax.jit(_made(*key))


def _made(make, plan, *key):
    begin, _, end = _parts_on_leaves(*key)
    return make(plan, begin, _parts(*key).trip, end)


def _parts_by_program(*key):
    def found(part):
        def of(*arguments):
            constants, program = _found(part, *arguments)
            return program(constants, *arguments)

        return of

    return Parts(*map(found, _parts_on_leaves(*key)))


def _parts_on_leaves(*key):
    parts, variables = _parts(*key), key[1]

    def begin(leaves, inputs):
        return strongly_typed(parts.begin(variables.ravel(leaves), inputs))

    return begin, parts.run, lambda carry: _leaves(variables, parts.end(carry))


def _by_program(diff, unrolled, *key):
    """The solve compiled, found by what it does: its transformation may have changed, or be new and the same."""
    solve, evaluate = _functions(unrolled, *key)
    variables = key[1]

    def traced(leaves, inputs, limits):
        x0 = variables.ravel(leaves)
        constants, program = _found(solve, x0, inputs, limits)

        def run(x0, more, limits):
            constants, *inputs = more
            return program(constants, x0, tuple(inputs), limits)

        differentiable = mode(diff)(run, lambda x, more: evaluate(x, more[1:]))
        return _on_leaves(differentiable, variables)(leaves, (constants, *inputs), limits)

    return traced


def _found(function, *arguments):
    """(constants, program) with ``program(constants, *arguments) == function(*arguments)``, compiled once.

    Traced here, so that what the function closes over (a rate that is traced, say) is an input too.
    """
    closed, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
    closed = with_all_constants(closed, *jax.tree.leaves(arguments))
    program = _program(Signature(closed.jaxpr))

    def run(constants, *arguments):
        results = program(*constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(outputs), results)

    return closed.consts, run


def _on_leaves(solve, variables):
    def on_leaves(leaves, inputs, limits):
        return _leaves(variables, solve(variables.ravel(leaves), inputs, limits))

    return on_leaves


def _leaves(variables, solution):
    jac = None if solution.g is None else [g.conj() for g in variables.unravel(solution.g)]
    return variables.unravel(solution.x), jac, solution


@once_per_signature
def _program(signature):
    def solve(*arrays):
        return signature(*arrays)

    return jax.jit(solve)


def _functions(unrolled, *key):
    """(x0, inputs, limits) -> ``Solution``, and (x, inputs) -> (value, grad, aux)."""
    parts = _parts(*key)
    signature, _, method, _, watched, _, _, stops, _, second = key

    def solve(x0, inputs, limits):
        return parts.end(parts.run(parts.begin(x0, inputs), inputs, limits, unrolled=unrolled))

    # Who watches sees the whole batch, and so may an effect of fun. What a method of the user's own closed over while
    # that was traced, a rule for batches does not see.
    effects = signature.jaxpr.effects or (second is not None and second.jaxpr.effects)
    if not (watched or stops or unrolled or effects) and isinstance(method, Method) and is_constant(method):
        solve = in_batches(solve, parts)
    return solve, parts.evaluate


def _parts(signature, variables, method, x_static, watched, history, keep_x, stops, by_hand, second):
    """The ``Parts``. The inputs are what the problem is fed, then ``Extras`` and the box, or None for each."""
    count, wants = len(variables.shapes), method.wants

    def evaluate(x, inputs):
        (constants, _), *rest, _, _ = inputs
        value, *outputs = signature(*constants, *variables.unravel(x), *jax.tree.leaves(rest))
        if "grad" not in wants:
            return Found(value, None, outputs)
        return Found(value, variables.ravel([g.conj() for g in outputs[:count]]), outputs[count:])

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

    def chosen():
        if not isinstance(method, Foreign):
            return method
        return method.bind(
            lambda x: x_static.only(variables.unravel(x)), lambda params: variables.ravel(jax.tree.leaves(params))
        )

    def of_loop(inputs, limits, watch=None):
        box = Unbounded() if inputs[-1] is None else inputs[-1]
        tests = stopping.of_method(wants)
        return loop.Loop(evaluation(inputs), variables.rounded, chosen(), tests, limits, box, watch)

    def begin(x0, inputs):
        first = 1 if "grad" not in wants else 1 + count
        aux0 = [jnp.zeros(aval.shape, aval.dtype) for aval in signature.outputs[first:]]
        method, curvature = chosen(), (inputs[-2] or Extras()).curvature
        carry = loop.begin(evaluation(inputs), method, x0, aux0, history, keep_x)
        return carry if curvature is None else carry._replace(state=method.warm_start(carry.state, curvature))

    def run(carry, inputs, limits, steps=None, unrolled=None):
        extras = inputs[-2]

        def watch(accepted, iterate, gnorm, nit, nfev, status):
            x = variables.unravel(iterate.x), inputs[1]
            f = iterate.f.astype(signature.outputs[0].dtype)
            if stops is not None:
                g = [] if iterate.g is None else variables.unravel(iterate.g)
                status = stopped(stops, extras.constants, accepted, x, f, g, nit, nfev, status)
            if watched:
                status = ask(extras.number, accepted, x, f, gnorm, nit, nfev, status)
            return status

        seen = watch if watched or stops is not None else None
        return loop.run(of_loop(inputs, limits, seen), carry, steps, unrolled)

    def end(carry):
        state, method = carry.state, chosen()
        x, f, g = state.iterate
        curvature = method.inverse_hessian(state) if method.inverse_hessian else None
        kept: Any = in_order(carry.history, state.nit) if history else None
        if keep_x:
            kept = kept._replace(x=jax.vmap(variables.unravel)(kept.x))
        others = state.nit, carry.nfev, carry.nhev, curvature, kept
        return Solution(x, f.astype(signature.outputs[0].dtype), g, carry.aux, carry.status, others)

    def trip(carry, inputs, limits):
        return loop.step_in_batch(of_loop(inputs, limits), carry)

    return Parts(begin, run, end, evaluate, trip)
