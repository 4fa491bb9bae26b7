"""The user's callback, with a note in its errors where it expects SciPy's result and receives x."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jaxmin._core.result import OptimizeResult
from jaxmin._driver.callbacks import Traced

_NAMES = {field.name for field in dataclasses.fields(OptimizeResult)} | {"success", "message"}
_NOTE = (
    "callback(x) receives x alone. As in SciPy, the result is for a callback whose only parameter has the name "
    "intermediate_result: callback(intermediate_result)."
)


def noted(callback: Any) -> Any:
    """The argument ``callback``, a function or a ``Traced`` with the note in its errors; None stays None."""
    if isinstance(callback, Traced):
        return Traced(_noted(callback.function))
    return None if callback is None else _noted(callback)


def _noted(callback: Callable[..., Any]) -> Callable[..., Any]:
    # The wrapper has the signature of the callback, which says what the callback receives.
    @functools.wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except (AttributeError, IndexError, TypeError, KeyError) as error:
            if args and _expects_result(error, args[0]):
                error.add_note(_NOTE)
            raise

    return call


def _expects_result(error: Exception, x: Any) -> bool:
    """Whether the error is one of ``x.nit`` or ``x["nit"]``, for any name of a result."""
    if isinstance(error, AttributeError):
        return error.obj is x and error.name in _NAMES
    return isinstance(error, IndexError) and hasattr(x, "dtype") and "only integers" in str(error)
