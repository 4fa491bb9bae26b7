"""jaxmin: scipy.optimize.minimize for JAX, as one compiled loop."""

from jaxmin._as_optax import as_optax
from jaxmin._box import Bounds
from jaxmin._descent import descend
from jaxmin._history import History
from jaxmin._inverse_hessian import InverseHessian
from jaxmin._lookup import iterate, value_and_grad_from_state
from jaxmin._many import minimize_many
from jaxmin._method import Direction, Iterate, LineSearch, Method, Start
from jaxmin._minimize import minimize
from jaxmin._plot import plot
from jaxmin._registry import entries as _entries
from jaxmin._result import STATUS, OptimizeResult, Status
from jaxmin._solver import Solver, SolverState
from jaxmin._watch import traced

_builders = {name: entry.build for package in ("methods", "linesearches") for name, entry in _entries(package).items()}
globals().update(_builders)

__all__ = [
    "STATUS", "Bounds", "Direction", "History", "InverseHessian", "Iterate", "LineSearch", "Method", "OptimizeResult",
    "Solver", "SolverState", "Start", "Status",
    "as_optax", "descend", "iterate", "minimize", "minimize_many", "plot", "traced",
    "value_and_grad_from_state", *_builders,
]  # fmt: skip
__version__ = "0.1.0"
