"""The solve as one compiled function of arrays, and where it is cached."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmin._cache import programs
from jaxmin._cache.builder import is_constant
from jaxmin._cache.computation import Signature, signed
from jaxmin._core.batch_cond import anywhere
from jaxmin._core.box import Unbounded
from jaxmin._core.loss import KNOWN
from jaxmin._core.promotion import standard
from jaxmin._core.protocol import Method
from jaxmin._core.pytree import Static, any_traced
from jaxmin._core.status import Status, is_stuck
from jaxmin._core.variables import Variables
from jaxmin._driver import loop, stopping
from jaxmin._driver.batch import evaluated, in_batches, size_in_bytes, strongly_typed
from jaxmin._driver.callbacks import ask, stopped
from jaxmin._driver.evaluation import Evaluation, Found
from jaxmin._driver.history import in_order
from jaxmin._driver.implicit import mode
from jaxmin._driver.precision import has_converged, may_be_examined
from jaxmin._driver.slices import MOST, Slices
from jaxmin._driver.solution import Counts, Solution, or_feasible
from jaxmin._interop.foreign import Foreign
from jaxmin._problem.objective import inexact

# So many solves are examined at a time.
_EXAMINED_AT_ONCE = 2048


class Extras(NamedTuple):
    """Inputs on which it does not depend where a minimum is."""

    number: Any = None  # the watcher's
    constants: Any = None  # of the traced callback
    warm: Any = None  # what the method begins with, from an earlier result
    method: Any = None  # what a method of the user's own closed over


class Inputs(NamedTuple):
    """What a solve is fed beside the leaves of x0 and its limits."""

    constants: Any  # of fun
    second_constants: Any  # of its second derivatives
    fixed: Any  # of x0: the arrays that do not vary
    arrays: Any  # of fun, of its derivatives by hand, and of args
    extras: Extras
    box: Any  # a ``Box``, ``Unbounded`` or a ``Region``
    rows: Any = None  # the limits of the constraints, ``Rows``
    lagrangian_constants: Any = ()  # of the Hessian of the Lagrangian
    pull_constants: Any = ()  # of u -> J^T u
    jacobian_constants: Any = ()  # of the residuals' J

    def rest(self):
        """The arrays that fun sees beside its constants and x."""
        return jax.tree.leaves((self.fixed, self.arrays))


class SolveKey(NamedTuple):
    """All that the program of a solve depends on, besides the shapes of its inputs."""

    signature: Signature  # of fun
    variables: Variables
    method: Any  # a ``Method`` or a ``Foreign``
    x_static: Static | None  # how params are built, for a ``Foreign``
    watched: bool  # by a callback of the host's
    history: int
    keep_x: bool
    relative: bool  # whether the limits have a ``gtol_relative``
    stops: Signature | None  # of the traced callback
    by_hand: str | None  # "hess", "hessp"
    second: Signature | None  # of second derivatives, where they are not those of the signature
    lagrangian: Signature | None = None  # of the Hessian of f + v.c
    layout: Any = None  # ``Layout``
    pull: Signature | None = None  # of u -> J^T u
    jacobian: Signature | None = None  # of the residuals


class ExaminationKey(NamedTuple):
    """All that the program of an examination depends on, besides the shapes of its inputs."""

    signature: Signature  # of fun
    variables: Variables
    has_gradient: bool  # whether it returns its gradient
    known: float | None  # see ``has_converged``


class Functions(NamedTuple):
    """The functions of a problem, which derivatives of its solution need."""

    evaluate: Any  # (x, inputs, v) -> ``Found``; with v the method's J^T u is that of u = v
    jacobian: Any  # (x, inputs) -> J [m, n], of the constraints


class Parts(NamedTuple):
    """A solve as functions of arrays."""

    begin: Any  # (x0, inputs) -> ``Carry``
    run: Any  # (carry, inputs, limits, steps) -> ``Carry``
    end: Any  # carry -> ``Solution``
    functions: Any = None  # ``Functions``
    step: Any = None  # (carry, inputs, limits) -> ``Carry``, of a lane of a batch
    evaluated: int = 0  # the bytes that an evaluation returns
    run_slice: Any = None  # (carry at the start, what the last slice gave, inputs, limits, evaluations) -> packed carry
    packing: Any = None  # carry -> how it is packed between two slices
    # (enter, step) of each phase of a lane of a batch, (carry, inputs, limits) -> ``Carry`` each
    phases: tuple[tuple[Any, Any], ...] = ()


def solve(
    problem, method, limits, diff, result, box=Unbounded(), watcher=None, traced=None, warm=None, unrolled=None,
    **carried,
):  # fmt: skip
    """Solve a ``Problem`` with a ``Method`` or a ``Foreign``.

    Args:
      result: (leaves of x, those of the gradient in ``jax.grad``'s convention, ``Solution``) -> what is returned.
      traced: a ``TracedCallback``, or None.
      warm: what the method begins with, from an earlier result, or None.
      unrolled: see ``loop.run``.
      carried: see ``loop.begin``.

    Raises:
      Interrupted: after Ctrl-C, in a call from Python.
    """
    key = _key(problem, method, watcher, traced, **carried)
    arguments = problem.leaves, inputs(problem, box, watcher, traced, warm), limits
    with_rules = problem.trace.with_rules

    def known(solved):
        return result(*examined(problem, method, box, *solved))

    def known_of_slices(key):
        solved, made = _in_slices(key)(result, *arguments)
        found = examined(problem, method, box, *solved)
        return made if found[-1] is solved[-1] else result(*found)

    if unrolled is None and _may_be_sliced(problem, method, arguments):
        return _usual_first(known_of_slices, key, arguments)
    if with_rules is None and not (box.is_set and box.within.has_rules) and not _is_new(method):
        return _usual_first(
            lambda key: known(compiled(_differentiable, key, diff, unrolled)(*arguments)), key, arguments
        )
    if _is_new(method) or any_traced(arguments):  # a new method may have closed over a tracer
        return known(_with_derivatives(key, diff, unrolled, with_rules, arguments))
    return _usual_first(lambda key: known(compiled(_solved, key, unrolled)(*arguments)), key, arguments)


def _may_be_sliced(problem, method, arguments):
    """Whether nothing is traced, and one device does the work: a carry of another place would be compiled again."""
    if _is_new(method) or any_traced(arguments):
        return False
    # Another method may have closed over what is traced; ``usual`` is made of the same constants.
    if not (isinstance(method, Foreign) or is_constant(method._replace(usual=None))):
        return False
    if jax.device_count() == 1:
        return True
    arrays = (leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array))
    return problem.variables.flat and all(len(leaf.sharding.device_set) == 1 for leaf in arrays)


def _usual_first(attempt, key, arguments):
    """``attempt(key)``, a result, whose status is that after the examination.

    From Python the usual part of the method runs first. The rest is compiled only where a solve fails without it.
    """
    # Who watches, and an effect of fun, would see the part that fails twice.
    seen = key.watched or key.stops is not None or key.signature.jaxpr.effects
    usual = None if isinstance(key.method, Foreign) or seen else key.method.usual
    if usual is not None and not any_traced(arguments):
        found = attempt(key._replace(method=usual.method))
        if int(found.status) not in usual.unless:
            return found
    return attempt(key)


def examined(problem, method, box, leaves, jac, solution):
    """The output of a solve; where rounding has stopped it, whether it has converged to the precision of f.

    From Python the second derivatives are compiled only where such a solve is met.
    """
    status = solution.status
    is_known = not isinstance(status, jax.core.Tracer)
    if not _is_examined(problem, method, leaves) or (is_known and not is_stuck(int(status))):
        return leaves, jac, solution
    arguments = lax.stop_gradient((leaves, solution.f, status, inputs(problem, box)))
    return leaves, jac, solution._replace(status=_examine(problem, method, _examination, arguments))


def examined_rows(problem, method, plan, feed, leaves, f, status):
    """The statuses of many solves: see :func:`examined`.

    Args:
      plan: the ``Plan`` of the lanes.
      feed: the arrays of the problems, ``problems`` and ``shared``.
      leaves, f, status: of the solutions, a row for each.
    """
    if not _is_examined(problem, method, leaves):
        return status
    every = [n for n in plan.every if n]
    if any_traced((leaves, status, feed.problems, feed.shared)):
        rows = [jnp.repeat(leaf, n, axis=0)[: status.size] for leaf, n in zip(feed.problems, every)]
        return _examine(
            problem, method, _examination_of_rows, (leaves, f, status, rows, feed.shared), plan.tree, plan.every
        )
    found = np.array(status)
    doubtful = np.flatnonzero(is_stuck(found))
    for begin in range(0, doubtful.size, _EXAMINED_AT_ONCE):
        part = doubtful[begin : begin + _EXAMINED_AT_ONCE]
        # Few sizes, so that few programs are compiled; the last row again for what is missing.
        size = 1 << (part.size - 1).bit_length()
        here = np.pad(part, (0, size - part.size), mode="edge")
        pick = lambda leaf, n=1, here=here: np.asarray(leaf)[here // n]
        rows = [pick(leaf, n) for leaf, n in zip(feed.problems, every)]
        arguments = [pick(leaf) for leaf in leaves], pick(f), found[here], rows, feed.shared
        new = _examine(problem, method, _examination_of_rows, arguments, plan.tree, plan.every)
        found[part] = np.asarray(new)[: part.size]
    return found if isinstance(status, np.ndarray) else jnp.asarray(found)


def _is_examined(problem, method, leaves):
    """Whether solves of this problem are examined; known while compiling. An effect of fun is not repeated."""
    effects = problem.trace.signature.jaxpr.effects
    # Where there are constraints, the curvature of f alone says nothing.
    if effects or problem.rows is not None:
        return False
    # The Gauss-Newton model of residuals does not know a minimum where J loses its rank, whatever the dtype.
    return "residual" in method.wants or ("grad" in method.wants and may_be_examined(leaves))


def _examine(problem, method, build, arguments, *settings):
    """``build(key, rules, *settings)(*arguments)``, compiled: statuses. The statuses as they are without derivatives.

    Args:
      arguments: (leaves of x, f, status, ...).
    """
    known = KNOWN if "residual" in method.wants else None
    key = ExaminationKey(problem.trace.signature, problem.variables, "grad" in method.wants, known)
    rules = problem.trace.with_rules
    try:
        if rules is not None:
            return _by_program(build(key, rules, *settings), *arguments)
        return programs.program((build, key, settings), lambda: _jitted(build(key, None, *settings)))(*arguments)
    except Exception:  # fun need not have second derivatives; JAX and its extensions raise errors of many kinds then
        return arguments[2]


def stepwise(part, problem, method, watcher=None, traced=None, **carried):
    """A compiled part of the same solve, "begin", "run" or "end"; it begins with the leaves of x0."""
    return compiled(_part, _key(problem, method, watcher, traced, **carried), part)


def many(problem, method, make, plan, **carried):
    """``make(plan, begin, step, end)`` compiled, with the ``Parts`` that begin with and give leaves.

    Args:
      make: gives a function of arrays; itself and the plan hashable.
    """
    return compiled(_many, _key(problem, method, None, None, **carried), make, plan)


def bytes_of_a_lane(problem, method, box, **carried):
    """What one of many solves carries and evaluates, in bytes."""
    key = _key(problem, method, None, None, **carried)

    def build():
        parts = _parts(key)
        begin = jax.eval_shape(parts.begin, problem.variables.ravel(problem.leaves), inputs(problem, box))
        return size_in_bytes(begin) + parts.evaluated

    return programs.program((bytes_of_a_lane, key), build)


def inputs(problem, box=Unbounded(), watcher=None, traced=None, warm=None):
    """What a solve is fed beside x0 and its limits."""
    number = None if watcher is None else np.int32(watcher.number)
    extras = Extras(number, None if traced is None else traced.constants, warm)
    trace = problem.trace
    return Inputs(
        trace.constants, trace.second_constants, problem.fixed, problem.arrays, extras, box, problem.rows,
        trace.lagrangian_constants, trace.pull_constants, trace.jacobian_constants,
    )  # fmt: skip


def _key(problem, method, watcher, traced, history=0, keep_x=False, relative=False):
    x_static = problem.x_static.bare() if isinstance(method, Foreign) else None
    stops = None if traced is None else traced.signature
    trace = problem.trace
    return SolveKey(
        trace.signature, problem.variables, method, x_static, watcher is not None, history, keep_x, relative, stops,
        trace.by_hand, trace.second, trace.lagrangian, trace.layout, trace.pull, trace.jacobian,
    )  # fmt: skip


def _is_new(method):
    """Whether it may do something else, or the same as another, than its identity says."""
    return isinstance(method, Foreign) and not method.cacheable


# ---- programs


def compiled(build, key, *settings):
    """``build(key, *settings)``, a function of arrays, compiled once: for that key, or for what it does."""
    if not _is_new(key.method):
        return programs.program((build, key, settings), lambda: _jitted(build(key, *settings)))
    function = build(key, *settings)

    def traced(*arguments):
        constants, program, _ = _found(function, *arguments)
        return program(constants, *arguments)

    return traced


def _jitted(function, **settings):
    # A function of its own: JAX keeps what it compiled for as long as the function lives, and the derivative rule of a
    # solve refers to the solve.
    def solve(*arguments):
        return standard(function)(*arguments)

    solve.__name__ = getattr(function, "__name__", "solve")  # which logs and profiles show
    return jax.jit(solve, **settings)


def _found(function, *arguments):
    """(constants, program, exact): ``program(constants, *arguments) == function(*arguments)``, compiled once.

    Traced here, so that what the function closes over (a rate that is traced, say) is an input too. The program has
    its derivatives where it is exact; else derivative rules are left out.
    """
    closed, outputs = jax.make_jaxpr(standard(function), return_shape=True)(*arguments)
    signature, constants, with_rules = signed(closed, *jax.tree.leaves(arguments))
    flat = programs.program(signature, lambda: _jitted(signature))

    def program(constants, *arguments):
        return jax.tree.unflatten(jax.tree.structure(outputs), flat(*constants, *jax.tree.leaves(arguments)))

    return constants, program, with_rules is None


def _with_derivatives(key, diff, unrolled, with_rules, arguments):
    """The solve where its arguments, or what its method closes over, may be traced, and a derivative be taken of it.

    Its program has no derivative rules. The rules of the solution are made from fun with its own rules, at each call:
    so they are never out of date.
    """
    if _is_new(key.method) or unrolled is not None:
        exactly = _solved(key, unrolled, with_rules)
        constants, program, exact = _found(exactly, *arguments)
        if unrolled is not None:
            in_line = not exact and any_traced((constants, arguments))
            return exactly(*arguments) if in_line else program(constants, *arguments)
    else:
        constants, known = (), compiled(_solved, key, unrolled)
        program = lambda constants, *arguments: known(*arguments)

    def run(x0, inputs, limits):
        constants, inputs = inputs.extras.method, inputs._replace(extras=inputs.extras._replace(method=None))
        return program(constants, key.variables.unravel(x0), inputs, limits)[-1]

    functions = _parts(key, with_rules).functions
    leaves, inputs, limits = arguments
    inputs = inputs._replace(extras=inputs.extras._replace(method=constants))
    return _on_leaves(mode(diff)(run, functions, _by_program), key.variables)(leaves, inputs, limits)


def _by_program(function, *arguments):
    """``function(*arguments)``, compiled once."""
    constants, program, _ = _found(function, *arguments)
    return program(constants, *arguments)


# ---- what is compiled: functions of a key that give functions of arrays


def _differentiable(key, diff, unrolled):
    parts = _parts(key)
    return _on_leaves(mode(diff)(_whole(key, parts, unrolled), parts.functions), key.variables)


def _solved(key, unrolled, with_rules=None):
    return _on_leaves(_whole(key, _parts(key, with_rules), unrolled), key.variables)


def _in_slices(key):
    """The solve of a call from Python, compiled once."""
    return programs.program((_in_slices, key), lambda: _sliced(key))


def _sliced(key):
    """(result, leaves, inputs, limits) -> (solved, result(*solved)), in slices, for arguments that are not traced."""
    parts, slices = _parts_on_leaves(key), Slices()

    def solve_slice(resumed, leaves, inputs, limits, evaluations):
        begun = parts.begin(leaves, inputs)
        packed = parts.run_slice(begun, resumed, inputs, limits, evaluations)
        return packed, parts.end(parts.packing(begun).unpack(packed))

    def packed(leaves, inputs):
        begun = parts.begin(leaves, inputs)
        return parts.packing(begun).pack(begun)

    program = _jitted(solve_slice, donate_argnums=0)
    form = None

    def solve(result, leaves, inputs, limits):
        nonlocal form
        if form is None:
            form = jax.eval_shape(packed, leaves, inputs)
        resumed: Any = np.bool_(True), jax.tree.map(_zeros, form)

        def advance(evaluations):
            nonlocal resumed
            going, solved = program(resumed, leaves, inputs, limits, np.int32(evaluations))
            resumed = np.bool_(False), going
            # Python makes the result while the slice runs.
            return (solved, result(*solved)), solved[-1].status

        return slices.through(advance, MOST)

    return solve


def _zeros(leaf):
    # NumPy's are faster to make; it has no random keys.
    xp = jnp if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else np
    return xp.zeros(leaf.shape, leaf.dtype)


def _part(key, name):
    return getattr(_parts_on_leaves(key), name)


def _many(key, make, plan):
    parts = _parts_on_leaves(key)
    return make(plan, parts.begin, parts.step, parts.end)


def _whole(key, parts, unrolled):
    """(x0, inputs, limits) -> ``Solution``."""

    def solve(x0, inputs, limits):
        return parts.end(parts.run(parts.begin(x0, inputs), inputs, limits, unrolled=unrolled))

    # Who watches sees the whole batch, and so may an effect of fun. What a method of the user's own closed over while
    # that was traced, a rule for batches does not see.
    effects = key.signature.jaxpr.effects or (key.second is not None and key.second.jaxpr.effects)
    seen = key.watched or key.stops or unrolled or effects
    in_lanes = not seen and isinstance(key.method, Method) and is_constant(key.method)
    return in_batches(solve, parts) if in_lanes else solve


def _parts_on_leaves(key):
    parts = _parts(key)

    def begin(leaves, inputs):
        return strongly_typed(parts.begin(key.variables.ravel(leaves), inputs))

    return parts._replace(begin=begin, end=lambda carry: _leaves(key.variables, parts.end(carry)))


def _on_leaves(on_vector, variables):
    def solve(leaves, inputs, limits):
        return _leaves(variables, on_vector(variables.ravel(leaves), inputs, limits))

    return solve


def _leaves(variables, solution):
    jac = None if solution.g is None else [g.conj() for g in variables.unravel(solution.g)]
    return variables.unravel(solution.x), jac, solution


def _examination(key, rules):
    """(leaves of x, f, status, inputs) -> status: PRECISION if the solve has converged to the precision of f."""
    trace, variables = rules or key.signature, key.variables

    def examination(leaves, f, status, inputs):
        def outputs(x):
            return trace(*inputs.constants, *variables.unravel(x), *inputs.rest())

        def gradient(x):
            if not key.has_gradient:
                return jax.grad(lambda x: outputs(x)[0])(x)
            return variables.ravel([g.conj() for g in outputs(x)[1 : 1 + len(variables.shapes)]])

        x = variables.ravel(leaves)
        in_doubt = is_stuck(status)
        converged = lax.cond(
            anywhere(in_doubt),
            lambda: has_converged(gradient, f, x, gradient(x), inputs.box, key.known),
            lambda: jnp.zeros((), bool),
        )
        return jnp.where(in_doubt & converged, Status.PRECISION, status).astype(status.dtype)

    return examination


def _examination_of_rows(key, rules, tree, every):
    """(leaves of x, f, status, problems, shared) -> status, of rows; for ``tree`` and ``every`` see ``Plan``."""
    examination = _examination(key, rules)

    def of_rows(leaves, f, status, problems, shared):
        def of_one(leaves, f, status, fed):
            fed, others = iter(fed), iter(shared)
            _, inputs, _ = jax.tree.unflatten(tree, [next(fed if n else others) for n in every])
            return examination(leaves, f, status, inputs)

        return jax.vmap(of_one)(leaves, f, status, problems)

    return of_rows


def _split(outputs, counts):
    """The outputs, so many in each list; the last one has the rest."""
    lists, start = [], 0
    for count in counts:
        lists.append(outputs[start : start + count])
        start += count
    return *lists, outputs[start:]


def _outputs(key, with_rules):
    """(leaves of x, inputs) -> the outputs of fun's trace: with its rules, where they are given."""
    trace = with_rules or key.signature

    def plain(leaves, inputs):
        return trace(*inputs.constants, *leaves, *inputs.rest())

    if with_rules or key.by_hand or key.second is None:
        return plain
    outputs = jax.custom_jvp(plain)

    @outputs.defjvp
    def along_x(primals, tangents):
        leaves, inputs = primals
        given = *inputs.second_constants, *inputs.constants, *leaves, *tangents[0], *inputs.rest()
        both, count = key.second(*given), len(trace.outputs)
        values, changes = both[:count], iter(both[count:])
        return values, [next(changes) if inexact([u]) else np.zeros(u.shape, jax.dtypes.float0) for u in values]

    return outputs


def _parts(key, with_rules=None):
    """The ``Parts``, of inputs that are ``Inputs``; with_rules: see ``Trace``."""
    signature, variables, method, stops = key.signature, key.variables, key.method, key.stops
    count, wants = len(variables.shapes), method.wants
    outputs_at = _outputs(key, with_rules)

    def of_residuals(outputs, x):
        if not outputs:
            return {}
        r, *weights = (output.astype(x.dtype) for output in outputs)
        return {"residual": weights[0] * r, "row_weights": weights[1]} if weights else {"residual": r}

    def evaluate(x, inputs, v=None):
        value, *outputs = outputs_at(variables.unravel(x), inputs)
        if "grad" not in wants:
            r, aux = _split(outputs, key.layout[:1])
            return Found(value, None, aux, of_residuals(r, x))
        grad, others = variables.ravel([g.conj() for g in outputs[:count]]), outputs[count:]
        if inputs.rows is None:
            r, aux = _split(others, key.layout[:1])
            return Found(value, grad, aux, of_residuals(r, x))
        c, J, linear, aux = _split(others, key.layout[1:])
        extras = {"constraints": inputs.rows._replace(c=c[0].astype(x.dtype))}
        extras |= {"constraint_jacobian": J[0].astype(x.dtype)} if J else {}
        if key.pull is None:
            return Found(value, grad, aux, extras)
        more = {"linear": linear} if v is None else {"constraint_pull": pull(linear, v, inputs)}
        return Found(value, grad, aux, extras | more)

    def jacobian(x, inputs):
        extras = evaluate(x, inputs).extras
        if "constraint_jacobian" in extras:
            return extras["constraint_jacobian"]
        each = jnp.eye(inputs.rows.c.size, dtype=x.dtype)
        return jax.vmap(lambda u: pull(extras["linear"], u, inputs))(each)

    def pull(linear, u, inputs):
        u = u.astype(signature.outputs[1 + count].dtype)
        return key.pull(*inputs.pull_constants, *linear, u)[0].astype(inputs.rows.c.dtype)

    def residual_jacobian(x, inputs):
        given = *inputs.jacobian_constants, *inputs.constants, *variables.unravel(x), *inputs.rest()
        return key.jacobian(*given)[0].astype(x.dtype)

    def lagrangian(x, v, inputs):
        return key.lagrangian(*inputs.lagrangian_constants, *variables.unravel(x), v, *inputs.rest())[0].astype(x.dtype)

    def derivative(x, along, inputs):
        return key.second(*inputs.second_constants, *variables.unravel(x), *variables.unravel(along), *inputs.rest())

    def evaluation(inputs):
        first = lambda x: evaluate(x, inputs)
        if inputs.rows is not None:
            return Evaluation(
                first,
                lagrangian=lambda x, v: lagrangian(x, v, inputs),
                rows=inputs.rows,
                pull=lambda linear, u: pull(linear, u, inputs),
            )
        if key.jacobian is not None:
            return Evaluation(first, jacobian=lambda x: residual_jacobian(x, inputs))
        if key.by_hand is None:
            return Evaluation(first)
        if key.by_hand == "hess":
            return Evaluation(first, hessian=lambda x: derivative(x, x, inputs)[0].astype(x.dtype))
        return Evaluation(first, lambda x, v: variables.ravel([h.conj() for h in derivative(x, v, inputs)]))

    def chosen():
        if not isinstance(method, Foreign):
            return method
        return method.bind(
            lambda x: key.x_static.only(variables.unravel(x)), lambda params: variables.ravel(jax.tree.leaves(params))
        )

    def of_loop(inputs, limits, watch=None):
        tests = stopping.of_method(wants)
        return loop.Loop(evaluation(inputs), variables.rounded, chosen(), tests, limits, inputs.box, watch)

    def begin(x0, inputs):
        first = 1 if "grad" not in wants else 1 + count
        first += sum(key.layout)
        aux0 = [jnp.zeros(aval.shape, aval.dtype) for aval in signature.outputs[first:]]
        records = key.history, key.keep_x, key.relative
        return loop.begin(evaluation(inputs), chosen(), x0, aux0, *records, box=inputs.box, warm=inputs.extras.warm)

    def observed(inputs, limits):
        def watch(accepted, iterate, report, status):
            x = variables.unravel(iterate.x), inputs.fixed
            f = iterate.f.astype(signature.outputs[0].dtype)
            if stops is not None:
                g = [] if iterate.g is None else variables.unravel(iterate.g)
                status = stopped(stops, inputs.extras.constants, accepted, x, f, g, report, status)
            if key.watched:
                status = ask(inputs.extras.number, accepted, x, f, report, status)
            return status

        seen = watch if key.watched or stops is not None else None
        return of_loop(inputs, limits, seen)

    def run(carry, inputs, limits, steps=None, unrolled=None):
        return loop.run(observed(inputs, limits), carry, steps, unrolled)

    def run_slice(begun, resumed, inputs, limits, evaluations):
        return loop.run_slice(observed(inputs, limits), begun, resumed, evaluations)

    def end(carry):
        state, method = carry.state, chosen()
        x, f, g = state.iterate
        curvature = method.inverse_hessian(state) if method.inverse_hessian else None
        record: Any = in_order(carry.history, state.nit) if key.history else None
        if key.keep_x:
            record = record._replace(x=jax.vmap(variables.unravel)(record.x))
        others = Counts(
            state.nit,
            carry.nfev,
            carry.nhev,
            curvature,
            record,
            carry.njev,
            getattr(state, "cosine", None),
            carry.gnorm0,
        )
        f = f.astype(signature.outputs[0].dtype)
        kkt = getattr(state, "kkt", None)
        solution = Solution(x, f, g, carry.aux, carry.status, others, kkt, carry.residuals)
        return solution if carry.best is None else or_feasible(solution, carry.best)

    def step(carry, inputs, limits):
        return loop.step_in_batch(of_loop(inputs, limits), carry)

    def phase(k):
        of = lambda inputs, limits: loop.phases(of_loop(inputs, limits))[k]
        return (
            lambda carry, inputs, limits: of(inputs, limits).enter(carry),
            lambda carry, inputs, limits: loop.step_in_batch(of(inputs, limits).loop, carry),
        )

    return Parts(
        begin, run, end, Functions(evaluate, jacobian), step, evaluated(key), run_slice,
        lambda carry: loop.packing_of(chosen(), carry), tuple(map(phase, range(loop.phases_of(method)))),
    )  # fmt: skip
