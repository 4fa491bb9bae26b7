"""Watch a solve from inside the loop: callbacks in its graph or on the host, printed lines, a bar."""

import dataclasses
import inspect
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.computation import Signature, signed
from jaxmin._core import vector as vec
from jaxmin._core.pytree import any_traced
from jaxmin._core.result import OptimizeResult
from jaxmin._core.status import Status
from jaxmin._core.typing import PyTree, Scalar
from jaxmin._driver.report import Report
from jaxmin._problem.objective import Problem

_GO_ON, _STOP = 0, 1
_watchers: dict[int, "Watcher"] = {}  # number -> the watcher to call; the compiled solve has only the number
_numbers = itertools.count(1)
_lock = threading.Lock()


class Traced(NamedTuple):
    """A callback that becomes a part of the compiled loop."""

    function: Callable[..., Any]


def traced(function: Callable[..., Any]) -> Traced:
    """A callback that is part of the compiled loop, with no call to the host: ``callback=jaxmin.traced(function)``.

    Args:
      function: ``function(x)``, or ``function(intermediate_result)`` with a parameter of this name: an
        ``OptimizeResult`` with x and jac like x0 and their dtypes, fun of shape [] in its dtype, and nit and nfev,
        int32, of shape []. Write it with ``jax.numpy``: it is traced, and runs for each iterate after x0. It returns
        None or one boolean of shape []. True ends the solve with ``Status.CALLBACK`` at this iterate.

    Returns:
      A callback for ``minimize`` and ``Solver``. It also works under ``jit``, ``vmap`` and ``grad``. In a batch it runs
      for each lane at each step, and its return value counts where the lane has a new iterate.

    Raises:
      TypeError: if function is not callable; from the solve, if it returns anything but None or one boolean.

    >>> import jax.numpy as jnp, jaxmin
    >>> near = jaxmin.traced(lambda intermediate_result: intermediate_result.fun < 1e-2)
    >>> res = jaxmin.minimize(lambda x: jnp.sum(jnp.cosh(x) - 1), jnp.full(3, 2.0), callback=near)
    >>> res.status.item(), bool(res.fun < 1e-2)
    (99, True)
    """
    if not callable(function):
        raise TypeError(f"traced({function!r}): a function of x, or of intermediate_result")
    return Traced(function)


class TracedCallback(NamedTuple):
    """A traced callback as a computation, and the arrays that it closes over."""

    signature: Signature  # constants, x leaves, other arrays of x0, f, gradient leaves, ``Report`` -> [] bool
    constants: list[jax.Array]


def trace(callback: Traced, problem: Problem, whole: Callable[[PyTree], Any], gradient: bool) -> TracedCallback:
    """Trace a ``Traced`` for a ``Problem``: a ``TracedCallback``.

    Args:
      whole: the function from the x of the solve to the user's x.
      gradient: whether the method uses gradients.
    """
    takes_result, static = _takes_result(callback.function), problem.x_static

    def asked(leaves: Any, fixed: Any, f: Any, g: Any, report: Report) -> jax.Array:
        x = whole(static.combine(leaves, fixed))
        if takes_result:
            jac = static.only(g) if gradient else None
            njev = report.nfev if gradient else None
            result = _intermediate(x, f, report, jnp.full((), Status.RUNNING, jnp.int32))
            answer = callback.function(intermediate_result=dataclasses.replace(result, jac=jac, njev=njev))
        else:
            answer = callback.function(x)
        answer = False if answer is None else answer
        flag = isinstance(answer, bool) or (hasattr(answer, "dtype") and np.issubdtype(answer.dtype, np.bool_))
        if not flag or np.shape(answer) != ():
            raise TypeError(f"callback: the traced function returned {answer!r}; return None or one boolean")
        return jnp.asarray(answer)

    leaves = [jax.ShapeDtypeStruct(*shape) for shape in problem.variables.shapes]
    f, count = jax.ShapeDtypeStruct((), problem.trace.value_dtype), jax.ShapeDtypeStruct((), jnp.int32)
    norm = None if problem.rows is None else jax.ShapeDtypeStruct((), vec.scalar_dtype(leaves))
    report = Report(norm, norm, count, count)
    shown = leaves, problem.fixed, f, leaves if gradient else [], report
    closed = signed(jax.make_jaxpr(asked)(*shown), *jax.tree.leaves(shown))
    return TracedCallback(closed.signature, closed.constants)


def stopped(
    asked: Callable[..., Any], constants: Sequence[jax.Array], accepted: Scalar, x: Sequence[jax.Array], f: Scalar,
    g: Sequence[jax.Array], report: Report, status: Scalar,
) -> Scalar:  # fmt: skip
    """The status after a traced callback: Status.CALLBACK where it returned True for a new iterate."""
    due = accepted & (report.nit > 0)
    norm, violation, dtype = report.gnorm, report.violation, vec.scalar_dtype(x)
    # Only a constrained solve has any; otherwise the traced callback does not see the norm.
    norm, violation = (None, None) if violation is None else (norm.astype(dtype), violation.astype(dtype))
    report = Report(norm, violation, report.nit, report.nfev)
    inputs = *constants, *jax.tree.leaves((x, f, [leaf.conj() for leaf in g], report))
    stop = jax.lax.cond(due, lambda: asked(*inputs)[0], lambda: jnp.zeros((), bool))
    return jnp.where(due & stop, Status.CALLBACK, status).astype(jnp.int32)


def ask(number: Scalar, accepted: Scalar, x: PyTree, f: Scalar, report: Report, status: Scalar) -> Scalar:
    """The status after the watcher has run: Status.CALLBACK where it ends the solve.

    The call is a ``pure_callback``, and the loop carries its answer on. So it works in a batch, with one call for all
    lanes, and each step waits for it, which keeps the calls in order. It runs for new iterates and for ends only.
    """
    due, ended = accepted & (report.nit > 0), status != Status.RUNNING
    answer = jax.ShapeDtypeStruct((), jnp.int32)
    shown = (number, due, ended, x, f, report)

    def call() -> Scalar:
        return jax.pure_callback(_show, answer, *shown, vmap_method="broadcast_all")

    asked = jax.lax.cond(due | ended, call, lambda: jnp.zeros((), jnp.int32))
    return jnp.where(due & (asked == _STOP), Status.CALLBACK, status).astype(jnp.int32)


def _show(number: Any, due: Any, ended: Any, *shown: Any) -> np.ndarray:
    due, ended = np.asarray(due), np.asarray(ended)
    watcher = _watchers.get(int(np.ravel(number)[0])) if due.size else None
    if watcher is None:
        return np.full(due.shape, _STOP, np.int32)
    shown = jax.tree.map(np.asarray, shown)
    answers = np.full(due.shape, _GO_ON, np.int32)
    for lane in zip(*np.nonzero(due)) if due.ndim else [()] * int(due):
        if watcher.show(lane, *jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf[lane]), shown)):
            answers[lane] = _STOP
    watcher.after(due, ended | (answers == _STOP), *shown[1:])
    return answers


class Watcher:
    """The user's callback, the printed lines and the bar of one call of minimize.

    Args:
      callback: as in SciPy: ``callback(x)``, or ``callback(intermediate_result)`` with this name; or None.
      disp: whether to print each iterate.
      combine: the function from the arrays of x, those that vary and those that do not, to the user's x.
      bar: a ``Bar``, or None.
    """

    def __init__(
        self, callback: Callable[..., Any] | None, disp: bool, combine: Callable[..., Any], bar: Any = None
    ) -> None:
        self._callback, self._disp, self._combine, self._bar = callback, disp, combine, bar
        self._whole = callback is not None and _takes_result(callback)
        self.error: BaseException | None = None
        self.compiled = False
        with _lock:
            self.number = next(_numbers)
            _watchers[self.number] = self

    def close(self) -> None:
        """Remove the watcher, so that no solve calls it any more."""
        _watchers.pop(self.number, None)
        if self._bar is not None:
            self._bar.close()

    def show(self, lane: tuple[int, ...], x: Any, f: Any, report: Report) -> bool:
        """Show an iterate; True ends the solve. ``lane`` is an index into a batch, () for a single solve."""
        if self.error is not None:  # from another lane
            return True
        if self._disp:
            (print if self._bar is None else self._bar.write)(_line(lane, f, report))
        if self._callback is None:
            return False
        try:
            x = self._combine(*x)
            if not self._whole:
                return _says_stop(self._callback(x))
            numbers = jax.tree.map(lambda number: number[()], report)
            result = _intermediate(x, f[()], numbers, np.int32(Status.RUNNING))
            return _says_stop(self._callback(intermediate_result=result))
        except StopIteration:
            return True
        except BaseException as error:  # minimize raises it, with its own traceback
            if self.compiled:
                raise
            self.error = self.error or error
            return True

    def after(self, due: Any, ended: Any, f: Any, report: Report) -> None:
        """Show the progress of all lanes, after ``show`` has run for those with a new iterate."""
        if self._bar is not None:
            self._bar.show(due, ended, f, report)


def _line(lane: tuple[int, ...], f: Any, report: Report) -> str:
    """An iterate as a printed line."""
    parts = [f"lane {', '.join(f'{i:4d}' for i in lane)}  "] if lane else []
    parts.append(f"iteration {int(report.nit):5d}   f = {float(f):<15.8g}")
    if report.gnorm is not None:
        name = "|g|" if report.violation is None else "|∇L|"
        parts.append(f"{name} = {float(report.gnorm):<10.3g}")
    if report.violation is not None:
        parts.append(f"violation = {float(report.violation):<10.3g}")
    return " ".join([*parts, f"evaluations = {int(report.nfev)}"])


def _intermediate(x: Any, f: Any, report: Report, status: Any) -> OptimizeResult:
    """What a callback receives as ``intermediate_result``."""
    constrained = report.violation is not None
    return OptimizeResult(
        x=x, fun=f, jac=None, nit=report.nit, nfev=report.nfev, njev=None, status=status,
        constr_violation=report.violation, optimality=report.gnorm if constrained else None,
    )  # fmt: skip


def watched(watcher: Watcher | None, solve: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Run the solve, and raise an exception of the user's callback unchanged."""
    if watcher is None:
        return solve(*arguments, **settings)
    try:
        solved = solve(*arguments, **settings)
        values = [_value(leaf) for leaf in jax.tree.leaves(solved)]
        if any_traced(values):
            watcher.compiled = True  # the compiled function calls it, after this call has returned
            return solved
        jax.block_until_ready(values)
    finally:
        if not watcher.compiled:
            watcher.close()
    if watcher.error is not None:
        raise watcher.error
    return solved


def _value(leaf: Any) -> Any:
    """The array below the tracers of ``grad`` and ``vmap``, or the tracer of ``jit`` below them."""
    below = {"JVPTracer": "primal", "LinearizeTracer": "primal", "BatchTracer": "val"}
    while type(leaf).__name__ in below:
        leaf = getattr(leaf, below[type(leaf).__name__])
    return leaf


def _says_stop(answer: Any) -> bool:
    """Whether the answer is True: a bool of Python, NumPy or JAX."""
    array = isinstance(answer, (bool, np.generic, np.ndarray, jax.Array))
    return array and np.ndim(answer) == 0 and np.asarray(answer).dtype == np.bool_ and bool(answer)


def _takes_result(callback: Callable[..., Any]) -> bool:
    """Whether the callback has SciPy's newer form: one parameter, named intermediate_result."""
    try:
        return list(inspect.signature(callback).parameters) == ["intermediate_result"]
    except (TypeError, ValueError):
        return False
