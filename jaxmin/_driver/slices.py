"""A solve from Python, in slices: between two of them Python is asked whether to go on."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxmin._core.status import Status

# More steps than any solve has.
MOST = np.iinfo(np.int32).max
# A slice takes about this long, in seconds: a person does not notice the wait, and the loop hardly the pauses.
_SLICE = 0.2
# A slice may have so many times as many steps as the last one.
_GROWTH = 4


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a solve. ``result`` is the :class:`~jaxmin.OptimizeResult` so far, ``state`` that of a solver.

    Args:
      found: what the last slice gave.
    """

    def __init__(self, found: Any) -> None:
        super().__init__("interrupted; the best point so far is in the attribute result of this exception")
        self.found = found
        self.result: Any = None
        self.state: Any = None


class Slices:
    """How many steps of a compiled loop take about as long as a slice; it learns from each slice."""

    def __init__(self) -> None:
        self.steps = 1

    def through(self, advance: Callable[[int], tuple[Any, Any]], most: int) -> Any:
        """Advance until the solve ends, or the steps are used up.

        Args:
          advance: a number of steps -> (what was found so far, its status, [] int32); it need not wait for them.
          most: the largest number of steps in all.

        Returns:
          What the last call of ``advance`` gave.

        Raises:
          Interrupted: after Ctrl-C, with what was found.
        """
        with _interrupts() as seen:
            while True:
                steps, begin = min(self.steps, most), time.perf_counter()
                found, status = advance(steps)
                most -= steps
                ended = int(status) != Status.RUNNING
                if seen:
                    raise Interrupted(found)
                if ended or most <= 0:
                    return found
                self._learn(steps, time.perf_counter() - begin)

    def _learn(self, steps: int, seconds: float) -> None:
        self.steps = max(1, min(_GROWTH * steps, int(steps * _SLICE / max(seconds, 1e-9))))


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that is not empty after Ctrl-C. A second Ctrl-C raises KeyboardInterrupt at once.

    An exception that Python raises between any two instructions may be lost in a callback or in JAX. A handler of the
    user's own stays.
    """
    seen: list[int] = []
    default = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not default:
        yield seen
        return

    def note(number: int, frame: Any) -> None:
        if seen:
            default(number, frame)
        seen.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, default)
