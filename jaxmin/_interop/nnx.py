"""Flax NNX models: split into parameters and other parts for the solve, and merged again."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxmin._core.typing import PyTree


class Model(NamedTuple):
    """An x0 that is a model: its parameters, and the function that builds the model from them."""

    parameters: PyTree
    whole: Callable[[PyTree], Any]  # parameters -> model

    def of_parameters(self, function: Any) -> Any:
        """A function of the model as a function of its parameters; None and flags unchanged."""
        return (lambda parameters, *args: function(self.whole(parameters), *args)) if callable(function) else function


def as_model(x0: Any, wrt: Any) -> Model | None:
    """``x0`` as a ``Model`` where it is a Flax NNX module, else None.

    Args:
      x0: any start.
      wrt: the variables of x0 that vary, one of NNX's filters (``nnx.Param`` by default) or a tuple of them.

    Raises:
      ValueError: if wrt is given and x0 is not a module, or if no variable matches it.
    """
    nnx = sys.modules.get("flax.nnx")  # imported wherever an NNX module exists
    if nnx is None or not isinstance(x0, nnx.Module):
        if wrt is not None:
            raise ValueError(f"options['wrt']={wrt!r}: a filter for a Flax NNX module, and x0 is not one")
        return None
    wrt = nnx.Param if wrt is None else wrt
    graph, parameters, rest = nnx.split(x0, wrt, ...)
    if not parameters:
        raise ValueError(f"options['wrt']={wrt!r}: no variable of x0 matches it")
    return Model(parameters, lambda parameters: nnx.merge(graph, parameters, rest, copy=True))
