"""jaxmin: scipy.optimize.minimize for JAX, as one compiled loop."""

from jaxmin._descent import descend
from jaxmin._foreign import value_and_grad_from_state
from jaxmin._method import Direction, Iterate, LineSearch, Method
from jaxmin._minimize import minimize
from jaxmin._registry import entries as _entries
from jaxmin._result import STATUS, OptimizeResult, Status

_builders = {name: entry.build for package in ("methods", "linesearches") for name, entry in _entries(package).items()}
globals().update(_builders)

__all__ = [
    "STATUS", "Direction", "Iterate", "LineSearch", "Method", "OptimizeResult", "Status",
    "descend", "minimize", "value_and_grad_from_state", *_builders,
]  # fmt: skip
__version__ = "0.1.0"
