"""jaxmin: scipy.optimize.minimize for JAX, as one compiled loop."""

from jaxmin import datasets, extend, linesearches, methods, sets, transforms
from jaxmin._api.check_derivatives import DerivativeCheck, check_derivatives
from jaxmin._api.curve_fit import curve_fit
from jaxmin._api.minimize import minimize
from jaxmin._api.minimize_many import minimize_many
from jaxmin._api.plot import plot
from jaxmin._api.show_options import show_options
from jaxmin._api.solver import Solver, SolverState
from jaxmin._api.starts import starts
from jaxmin._core.inverse_hessian import InverseHessian
from jaxmin._core.protocol import Direction, Iterate, LineSearch, Method, Start
from jaxmin._core.result import OptimizeResult
from jaxmin._core.status import Status
from jaxmin._driver.callbacks import traced
from jaxmin._driver.history import History
from jaxmin._interop.as_optax import as_optax
from jaxmin._problem.bounds import Bounds
from jaxmin._problem.constraints import LinearConstraint, NonlinearConstraint
from jaxmin._problem.residuals import sum_of_squares
from jaxmin.linesearches.backtracking import backtracking
from jaxmin.linesearches.fixed import fixed
from jaxmin.linesearches.hager_zhang import hager_zhang
from jaxmin.linesearches.wolfe import wolfe
from jaxmin.methods._descend import descend
from jaxmin.methods.augmented_lagrangian import augmented_lagrangian
from jaxmin.methods.bfgs import bfgs
from jaxmin.methods.cg import cg
from jaxmin.methods.dogleg import dogleg
from jaxmin.methods.gauss_newton_krylov import gauss_newton_krylov
from jaxmin.methods.gradient_descent import gradient_descent
from jaxmin.methods.interior_point import interior_point
from jaxmin.methods.lbfgs import lbfgs
from jaxmin.methods.lbfgs_newton import lbfgs_newton
from jaxmin.methods.levenberg_marquardt import levenberg_marquardt
from jaxmin.methods.nelder_mead import nelder_mead
from jaxmin.methods.newton_cg import newton_cg
from jaxmin.methods.powell import powell
from jaxmin.methods.slsqp import slsqp
from jaxmin.methods.trust_exact import trust_exact
from jaxmin.methods.trust_krylov import trust_krylov
from jaxmin.methods.trust_ncg import trust_ncg
from jaxmin.transforms._lookup import iterate, value_and_grad_from_state

__all__ = [  # noqa: RUF022  # by what they are
    "Bounds", "DerivativeCheck", "Direction", "History", "InverseHessian", "Iterate", "LineSearch",
    "LinearConstraint", "Method", "NonlinearConstraint", "OptimizeResult", "Solver", "SolverState", "Start", "Status",
    "as_optax", "check_derivatives", "curve_fit", "descend", "iterate", "minimize", "minimize_many", "plot",
    "show_options", "starts", "sum_of_squares", "traced", "value_and_grad_from_state",
    "augmented_lagrangian", "bfgs", "cg", "dogleg", "gauss_newton_krylov", "gradient_descent", "interior_point",
    "lbfgs", "lbfgs_newton", "levenberg_marquardt", "nelder_mead", "newton_cg", "powell", "slsqp", "trust_exact",
    "trust_krylov", "trust_ncg",
    "backtracking", "fixed", "hager_zhang", "wolfe",
    "datasets", "extend", "linesearches", "methods", "sets", "transforms",
]  # fmt: skip
__version__ = "0.1.0"
