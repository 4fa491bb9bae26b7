"""Watching a solve from the host: callbacks and printed lines, called from inside the compiled loop."""

import inspect
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._result import CALLBACK, RUNNING, OptimizeResult

_GO_ON, _STOP = 0, 1
_watchers = {}  # number -> what is to be called; the compiled solve knows the number alone
_numbers = itertools.count(1)
_lock = threading.Lock()


def ask(number, accepted, x, iterate, nit, nfev, status):
    """The status after the watcher was shown an iterate: CALLBACK where it asks for an end.

    The call is a ``pure_callback`` whose answer is carried on: it works where a batch is solved, lane by lane,
    and every trip waits for it, so that the calls come in order. Only lanes with a new iterate are shown.
    """
    due = accepted & (nit > 0)
    answer = jax.ShapeDtypeStruct((), jnp.int32)
    shown = (number, due, x, iterate.f, iterate.g, nit, nfev)

    def call():
        return jax.pure_callback(_show, answer, *shown, vmap_method="sequential")

    asked = jax.lax.cond(due, call, lambda: jnp.zeros((), jnp.int32))
    return jnp.where(due & (asked == _STOP), CALLBACK, status).astype(jnp.int32)


def _show(number, due, x, f, g, nit, nfev):
    if not due:
        return np.int32(_GO_ON)
    watcher = _watchers.get(int(number))
    stop = watcher is None or watcher.show(*jax.tree.map(np.asarray, (x, f, g, nit, nfev)))
    return np.int32(_STOP if stop else _GO_ON)


class Watcher:
    """The user's callback and the printed lines of one call of minimize.

    Args:
      callback: SciPy's: ``callback(x)``, or ``callback(intermediate_result)`` by that name; or None.
      disp: whether each iterate is printed.
      combine: the arrays of x, those that vary and those that do not -> the user's x.
    """

    def __init__(self, callback, disp, combine):
        self._callback, self._disp, self._combine = callback, disp, combine
        self._whole = callback is not None and _takes_result(callback)
        self.error = None
        self.compiled = False
        with _lock:
            self.number = next(_numbers)
            _watchers[self.number] = self

    def close(self):
        """Forget it: nothing will call it any more."""
        _watchers.pop(self.number, None)

    def show(self, x, f, g, nit, nfev):
        """Tell of an iterate; whether the solve is to end."""
        if self._disp:
            gnorm = max((float(np.max(np.abs(leaf), initial=0)) for leaf in jax.tree.leaves(g)), default=0.0)
            print(f"iteration {int(nit):5d}   f = {float(f):<15.8g} |g| = {gnorm:<10.3g} evaluations = {int(nfev)}")
        if self._callback is None:
            return False
        try:
            x = self._combine(*x)
            if not self._whole:
                return _says_stop(self._callback(x))
            result = OptimizeResult(
                x=x, fun=f[()], jac=None, nit=nit[()], nfev=nfev[()], njev=None, status=np.int32(RUNNING)
            )
            return _says_stop(self._callback(intermediate_result=result))
        except StopIteration:
            return True
        except BaseException as error:  # it is raised by minimize, with its own traceback
            if self.compiled:
                raise
            self.error = self.error or error
            return True


def watched(watcher, solve, *arguments):
    """What the solve gives; an exception of the user's callback is raised as it was."""
    if watcher is None:
        return solve(*arguments)
    try:
        solved = solve(*arguments)
    except BaseException:
        watcher.close()
        raise
    values = [_value(leaf) for leaf in jax.tree.leaves(solved)]
    if any(isinstance(value, jax.core.Tracer) for value in values):
        watcher.compiled = True  # it will be called when that runs, with nobody here to raise what it raises
        return solved
    jax.block_until_ready(values)
    watcher.close()
    if watcher.error is not None:
        raise watcher.error
    return solved


def _value(leaf):
    """The array below the tracers of ``grad`` and ``vmap``, or the tracer of ``jit`` below them."""
    below = {"JVPTracer": "primal", "LinearizeTracer": "primal", "BatchTracer": "val"}
    while type(leaf).__name__ in below:
        leaf = getattr(leaf, below[type(leaf).__name__])
    return leaf


def _says_stop(answer):
    return isinstance(answer, (bool, np.bool_)) and bool(answer)


def _takes_result(callback):
    """Whether it wants SciPy's newer form: a sole parameter of the name intermediate_result."""
    try:
        return list(inspect.signature(callback).parameters) == ["intermediate_result"]
    except (TypeError, ValueError):
        return False
