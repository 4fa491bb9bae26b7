"""Solver: the solve of minimize, taken step by step by the user, saved and resumed."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._api.minimize import MethodLike
from jaxmin._api.options import named, spellings
from jaxmin._api.prepare import Call, prepare
from jaxmin._core.protocol import LineSearch
from jaxmin._core.pytree import Static, any_traced, is_array, is_count, is_number, partition
from jaxmin._core.result import OptimizeResult
from jaxmin._core.spelling import refuse_unknown
from jaxmin._core.status import Status
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables
from jaxmin._driver.callbacks import Traced, Watcher, watched
from jaxmin._driver.compiled import examined, inputs, stepwise
from jaxmin._driver.implicit import unknown
from jaxmin._driver.slices import MOST, Interrupted, Slices
from jaxmin._problem.bounds import BoundsLike
from jaxmin._problem.constraints import ConstraintsLike
from jaxmin._problem.objective import as_argument


class Settings(TypedDict, total=False):
    """The keywords of :func:`minimize` that :class:`Solver` takes: all but args, which ``init`` takes, and progress."""

    jac: Callable[..., Any] | bool | None
    hess: Callable[..., Any] | None
    hessp: Callable[..., Any] | None
    bounds: BoundsLike | None
    constraints: ConstraintsLike
    tol: float | jax.Array | None
    callback: Callable[..., Any] | Traced | None
    options: dict[str, Any] | None
    linesearch: str | LineSearch | None
    has_aux: bool


_SETTINGS = tuple(Settings.__annotations__)


class _Structure(NamedTuple):
    """The parts of a state that are not arrays."""

    variables: Variables
    x: Static  # x0 without its arrays
    args: Static  # args without their arrays
    weak: tuple[bool, ...]  # for each array of args: whether it is weakly typed, as Python's numbers are


@functools.partial(jax.tree_util.register_dataclass, data_fields=["carry", "fixed", "args"], meta_fields=["structure"])
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SolverState:
    """A solve in progress: a pytree of arrays, with everything that :class:`Solver` needs to go on.

    ``Solver.init`` makes it. Under ``vmap`` each array has a leading batch axis.

    - ``x``: the last iterate, like x0; before the first step x0 itself.
    - ``fun``: the objective at x, shape [], float32 or wider; NaN before the first step.
    - ``nit``: the number of the iterate, int32, shape []; x0 is number 0, and before the first step it is -1.
    - ``nfev``: evaluations so far, int32, shape [].
    - ``status``: a :class:`~jaxmin.Status`, -1 while the solve can go on; int32, shape [].
    - ``done``: whether it has ended; bool, shape [].

    >>> import jax.numpy as jnp, jaxmin
    >>> solver = jaxmin.Solver(lambda x: jnp.sum((x - 1) ** 2))
    >>> state = solver.step(solver.init(jnp.zeros(2)))
    >>> int(state.nit), int(state.nfev), float(state.fun), state.x.tolist(), bool(state.done)
    (0, 1, 2.0, [0.0, 0.0], False)
    """

    carry: Any  # the loop's
    fixed: list[jax.Array]  # arrays of x0 that do not vary
    args: list[jax.Array]  # arrays of args
    structure: _Structure

    @property
    def x(self) -> PyTree:
        """The last iterate."""

        def one(vector: Any, fixed: Any) -> PyTree:
            return self.structure.x.combine(self.structure.variables.unravel(vector), fixed)

        for _ in range(self.status.ndim):
            one = jax.vmap(one)
        return one(self.carry.state.iterate.x, self.fixed)

    @property
    def fun(self) -> jax.Array:
        """The objective at x."""
        return jnp.where(self.nit < 0, jnp.nan, self.carry.state.iterate.f)

    @property
    def nit(self) -> jax.Array:
        """The number of the last iterate."""
        return self.carry.state.nit

    @property
    def nfev(self) -> jax.Array:
        """Evaluations so far."""
        return self.carry.nfev

    @property
    def status(self) -> jax.Array:
        """How the solve has ended, or -1."""
        return self.carry.status

    @property
    def done(self) -> jax.Array:
        """Whether the solve has ended."""
        return self.status != Status.RUNNING

    def __repr__(self) -> str:
        if isinstance(self.status, jax.core.Tracer) or not isinstance(self.status, (jax.Array, np.ndarray)):
            return "SolverState(...)"
        shown = ("nit", "nfev", "status") if self.status.ndim else ("nit", "nfev", "status", "fun")
        return f"SolverState({', '.join(f'{name}={np.asarray(getattr(self, name))}' for name in shown)})"


class Solver:
    """The solve of :func:`minimize`, step by step: the same loop with the same results.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x, a: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> solver = jaxmin.Solver(rosen, method="bfgs")
    >>> state = solver.init([-1.2, 1.0], 1.0)
    >>> while not state.done:
    ...     state = solver.step(state)
    >>> res = jaxmin.minimize(rosen, [-1.2, 1.0], args=(1.0,), method="bfgs")
    >>> bool(jnp.all(solver.result(state).x == res.x)), state.nfev == res.nfev
    (True, Array(True, dtype=bool))

    Single steps, runs of several steps and a run to the end give the numbers of ``minimize`` bit for bit. For a
    transformation, and with constraints, they may differ in the last digit, where XLA compiles the loop differently. A
    solve that was saved and resumed by the same calls always has the same numbers.

    A step is one evaluation of fun and its gradient: at a new iterate, or at a trial of a line search. A second-order
    method also has steps that evaluate a product or a matrix. All functions of a solver work inside ``jit``, ``vmap``
    and ``scan``. Outside, ``jax.jit(solver.step)`` avoids a trace of fun at each step. The derivatives of a state are
    NaN: use ``minimize`` for the derivatives of a solution.

    The state contains the arrays of args, so a step needs nothing else, and a saved state can go on in another process.
    It does not contain the values that fun closes over: close over data that should not be saved, or that all lanes of
    a batch share. The settings belong to the solver. A state goes on under the limits of the solver that receives it,
    which must have the same fun, method and options.

    Args:
      fun: the objective, ``fun(x, *args)`` -> a scalar of shape [], as in ``minimize``.
      method: as in ``minimize``; "lbfgs" by default.
      settings: all other keywords of ``minimize`` but ``args`` and ``progress``, with its defaults: jac, hess, hessp,
        bounds, constraints, tol, callback, options, linesearch, has_aux.

    Raises:
      TypeError: for an unknown keyword. Other invalid arguments are reported by ``init``, as ``minimize`` does; an x0
        that is a Flax NNX module too.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        method: MethodLike | None = "lbfgs",
        **settings: Unpack[Settings],
    ) -> None:
        refuse_unknown("Solver", settings, ("fun", "method", *_SETTINGS), spellings())
        self._fun = fun
        self._settings: dict[str, Any] = {"method": method, **settings}
        self._slices = Slices()
        self._known: set[Any] = set()  # the forms of states that are known to belong to this solver

    def init(self, x0: PyTree, *args: Any) -> SolverState:
        """The state at the start, before the first step; nothing is evaluated.

        Args:
          x0: the start, an array of any shape or a pytree, as in ``minimize``, but not a Flax NNX module.
          args: further arguments of fun, arrays or pytrees.

        Returns:
          A :class:`SolverState` with nit = -1, nfev = 0 and x = x0, moved inside the bounds.

        Raises:
          TypeError: if x0 is a Flax NNX module. Give its parameters (``nnx.split``) instead, and merge them in fun.
          ValueError, TypeError, NotImplementedError: as ``minimize`` does, for an invalid setting or start.
        """
        call = prepare(self._fun, x0, args, **self._settings)
        if call.whole is not None:
            raise TypeError("x0: a Flax NNX module; give its parameters to a Solver (nnx.split, and nnx.merge in fun)")
        call.warn()
        problem = call.problem
        carry = self._begun(call, problem.leaves)
        arrays, static = partition(jax.tree.map(as_argument, args), problem.is_argument)
        weak = tuple(_is_weak(leaf) for leaf in arrays)
        arrays = [_strong(leaf) if is_weak else jnp.asarray(leaf) for leaf, is_weak in zip(arrays, weak)]
        fixed = [jnp.asarray(leaf) for leaf in problem.fixed]
        return SolverState(carry, fixed, arrays, _Structure(problem.variables, problem.x_static, static, weak))

    def step(self, state: SolverState) -> SolverState:
        """The state after one more evaluation; a state that has ended comes back unchanged.

        Raises:
          TypeError, ValueError: as ``run`` does.
        """
        return self.run(state, max_steps=1)

    def run(self, state: SolverState, max_steps: int | jax.Array | None = None) -> SolverState:
        """The state after ``max_steps`` steps, or fewer if the solve ends before.

        Args:
          state: a ``SolverState``.
          max_steps: the largest number of steps, a whole number >= 0 of shape []; it may be traced. None (default)
            runs to the end.

        Raises:
          TypeError: if state is not a ``SolverState``, or max_steps is not a whole number.
          ValueError: if state is a batch, belongs to another solver or is outside of the bounds of this one, or if
            max_steps is negative.
          KeyboardInterrupt: after Ctrl-C, between two evaluations. Its ``result`` is the result so far, and its
            ``state`` the state, which can go on.
        """
        call, steps = self._resumed(state), _steps(max_steps)
        watcher = call.watcher()
        fed = inputs(call.problem, call.box, watcher, call.traced)
        run = self._part("run", call, watcher)
        if any_traced((state.carry, fed, call.limits, steps)):
            carry = watched(watcher, unknown(run), state.carry, fed, call.limits, steps)
            return dataclasses.replace(state, carry=carry)
        carry = state.carry

        def advance(steps: int) -> tuple[Any, Any]:
            nonlocal carry
            carry = run(carry, fed, call.limits, np.int32(steps))
            return carry, carry.status

        try:
            return dataclasses.replace(state, carry=watched(watcher, self._slices.through, advance, int(steps)))
        except Interrupted as interrupt:
            interrupt.state = dataclasses.replace(state, carry=interrupt.found)
            interrupt.result = self.result(interrupt.state)
            raise

    def result(self, state: SolverState) -> OptimizeResult:
        """The :class:`~jaxmin.OptimizeResult` of a state: that of ``minimize`` if it has ended, else with status -1.

        Raises:
          TypeError, ValueError: as ``run`` does.
        """
        call = self._resumed(state)
        solved = self._part("end", call)(state.carry)
        x, jac, solution = examined(call.problem, call.method, call.box, *solved)
        return call.result(x, jac, solution._replace(f=jnp.where(state.nit < 0, jnp.nan, solution.f)))

    def save(self, path: str | os.PathLike[str], state: SolverState) -> None:
        """Write a state to a file in NumPy's ``.npz`` format; an existing file is replaced at once, never in part.

        Args:
          path: the name of the file; no suffix is added.
          state: a ``SolverState``, or a batch.

        Raises:
          TypeError: if state is not a ``SolverState``, or is traced.
          OSError: if the file cannot be written.
        """
        _check_state(state)
        if any_traced(state):
            raise TypeError("state: traced, as under jit; save it outside")
        path = pathlib.Path(path)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        arrays = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state))
        try:
            with open(part, "wb") as file:
                np.savez(file, *arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def load(self, path: str | os.PathLike[str], x0: PyTree, *args: Any) -> SolverState:
        """The state that ``save`` wrote.

        Args:
          path: the file.
          x0, args: the arguments of ``init`` for this solve, or others of the same structures, shapes and dtypes: the
            numbers come from the file. Nothing is evaluated.

        Returns:
          A :class:`SolverState`.

        Raises:
          ValueError: if the file is broken, or has no state of this solver with such an x0 and args.
          OSError: if the file cannot be read.
        """
        like, structure = jax.tree.flatten(self.init(x0, *args))
        found = _read(path)
        if len(found) != len(like):
            raise ValueError(f"{str(path)!r}: a state of {len(found)} arrays, where this solver's has {len(like)}")
        return jax.tree.unflatten(structure, [_restored(str(path), *pair) for pair in zip(found, like)])

    def _part(self, name: str, call: Call, watcher: Watcher | None = None) -> Any:
        return stepwise(name, call.problem, call.method, watcher, call.traced, **call.carried)

    def _begun(self, call: Call, leaves: list[jax.Array]) -> Any:
        """The loop's carry at the start, from the leaves of x0."""
        return self._part("begin", call)(leaves, inputs(call.problem, call.box, None, call.traced, call.warm))

    def _resumed(self, state: SolverState) -> Call:
        """The call that the state belongs to."""
        _check_state(state)
        if state.status.ndim:
            raise ValueError(f"state: a batch of shape {state.status.shape}; use jax.vmap(solver.step)")
        structure = state.structure
        x0 = structure.x.combine([np.zeros(*shape) for shape in structure.variables.shapes], state.fixed)
        like = [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)
            for leaf, weak in zip(state.args, structure.weak)
        ]
        settings = self._settings | {"options": named(self._settings.get("options"))}
        settings["options"].pop("warm_start", None)
        settings["options"]["flat"] = structure.variables.flat
        call = prepare(self._fun, x0, structure.args.combine(like), **settings)
        problem, arrays = call.problem, iter(state.args)
        if problem.variables != structure.variables:
            raise ValueError("state: of another solver, whose fun has another dtype")
        _check_inside(call, state)
        fed = [next(arrays) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in problem.arrays]
        call = call._replace(problem=problem._replace(arrays=fed))
        form = state.structure, _form(state.carry)
        if form not in self._known:
            # From the state's own x, since the form may depend on how x is sharded.
            begun = jax.eval_shape(
                lambda x: self._begun(call, structure.variables.unravel(x)), state.carry.state.iterate.x
            )
            if form[1] != _form(begun):
                raise ValueError("state: of another solver, with another method or other options")
            self._known.add(form)
        return call


def _check_state(state: Any) -> None:
    if not isinstance(state, SolverState):
        raise TypeError(f"state={state!r}: give a SolverState, from solver.init")


def _check_inside(call: Call, state: SolverState) -> None:
    """Raise where the iterate is known to be outside of the bounds, as it may be in a state of other bounds."""
    x = state.carry.state.iterate.x
    # Before the first step x is x0 as it was given.
    if any_traced((x, state.nit, call.box)) or state.nit < 0 or call.box.is_set or not call.box.bounded:
        return
    inside = jax.tree.map(lambda u, v: bool(jnp.all((u == v) | jnp.isnan(v))), x, call.box.clip(x))
    if not all(jax.tree.leaves(inside)):
        raise ValueError(
            "state: its x is outside of the bounds of this solver, so its f, gradient and status say nothing here; "
            "begin there, solver.init(state.x), which moves x inside"
        )


def _read(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """The arrays of a file of ``Solver.save``."""
    with open(path, "rb") as file:
        try:
            with np.load(file) as arrays:
                return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        except Exception as error:  # NumPy has one for each way in which a file can be broken
            raise ValueError(f"{str(path)!r}: broken, or not a file of Solver.save; solve again from x0") from error


def _form(carry: PyTree) -> tuple[Any, ...]:
    leaves, tree = jax.tree.flatten(carry)
    return tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _steps(max_steps: Any) -> Any:
    if max_steps is None:
        return np.int32(MOST)
    if not is_count(max_steps) and not (is_array(max_steps) and max_steps.shape == () and max_steps.dtype.kind in "iu"):
        raise TypeError(f"max_steps={max_steps!r}: a whole number, at least 0, or None")
    if isinstance(max_steps, jax.core.Tracer):
        return jnp.minimum(max_steps, MOST).astype(jnp.int32)
    if max_steps < 0:
        raise ValueError(f"max_steps={max_steps!r}: a whole number, at least 0, or None")
    return np.int32(min(int(max_steps), MOST))


def _is_weak(leaf: Any) -> bool:
    return getattr(leaf, "weak_type", False) or (is_number(leaf) and not isinstance(leaf, np.generic))


def _strong(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _restored(path: str, found: Any, like: jax.Array) -> jax.Array:
    """An array of a file in the form of the state; NumPy's files cannot hold bfloat16 and random keys."""
    if _is_key(like):
        return jax.device_put(jax.random.wrap_key_data(found, impl=jax.random.key_impl(like)), like.sharding)
    if found.dtype.kind == "V":
        found = found.view(like.dtype)
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise ValueError(
            f"{path!r}: has {found.dtype} of shape {found.shape} where this solver's state has {like.dtype} of "
            f"shape {like.shape}; the x0, args, method or options are not the same"
        )
    return jax.device_put(found, like.sharding)
