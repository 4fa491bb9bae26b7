"""The loop: one evaluation a step, and the only counters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.box import Box, Unbounded, Within, gradient_norm
from jaxmin._core.kkt import Kkt, Residuals
from jaxmin._core.protocol import Iterate, Method, check_state
from jaxmin._core.status import Status
from jaxmin._core.typing import MaybeNone, PyTree, Scalar, Vector
from jaxmin._driver import history as ring
from jaxmin._driver import packing
from jaxmin._driver.evaluation import CachedHessian, Evaluation, counters, empty_cache, evaluate
from jaxmin._driver.report import Report
from jaxmin._driver.stopping import Limits, Stopping, Tested, is_feasible, tested
from jaxmin.transforms._lookup import reuse, searches


class Feasible(NamedTuple):
    """The best feasible iterate of a constrained solve so far."""

    found: Scalar  # [] bool: there is one; else the rest is of any point
    iterate: Iterate
    aux: PyTree
    kkt: Kkt
    residuals: Residuals


class Carry(NamedTuple):
    """The data that change from step to step."""

    state: Any  # the method's
    aux: PyTree  # at the iterate
    nfev: Scalar  # [] int32: evaluations of f
    status: Scalar  # [] int32
    njev: Scalar | MaybeNone = None  # [] int32: Jacobians, for methods that want them
    nhev: Scalar | MaybeNone = None  # [] int32: Hessians or products with them, for methods that want them
    history: ring.History | None = None  # None if none is recorded
    cache: CachedHessian | MaybeNone = None  # the user's Hessian, if the method uses it
    residuals: Residuals | MaybeNone = None  # at the iterate, of a constrained solve
    best: Feasible | MaybeNone = None  # the best feasible iterate, of a constrained solve
    gnorm0: Scalar | MaybeNone = None  # [] of ``Tested``, NaN before the first step; None without gtol_relative


class Loop(NamedTuple):
    """The data and functions that all steps of a solve share."""

    evaluation: Evaluation
    rounded: Callable[[Vector], Vector]  # x -> x, rounded to the user's dtypes
    method: Method
    stopping: Stopping
    limits: Limits
    box: Within = Unbounded()
    watch: Callable[..., Scalar] | None = None  # (accepted, iterate, ``Report``, status) -> status
    hands_over: frozenset[int] = frozenset()  # the statuses from which the next phase goes on


def begin(
    evaluation: Evaluation, method: Method, x0: Vector, aux0: PyTree, history: int = 0, keep_x: bool = False,
    relative: bool = False, box: Within = Unbounded(), warm: Any = None,
) -> Carry:  # fmt: skip
    """The ``Carry`` before the first step; nothing is evaluated.

    Args:
      evaluation: an ``Evaluation``.
      method: a ``Method``.
      x0: the start, a vector.
      aux0: anything built like aux.
      history: how many iterates to record.
      keep_x: whether to record their points too.
      relative: whether the limits have a ``gtol_relative``.
      box: the bounds, for a method whose state depends on them.
      warm: what the method begins with, from an earlier result, or None.
    """
    far = best = None
    constrained = "constraints" in method.wants
    given: dict[str, Any] = {"box": box} if constrained or "set" in method.wants else {}
    if constrained:
        state = method.init(x0, constraints=evaluation.rows, **given)
        far = Residuals(*[jnp.full((), jnp.inf, state.iterate.f.dtype)] * len(Residuals._fields))
        best = Feasible(jnp.zeros((), bool), state.iterate, aux0, state.kkt, far)
    else:
        state = method.init(x0, **given)
    if warm is not None:
        assert method.warm_start is not None
        state = method.warm_start(state, warm, **({"x": x0, "box": box} if constrained else {}))
    check_state(state, method.wants)
    zero = jnp.zeros((), jnp.int32)
    carry = Carry(state, aux0, zero, jnp.full((), Status.RUNNING, jnp.int32))
    if isinstance(box, Box):
        carry = vec.where(box.is_empty, _not_begun(carry), carry)
    points = x0 if keep_x else None
    record = ring.empty(history, state.iterate.f.dtype, points, far is not None) if history else None
    cache = empty_cache(evaluation, method.wants, x0)
    gnorm0 = jnp.full((), jnp.nan, vec.scalar_dtype(x0)) if relative else None
    counts = dict.fromkeys(counters(method.wants), zero)
    return carry._replace(history=record, cache=cache, gnorm0=gnorm0, residuals=far, best=best, **counts)


def _not_begun(carry: Carry) -> Carry:
    """The ``Carry`` of a solve whose bounds have no inside: nothing is known."""
    x, f, g = carry.state.iterate
    unknown = lambda u: jnp.full_like(u, jnp.nan)
    iterate = Iterate(x, unknown(f), jax.tree.map(unknown, g))
    state = carry.state._replace(iterate=iterate, nit=jnp.zeros_like(carry.state.nit))
    return carry._replace(state=state, status=jnp.full_like(carry.status, Status.BOUNDS))


class Phase(NamedTuple):
    """A part of a solve, with a loop of its own."""

    loop: Loop
    enter: Callable[[Carry], Carry]  # from the carry of the phase before


def phases_of(method: Any) -> int:
    """How many phases a solve by the method has."""
    usual = getattr(method, "usual", None)
    return 1 if usual is None or usual.rest is None else 2


def phases(loop: Loop) -> list[Phase]:
    """The phases of a solve: one, or the usual part of the method and the rest, which goes on where that cannot."""
    if phases_of(loop.method) == 1:
        return [Phase(loop, lambda carry: carry)]
    usual: Any = loop.method.usual
    part, rest = usual.method, usual.rest
    added = counters(loop.method.wants).keys() - counters(part.wants).keys()

    def to_usual(carry: Carry) -> Carry:
        without: dict[str, Any] = dict.fromkeys(added)
        return carry._replace(state=rest.first_state(carry.state), **without)

    def to_rest(carry: Carry) -> Carry:
        state, limits = carry.state, loop.limits
        # The usual part may have met a limit in the same step.
        goes_on = jnp.where(carry.nfev >= limits.maxfun, Status.MAXFUN, Status.RUNNING)
        goes_on = jnp.where(state.nit >= limits.maxiter, Status.MAXITER, goes_on)
        status = jnp.where(_is_one_of(carry.status, usual.unless), goes_on, carry.status).astype(carry.status.dtype)
        cache = empty_cache(loop.evaluation, loop.method.wants, state.iterate.x)
        counts: dict[str, Any] = dict.fromkeys(added, jnp.zeros_like(carry.nfev))
        return carry._replace(state=rest.begun(state), status=status, cache=cache, **counts)

    first = loop._replace(method=part, hands_over=usual.unless)
    return [Phase(first, to_usual), Phase(loop._replace(method=rest.method), to_rest)]


def _is_one_of(status: Scalar, some: frozenset[int]) -> Scalar:
    return jnp.isin(status, jnp.asarray(sorted(some), status.dtype))


def run(loop: Loop, carry: Carry, steps: Scalar | None = None, unrolled: int | None = None) -> Carry:
    """Step until the status is not RUNNING.

    Args:
      loop: a ``Loop``.
      carry: a ``Carry``; one that has ended comes back unchanged.
      steps: [] int32, the largest number of steps; None for no limit, from a carry that has just begun.
      unrolled: a number of steps, known while compiling. Steps after the end do nothing. The loop then has derivatives,
        and stores for each step what they need.

    Returns:
      The last ``Carry``.
    """
    one = functools.partial(step, loop)
    if unrolled is not None:
        going = lambda carry, _: (lax.cond(carry.status == Status.RUNNING, one, lambda carry: carry, carry), None)
        return lax.scan(going, carry, length=unrolled)[0]
    if steps is None:
        # A step of an observed method has a branch around its update. There each number has a kernel anyway.
        repeat = packing.while_loop if loop.method.observe is None else lax.while_loop
        for phase in phases(loop):
            stepped = functools.partial(step, phase.loop)
            carry = repeat(lambda carry: carry.status == Status.RUNNING, stepped, phase.enter(carry))
        return carry
    goes_on = lambda both: (both[0].status == Status.RUNNING) & (both[1] > 0)
    return lax.while_loop(goes_on, lambda both: (one(both[0]), both[1] - 1), (carry, steps))[0]


def run_slice(loop: Loop, begun: Carry, resumed: tuple[Scalar, packing.Packed], evaluations: Scalar) -> packing.Packed:
    """Step until the status is not RUNNING, or until there are so many evaluations more.

    The carry between two slices is packed: the program of a slice then has as many kernels as that of a whole solve.

    Args:
      loop: a ``Loop``.
      begun: the ``Carry`` before the first step.
      resumed: ([] bool: whether this is the first slice, else what the last one gave).
      evaluations: [] int32.
    """
    form, (first, packed) = packing_of(loop.method, begun), resumed
    packed = vec.where(first, form.pack(begun), packed)
    until = _evaluations(form.unpack(packed)) + evaluations
    goes_on = lambda carry: (carry.status == Status.RUNNING) & (_evaluations(carry) < until)
    return packing.while_loop_of_packed(form, goes_on, functools.partial(step, loop), packed)


def packing_of(method: Any, carry: Carry) -> packing.Packing:
    """How the carry is packed between two slices."""
    # A step of an observed method has a branch around its update. There each number has a kernel anyway.
    return packing.Packing.of(carry, grouped=method.observe is None)


def _evaluations(carry: Carry) -> Scalar:
    """All evaluations so far, [] int32: they grow with every step."""
    return carry.nfev if carry.nhev is None else carry.nfev + carry.nhev


def step(loop: Loop, old: Carry, ended: Scalar | None = None) -> Carry:
    """One step: :func:`advance`, then the history, then the watcher."""
    new = advance(loop, old, ended)
    if old.history is None and loop.watch is None:
        return new
    # In a batch a lane that has ended goes on stepping; its steps are discarded.
    iterated = (new.state.nit > old.state.nit) & (old.status == Status.RUNNING)
    report = _report(loop, new)
    if old.history is not None:
        new = new._replace(history=ring.record(old.history, iterated, old.state, new.state, report))
    if loop.watch is not None:
        hands_over = _is_one_of(new.status, loop.hands_over) if loop.hands_over else jnp.zeros((), bool)
        shown = jnp.where(hands_over, Status.RUNNING, new.status).astype(new.status.dtype)
        status = loop.watch(iterated, new.state.iterate, report, shown)
        new = new._replace(status=jnp.where(hands_over & (status == Status.RUNNING), new.status, status))
    return new


def _report(loop: Loop, carry: Carry) -> Report:
    """The ``Report`` of the iterate."""
    residuals, (x, _, g), nit = carry.residuals, carry.state.iterate, carry.state.nit
    if residuals is None:
        return Report(gradient_norm(x, g, loop.box), None, nit, carry.nfev)
    return Report(residuals.optimality, residuals.violation, nit, carry.nfev)


def step_in_batch(loop: Loop, old: Carry) -> Carry:
    """The step of one lane of a batch: if the lane has ended, its result stays, and no new point is evaluated.

    It selects only the fields that the result needs, since selecting the whole carry would copy it. A method that
    wants ``ended`` leaves its iterate unchanged itself.
    """
    running, method = old.status == Status.RUNNING, loop.method
    waits = "ended" in method.wants
    new = step(loop, old, ended=~running)
    whole = method.observe is not None or (method.inverse_hessian is not None and not waits)
    if whole or "constraints" in method.wants:  # the multipliers are part of the result
        return vec.where(running, new, old)
    fields = ("trial",) if waits else ("trial", "iterate", "nit")
    state = {name: vec.where(running, getattr(new.state, name), getattr(old.state, name)) for name in fields}
    rest = {name: vec.where(running, getattr(new, name), getattr(old, name)) for name in new._fields if name != "state"}
    return new._replace(state=new.state._replace(**state), **rest)


def advance(loop: Loop, carry: Carry, ended: Scalar | None = None) -> Carry:
    """Evaluate the method's trial, pass the method what it wants, count, and test."""
    method = loop.method
    x = loop.box.clip(loop.rounded(carry.state.trial))
    if method.observe is not None:
        return _advance_observed(loop, carry, x)

    found, wanted, cache = evaluate(loop.evaluation, method.wants, carry, x)
    settings: dict[str, Any] = {"box": loop.box, "xtol": loop.limits.xtol} | ({} if ended is None else {"ended": ended})
    wanted |= {name: setting for name, setting in settings.items() if name in method.wants}
    _, state = method.update(found.grad, carry.state, x, value=found.value, **wanted)
    counts = _counts(carry, counters(method.wants), found.value)
    after = tested(carry.state, state, counts, loop.limits, loop.box, carry.gnorm0)
    status, aux = loop.stopping.status(after), vec.where(state.accepted, found.aux, carry.aux)
    best = None if carry.best is None else _better(carry.best, after, aux)
    return carry._replace(
        state=state, aux=aux, status=status, cache=cache, gnorm0=after.gnorm0, residuals=after.residuals, best=best,
        **counts,
    )  # fmt: skip


def _better(best: Feasible, after: Tested, aux: PyTree) -> Feasible:
    """The best feasible iterate after a step."""
    state = after.after
    lower = ~best.found | (state.iterate.f < best.iterate.f)
    new = Feasible(jnp.ones((), bool), state.iterate, aux, state.kkt, after.residuals)
    return vec.where(is_feasible(after) & jnp.isfinite(state.iterate.f) & lower, new, best)


def _counts(carry: Carry, names: dict[str, str], value: Scalar) -> dict[str, Any]:
    """The counters after a step to a point with this f: a step that stays does not count for nfev."""
    nfev = carry.nfev + 1
    if not names:
        return {"nfev": nfev}
    stays = jnp.asarray(getattr(carry.state, "stays", False), jnp.int32)
    taken = jnp.asarray(carry.state.takes(value), jnp.int32) if "taken" in names.values() else 0
    one = {"stays": stays, "taken": taken, "every": 1}
    others = {name: getattr(carry, name) + one[when] for name, when in names.items()}
    return {"nfev": nfev - stays} | others


def _advance_observed(loop: Loop, carry: Carry, x: Vector) -> Carry:
    """A step of a transformation: every point is an iterate. The tests run before ``update``, which may search."""
    evaluation, method = loop.evaluation, loop.method
    assert method.observe is not None
    known = None if carry.aux or method.stored is None else method.stored(carry.state)
    if known is None:
        value, grad, aux, _ = evaluation(x)
        nfev = carry.nfev + 1
    else:
        (value, grad), missing = reuse(known, lambda: tuple(evaluation(x)[:2]))
        aux, nfev = carry.aux, carry.nfev + missing.astype(jnp.int32)

    state = method.observe(grad, carry.state, x, value=value)
    at_end = tested(carry.state, state, {"nfev": nfev}, loop.limits, loop.box, carry.gnorm0)
    status = loop.stopping.status(at_end)
    value_fn, asked = _value_fn(evaluation)
    going = functools.partial(method.update, grad, state, x, value=value, value_fn=value_fn)
    state = lax.cond(status == Status.RUNNING, lambda: going()[1], lambda: state)
    nested = searches(state)
    if nested is not None:
        nfev = nfev + jnp.where(status == Status.RUNNING, nested, 0).astype(jnp.int32)
    elif asked:  # nothing counts these evaluations, and -1 is better than a wrong number
        nfev = jnp.full((), -1, jnp.int32)
    if loop.box.bounded and (asked or known is not None):
        raise ValueError(
            "bounds: this transformation searches by itself, or stores a value that a projection would outdate; "
            "use a method of jaxmin, or a transformation without a search"
        )
    aux = vec.where(state.accepted, aux, carry.aux)
    return carry._replace(state=state, aux=aux, nfev=nfev, status=status, gnorm0=at_end.gnorm0)


def _value_fn(evaluation: Evaluation) -> tuple[Callable[[Vector], Scalar], list[bool]]:
    """A function that evaluates f alone, for transformations that search, and a list that is empty until they call it.

    The derivative of the function is the traced gradient, not a new trace.
    """
    asked: list[bool] = []

    @jax.custom_jvp
    def value_fn(x: Vector) -> Scalar:
        asked.append(True)
        return evaluation(x).value

    @value_fn.defjvp
    def derivative(primals: tuple[Vector], tangents: tuple[Vector]) -> tuple[Scalar, Scalar]:
        found = evaluation(*primals)
        along = jax.tree.leaves(jax.tree.map(lambda g, v: jnp.sum(g * v), found.grad, tangents[0]))
        return found.value, functools.reduce(jnp.add, along).astype(found.value.dtype)

    return value_fn, asked
