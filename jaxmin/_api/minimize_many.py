"""minimize_many: more problems than a batch can hold, on a few lanes."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmin._api.batched import fed, given
from jaxmin._api.keywords import spelled
from jaxmin._api.minimize import MethodLike
from jaxmin._api.options import history_length, named
from jaxmin._api.prepare import prepare, result_of
from jaxmin._api.progress import Bar
from jaxmin._api.warm_start import those_with_curvature
from jaxmin._cache import programs
from jaxmin._core.protocol import LineSearch
from jaxmin._core.pytree import any_traced, is_count
from jaxmin._core.result import OptimizeResult
from jaxmin._core.status import SUCCESSES, Status
from jaxmin._core.typing import PyTree
from jaxmin._driver import compiled
from jaxmin._driver.batch import lanes_in_cache
from jaxmin._driver.implicit import refused
from jaxmin._driver.lanes import Plan, Turn, opener, worker
from jaxmin._driver.report import Report
from jaxmin._driver.slices import MOST, Interrupted, Slices
from jaxmin._interop.nnx import as_model
from jaxmin._problem.bounds import BoundsLike
from jaxmin._problem.constraints import ConstraintsLike

# On a CPU a step of 256 lanes costs least for each lane, or nearly so; fewer if what they carry
# and evaluate would not stay in its cache. Other devices need more lanes.
_LANES_LEAST, _LANES_MAX = 16, 256
_LANES_MAX_ELSEWHERE = 8192
# Arrays in host memory go to the devices in chunks of so many bytes.
_CHUNK_BYTES = 2**28
# A bar moves about so often.
_BAR_STEPS = 100
_NO_DERIVATIVES = "minimize_many is not differentiable. Use vmap(minimize) started at res.x: it needs one evaluation."


@spelled
def minimize_many(
    fun: Callable[..., Any],
    x0: PyTree,
    args: Any = (),
    method: MethodLike | None = "lbfgs",
    jac: Callable[..., Any] | bool | None = None,
    hess: Callable[..., Any] | None = None,
    hessp: Callable[..., Any] | None = None,
    bounds: BoundsLike | None = None,
    constraints: ConstraintsLike = (),
    tol: float | jax.Array | np.ndarray | None = None,
    options: dict[str, Any] | None = None,
    *,
    linesearch: str | LineSearch | None = None,
    has_aux: bool = False,
    in_axes: Any = 0,
    best_of: int = 1,
    hess_inv: bool = False,
    lanes: int | None = None,
    chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> OptimizeResult:
    r"""Solve many problems, each as ``minimize`` does, a few at a time: a lane that has ended takes the next problem.

    A batch under ``vmap`` is as slow as its slowest problem. Here the cost is that of all evaluations together.
    What a problem gives depends on how many lanes there are, and on the other problems and their order, by rounding
    alone. It works under ``jit``.

    Args:
      fun, method, jac, hess, hessp, linesearch, has_aux: those of :func:`~jaxmin.minimize`.
      x0: the starts: an array [problems, ...], or any pytree of such.
      args: further arguments, a tuple; by default each array in it has a leading axis of problems. Numbers, and
        whatever else has no axes, are shared by all problems.
      in_axes: as in ``jax.vmap``, over (x0, args): which axis of each array is the one of problems, None for
        none; 0 by default. ``(0, None)`` shares all args, ``(0, (0, None))`` the second of two.
      bounds: pairs, :class:`~jaxmin.Bounds` or a set of ``jaxmin.sets``, shared; an array of ``Bounds`` with one axis
        more than x has is one row a problem.
      constraints: those of ``minimize``, shared by all problems.
      tol, options: those of ``minimize``; a tolerance or a limit may be an array [problems]. ``disp`` prints one
        line at the end. A callback is not offered.
      best_of: the number of consecutive starts per problem; 1 by default. Arguments, bounds and tolerances have one row
        per problem. The result is the success with the least f, or else the finite result with the least f.
      hess_inv: True keeps ``hess_inv`` in the result; False by default, since it costs memory for every problem.
      lanes: how many problems each device solves at a time; by default 4 sqrt(problems), a multiple of 8, at most
        256 on a CPU (fewer, but at least 16, where what they carry and evaluate exceeds its cache)
        and 8,192 elsewhere.
      chunk: how many starts go to the devices at a time; by default all of them, but 256 MiB of NumPy arrays.
        The lanes go on from chunk to chunk. The result is then of NumPy arrays.
      devices: a list; all local devices by default, or the one that a traced x0 is on. Each has its own lanes.
      progress: True shows a bar of the starts that have ended, with tqdm (``jaxmin[progress]``); they then go in
        chunks of a hundredth at most.

    Returns:
      An :class:`~jaxmin.OptimizeResult`, each array with a leading axis [problems], in their order. It is
      not differentiable: ``vmap(minimize)`` is, and started at ``res.x`` it needs one evaluation.

    Raises:
      ValueError, TypeError: for an argument that cannot be right, naming it and the choices.
      ImportError: for ``progress=True`` where tqdm is missing.
      KeyboardInterrupt: after Ctrl-C, within some tenths of a second or one evaluation of all lanes. The attribute
        ``result`` of the exception has the problems that had ended; the others have NaN and status -1.

    >>> import jax.numpy as jnp, numpy as np, jaxmin
    >>> def rosen(x, a):
    ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> starts = np.random.default_rng(0).uniform(-2, 2, (1000, 2))
    >>> res = jaxmin.minimize_many(rosen, starts, args=(1.0,))
    >>> res.x.shape, bool(res.success.all())
    ((1000, 2), True)
    """
    for name, count in (("best_of", best_of), ("lanes", lanes), ("chunk", chunk)):
        if count is not None and not (is_count(count) and count >= 1):
            raise ValueError(f"{name}={count!r}: a whole number, at least 1")
    if as_model(x0, None) is not None:
        raise TypeError("x0: an NNX module; give its parameters, with a leading axis, and merge them in fun")
    options = named(options)
    if options.get("warm_start") is not None:
        raise ValueError("options['warm_start']: not offered for many problems")
    disp = bool(options.pop("disp", False))
    if options.pop("flat", None) is False:
        raise ValueError("options['flat']=False: not offered for many problems; each is solved on one device")
    if options.get("history") is True:  # the first problem's maxiter says nothing of the others
        options |= {"history": history_length(options)["history"]}
    rows = given(x0, args, bounds, tol, options, in_axes, best_of)
    starts, (first_tol, first_options) = rows.starts, rows.settings.first()
    with _about_starts(rows):
        call = prepare(
            fun, rows.x0.first(), rows.args.first(), method, jac=jac, hess=hess, hessp=hessp,
            bounds=rows.bounds.first(), constraints=constraints, tol=first_tol, options=first_options | {"flat": True},
            linesearch=linesearch, has_aux=has_aux,
        )  # fmt: skip
    if hess_inv and getattr(call.method, "inverse_hessian", None) is None:
        raise ValueError(f"hess_inv=True: this method keeps none; {those_with_curvature()} do")
    call.warn()
    feed = fed(call, rows, call.named, linesearch, best_of)
    is_traced = any_traced((feed.problems, feed.shared))
    if is_traced:
        for name, asked in {"progress": progress, "chunk": chunk, "devices": devices, "disp": disp}.items():
            if asked is not None and asked is not False:
                raise ValueError(f"{name}: not offered where x0 or args are traced, as under jit, vmap and grad")
    devices = [None] if is_traced else _checked_devices(devices)
    if lanes is None:
        most = _LANES_MAX_ELSEWHERE
        if jax.default_backend() == "cpu":
            each = compiled.bytes_of_a_lane(call.problem, call.method, call.box, **call.carried)
            most = min(_LANES_MAX, max(_LANES_LEAST, lanes_in_cache(each)))
        lanes = min(most, 8 * math.ceil(math.sqrt(starts / len(devices)) / 2))
    if chunk is None:
        chunk = starts if is_traced else _chunk(feed, starts, len(devices) * lanes, progress)
    chunk = min(best_of * math.ceil(chunk / best_of), starts)
    in_order = chunk == starts and not progress
    mesh = Mesh(np.array(devices), ("devices",)) if len(devices) > 1 else None
    if mesh is not None:
        _check_closed_over(call.problem.trace)
    if not is_traced:  # what is shared goes along, wherever it is now
        everywhere = devices[0] if mesh is None else NamedSharding(mesh, PartitionSpec())
        feed = feed._replace(shared=jax.device_put(feed.shared, everywhere))
    plan = Plan(feed.tree, feed.every, call.problem.variables, int(lanes), bool(hess_inv), in_order, mesh)
    opened, program = (
        compiled.many(call.problem, call.method, make, plan, **call.carried) for make in (opener, worker)
    )
    slices = None if is_traced else programs.program((Slices, program), Slices)
    if is_traced:
        program = refused(program, _NO_DERIVATIVES)
    work = _Schedule(opened, program, slices, plan, feed, devices, starts, best_of)

    def result(solved):
        x, jac, solution, bounded = solved
        status = compiled.examined_rows(call.problem, call.method, plan, feed, x, solution.f, solution.status)
        return _as_result(call, feed.fixed, (x, jac, solution._replace(status=status), bounded), best_of)

    try:
        solved, steps = work.at_once() if in_order else work.in_chunks(chunk, progress)
    except Interrupted as interrupt:
        interrupt.result = result(interrupt.found)
        raise
    if disp:
        _report(solved[2].others, lanes * len(devices), steps)
    return result(solved)


@contextlib.contextmanager
def _about_starts(rows):
    """Say in an error of fun that an array [starts] has starts of one number each."""
    try:
        yield
    except Exception as error:
        shapes = [np.shape(leaf) for leaf in rows.x0.leaves]
        if rows.x0.split == [True] and len(shapes[0]) == 1:
            starts = shapes[0][0]
            error.add_note(
                f"x0 of shape [{starts}] is {starts} starts of one number each; for starts of n variables give an "
                "array [starts, n] (x0[None] for one start)."
            )
        raise


def _checked_devices(devices):
    if devices is None:
        return jax.local_devices()
    if not isinstance(devices, (list, tuple)) or not devices or not all(isinstance(d, jax.Device) for d in devices):
        raise ValueError(f"devices={devices!r}: a list of one or more, out of jax.devices()")
    if len(set(devices)) < len(devices):
        raise ValueError(f"devices: {devices} has one more than once")
    return list(devices)


def _check_closed_over(trace):
    """Refuse arrays on a mesh, which the trace knows of, and which is not that of the lanes."""
    for leaf in jax.tree.leaves((trace.constants, trace.second_constants)):
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
            raise ValueError(
                f"fun: it closes over an array on a mesh, of shape {leaf.shape}; among args it may be anywhere (and so "
                "it may with one device, devices=jax.devices()[:1])"
            )


def _chunk(feed, starts, lanes, progress):
    """How many starts go to the devices at a time by default."""
    if any(isinstance(leaf, jax.Array) for leaf in feed.problems):
        chunk = starts  # it is there already, or part of it
    else:
        each = sum(leaf.nbytes for leaf in feed.problems) / starts
        chunk = min(starts, max(lanes, int(_CHUNK_BYTES / max(each, 1))))
    return min(chunk, max(lanes, math.ceil(starts / _BAR_STEPS))) if progress else chunk


class _Schedule(NamedTuple):
    """The problems and the program that works through them."""

    opened: Any  # (problems, shared) -> the ``Progress`` before the first call
    program: Any
    slices: Slices | None  # None under jit, where one call does all
    plan: Plan
    feed: Any  # a ``Fed``
    devices: list
    starts: int
    best_of: int

    def at_once(self):
        """The results as they come off the devices, in order; and the steps of the device that made the most."""
        try:
            state = self._sent(None, 0, self.starts, self.starts)
        except Interrupted as interrupt:
            raise self._interrupted(None, np.zeros(self.starts, bool), interrupt) from None
        rows = state.rows
        if jax.tree.leaves(rows)[0].shape[0] > self.starts:  # a slice of all is a copy
            rows = jax.tree.map(lambda leaf: leaf[: self.starts], rows)
        return rows, state.steps

    def in_chunks(self, chunk, progress):
        """The same, in host memory, from chunks."""
        bar = Bar() if progress else None
        out, ended = None, np.zeros(self.starts, bool)
        state: Any = None
        for begin in range(0, self.starts, chunk):
            try:
                state = self._sent(state, begin, min(begin + chunk, self.starts), chunk)
            except Interrupted as interrupt:
                raise self._interrupted(out, ended, interrupt) from None
            out, ended = self._collected(out, ended, state)
            if bar is not None:
                counts = out[2].others
                nit, nfev = (np.where(ended, count, 0) for count in (counts.nit, counts.nfev))
                bar.show(ended, ended, None, Report(None, None, nit, nfev))
        return out, state.steps

    def _collected(self, out, ended, state):
        """The rows of all starts with those of a ``Progress``, and which of them have ended, in host memory."""
        numbers, rows = jax.tree.map(np.asarray, (state.numbers, state.rows))
        if out is None:
            out = jax.tree.map(lambda leaf: np.empty((self.starts, *leaf.shape[1:]), leaf.dtype), rows)
        here = numbers[numbers >= 0]
        for all_rows, some in zip(jax.tree.leaves(out), jax.tree.leaves(rows)):
            all_rows[here] = some[numbers >= 0]
        ended[here] = True
        return out, ended

    def _interrupted(self, out, ended, interrupt):
        """The same exception with the rows of all starts: NaN and RUNNING for those that have not ended."""
        rows, ended = self._collected(out, ended, interrupt.found)
        for leaf in jax.tree.leaves(rows):
            leaf[~ended] = np.nan if np.issubdtype(leaf.dtype, np.inexact) else 0
        rows[2].status[~ended] = Status.RUNNING
        return Interrupted(rows)

    def _sent(self, state, begin, end, size):
        """The ``Progress`` after the starts from begin to end, in arrays for so many as size."""
        count, first = np.int32(end - begin), np.int32(begin)
        every = [n for n in self.plan.every if n]
        unit = math.ceil(size / len(self.devices) / self.best_of) * self.best_of  # for each device
        rows = unit * len(self.devices)
        problems = [_padded(leaf[begin // n : -(-end // n)], rows // n) for leaf, n in zip(self.feed.problems, every)]
        if self.plan.mesh is not None:
            offsets = unit * np.arange(len(self.devices), dtype=np.int32)
            first, count = first + offsets, np.clip(count - offsets, 0, unit)
            problems = jax.device_put(problems, NamedSharding(self.plan.mesh, PartitionSpec("devices")))
        elif self.devices[0] is not None:
            problems = jax.device_put(problems, self.devices[0])
        turn = Turn(first, count, np.bool_(end == self.starts), np.bool_(False), np.int32(MOST))
        if state is None:
            state = self.opened(problems, self.feed.shared)
        if self.slices is None:
            return self.program(state, problems, self.feed.shared, turn)[0]

        def advance(steps):
            nonlocal state, turn
            state, done = self.program(state, problems, self.feed.shared, turn._replace(most=np.int32(steps)))
            turn = turn._replace(goes_on=np.bool_(True))
            return state, Status.CONVERGED if np.all(done) else Status.RUNNING

        return self.slices.through(advance, MOST)


def _padded(leaf, size):
    """So many rows, by repeating the last."""
    if leaf.shape[0] == size:
        return leaf
    xp = jnp if isinstance(leaf, jax.Array) else np
    return xp.concatenate([leaf, xp.broadcast_to(leaf[-1:], (size - leaf.shape[0], *leaf.shape[1:]))])


def _as_result(call, fixed, solved, best_of):
    """The rows as an ``OptimizeResult``, the best of every so many."""
    if best_of > 1:
        xp = jnp if isinstance(solved[2].f, jax.Array) else np
        best = _best(xp, solved[2].f.reshape(-1, best_of), solved[2].status.reshape(-1, best_of))
        best = best + best_of * xp.arange(best.size)
        solved, fixed = jax.tree.map(lambda leaf: leaf[best], (solved, fixed))
    x, jac, solution, bounded = solved
    axes = tuple(leaf.ndim - 1 for leaf in jax.tree.leaves(solution.others.curvature))
    return result_of(call.problem._replace(fixed=fixed), bounded, x, jac, solution, axes)


def _best(xp, f, status):
    """Which result in each row is the best: the least f among the successes, else among the finite ones."""
    wins = xp.isin(status, xp.asarray(SUCCESSES))
    rank = xp.where(wins, 0, xp.where(xp.isfinite(f), 1, 2))
    among = (rank == xp.min(rank, axis=1, keepdims=True)) & xp.isfinite(f)
    return xp.argmin(xp.where(among, f, xp.inf), axis=1)


def _report(counts, lanes, steps):
    evaluations = int(np.sum(counts.nfev)) + (0 if counts.nhev is None else int(np.sum(counts.nhev)))
    steps = int(np.max(steps))
    print(
        f"{counts.nfev.size} starts on {lanes} lanes: {evaluations} evaluations in {steps} steps, "
        f"occupancy {evaluations / (steps * lanes):.3f}"
    )
