"""A call of minimize, checked and ready to run."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._api.callback import noted
from jaxmin._api.options import (
    AUTO,
    AUTO_FIRST_ORDER,
    as_arrays,
    choose,
    for_first_order,
    parse,
    resolve_auto,
    steps_unrolled,
)
from jaxmin._api.progress import Bar
from jaxmin._api.warm_start import warm
from jaxmin._cache.registry import methods_that
from jaxmin._core.box import Within
from jaxmin._core.frames import stacklevel
from jaxmin._core.inverse_hessian import Core, Dense, InverseHessian
from jaxmin._core.kkt import Multipliers
from jaxmin._core.loss import LINEAR
from jaxmin._core.promotion import standard
from jaxmin._core.protocol import CONSTRAINTS, RESIDUALS, SECOND_ORDER, Method
from jaxmin._core.result import OptimizeResult
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables
from jaxmin._driver.callbacks import Traced, TracedCallback, Watcher, trace
from jaxmin._driver.evaluation import counters
from jaxmin._driver.implicit import check_mode
from jaxmin._driver.solution import bounded
from jaxmin._driver.stopping import Limits
from jaxmin._interop.foreign import Foreign
from jaxmin._interop.nnx import as_model
from jaxmin._problem import hessian, objective
from jaxmin._problem.bounds import BoundsLike, box
from jaxmin._problem.constraints import NO_CONSTRAINTS, as_returned, checked, multipliers
from jaxmin._problem.objective import Problem
from jaxmin._problem.sharding import check_manual, in_form, placed


class Call(NamedTuple):
    """A call of minimize, checked and ready to run."""

    problem: Problem
    method: Method | Foreign
    named: Any  # the method as the call named it; "auto" is resolved
    limits: Limits
    diff: str
    unrolled: int | None  # the number of steps to record
    box: Within
    traced: TracedCallback | None
    warm: Core | Multipliers | None  # what the method begins with, from an earlier result
    carried: dict[str, Any]  # the arguments history, keep_x and relative of the loop's ``begin``
    watcher: Callable[[], Watcher | None]
    whole: Callable[[PyTree], Any] | None  # the x of the solve -> the user's model; None if x0 is not a model
    hessian: Callable[[PyTree], jax.Array]  # x -> the exact Hessian of fun

    def warn(self) -> None:
        """Say what is certainly wrong with fun, at the line of the user that called jaxmin."""
        if self.problem.trace.flaw is not None:
            warnings.warn(self.problem.trace.flaw, RuntimeWarning, stacklevel=stacklevel())

    def result(self, *solved: Any) -> OptimizeResult:
        """The user's result, from the output of ``solve``."""
        solution = solved[-1]
        if solution.others.nhev is None and "nhev" in counters(self.method.wants):
            # The usual part of the method does without second derivatives.
            others = solution.others._replace(nhev=jnp.zeros((), jnp.int32))
            solved = (*solved[:-1], solution._replace(others=others))
        result = result_of(self.problem, bounded(self.problem.variables, self.box, solution), *solved)
        result = dataclasses.replace(result, _hessian=functools.partial(self.hessian, result.x))
        return result if self.whole is None else dataclasses.replace(result, x=self.whole(result.x))


def prepare(
    fun: Any, x0: PyTree, args: Any = (), method: Any = "lbfgs", *, jac: Any = None, hess: Any = None,
    hessp: Any = None, bounds: BoundsLike | None = None, constraints: Any = (), tol: Any = None, callback: Any = None,
    options: Any = None, linesearch: Any = None, has_aux: bool = False, progress: bool = False,
) -> Call:  # fmt: skip
    """The arguments of ``minimize``, checked, as a ``Call``."""
    rows = checked(constraints)
    if not (callback is None or callable(callback) or isinstance(callback, Traced)):
        raise TypeError(f"callback={callback!r}: give a callable, callback(x) or callback(intermediate_result)")
    for name, flag in (("has_aux", has_aux), ("progress", progress)):
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"{name}={flag!r}: True or False")
    callback, jac = noted(callback), _checked_jac(jac)
    if hessian.is_learnt(hess) and rows is not None:
        options, hess = {"hessian": "bfgs"} | dict(options or {}), None
    hess, hessp = hessian.checked(hess, hessp)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: it must be callable, fun(x, *args)")
    options = parse(options)
    check_mode(options.diff)
    model = as_model(x0, options.wrt)
    if model is not None:
        fun, jac, hess, hessp = map(model.of_parameters, (fun, jac, hess, hessp))
        x0 = model.parameters
    asked, method = method, resolve_auto(method, hess, hessp, bounds, rows is not None)
    chosen, limits = choose(method, linesearch, tol, options, bounded=bounds is not None)
    if rows is None and "constraints" in chosen.wants:
        rows = NO_CONSTRAINTS
    unrolled = steps_unrolled(options.diff, chosen, limits)
    hess, hessp = hessian.used(chosen.wants, method, hess, hessp)
    gradient = "grad" in chosen.wants
    wanted, loss = chosen.wants & (CONSTRAINTS | RESIDUALS), getattr(chosen, "loss", None) or LINEAR
    if isinstance(chosen, Method):
        chosen = chosen._replace(loss=None)  # it is a part of the problem
    problem = objective.build(fun, x0, args, jac, has_aux, gradient, hess, hessp, rows, wanted, loss)
    if method == AUTO and asked != AUTO:
        derived = objective.with_products(problem)
        if derived is not None:
            problem = derived
        else:
            method, options = AUTO_FIRST_ORDER, for_first_order(options)
            chosen, limits = choose(method, linesearch, tol, options, bounded=bounds is not None)
    elif chosen.wants & (SECOND_ORDER | {"lagrangian_product"}):
        problem = objective.with_second(problem, products="H" not in chosen.wants)
    problem = in_form(options.flat, problem, chosen, _methods_on_leaves)
    within = placed(box(bounds, problem.variables, problem.x_static), problem)
    check_manual((problem.leaves, problem.fixed, problem.arrays, problem.trace.constants, within))
    _check_wants(chosen, problem)
    _check_within(chosen, method, within)
    earlier = None if options.warm_start is None else warm(options.warm_start, chosen, problem)
    whole = model.whole if model else lambda x: x
    in_loop = trace(callback, problem, whole, gradient) if isinstance(callback, Traced) else None
    on_host = None if in_loop is not None else callback

    def watcher() -> Watcher | None:
        if on_host is None and not options.disp and not progress:
            return None
        most = options.limits.get("maxiter")
        bar = Bar(None if most is None or isinstance(most, jax.core.Tracer) else int(most)) if progress else None
        return Watcher(on_host, options.disp, lambda x, fixed: whole(problem.x_static.combine(x, fixed)), bar)

    exact = functools.partial(_hessian, fun, args, (has_aux, jac is True), problem)
    limits = as_arrays(limits, problem.variables)
    of_model = None if model is None else whole
    carried = options.history | {"relative": limits.gtol_relative is not None}
    return Call(
        problem, chosen, method, limits, options.diff, unrolled, within, in_loop, earlier, carried, watcher, of_model,
        exact,
    )  # fmt: skip


def _hessian(fun: Any, args: Any, returns: tuple[bool, bool], problem: Problem, x: PyTree) -> jax.Array:
    """The Hessian of fun at x [n, n], by automatic differentiation.

    Args:
      returns: whether fun returns aux too, and its gradient.
    """
    if problem.trace.layout.r:
        raise ValueError(
            "covariance: this method forms no Jacobian; minimize again from res.x with method='levenberg_marquardt'"
        )
    args = args if isinstance(args, tuple) else (args,)
    leaves = problem.x_static.pick(x)
    variables = Variables(leaves)
    has_aux, with_grad = returns

    def value(v: jax.Array) -> jax.Array:
        out = fun(problem.x_static.combine(variables.unravel(v), problem.fixed), *args)
        out = out[0] if with_grad else out
        return jnp.reshape(out[0] if has_aux else out, ())

    return standard(jax.hessian(value))(variables.ravel(leaves))


def _checked_jac(jac: Any) -> Any:
    if not (jac is None or isinstance(jac, bool) or callable(jac)):
        raise ValueError(
            f"jac={jac!r}: give None or False (automatic differentiation, which finite differences cannot beat), "
            "True (fun returns value and gradient), or a callable"
        )
    return None if jac is False else jac


def _check_wants(method: Method | Foreign, problem: Problem) -> None:
    """Raise if the method wants something that the problem does not offer."""
    missing = method.wants - problem.offers
    if problem.rows is not None and "constraints" not in method.wants:
        able = methods_that(lambda method: "constraints" in method.wants)
        raise ValueError(f"constraints: this method takes none; use one of {_quoted(able)}, or leave method out")
    if missing:
        raise ValueError(
            f"method: it wants {_quoted(missing)}, and this problem offers {_quoted(problem.offers)}: fun returns one "
            "number, and there are no residuals"
        )


def _check_within(method: Method | Foreign, given: Any, within: Within) -> None:
    """Raise if there are bounds, or a set, and the method takes none; ``given`` is the method of the call."""
    if within.is_set and "set" not in method.wants:
        able = methods_that(lambda method: "set" in method.wants)
        named = f"method={given!r}" if isinstance(given, str) else "this method"
        raise ValueError(
            f"bounds: {named} takes no sets of jaxmin.sets, only boxes; use one of {_quoted(able)}, a transformation "
            "such as 'adam', or a method of your own with 'set' in its wants"
        )
    if within.bounded and "box" not in method.wants:
        able = methods_that(lambda method: "box" in method.wants)
        raise ValueError(
            f"bounds: this method takes no bounds; use one of {_quoted(able)}, or a method of your own with 'box' in "
            "its wants"
        )


def _methods_on_leaves() -> str:
    """The methods that work on the leaves of x0 without joining them, in words."""
    return f"{', '.join(map(repr, methods_that(lambda method: method.trees)))} and transformations"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _of_rows(problem: Problem, solution: Any, bounded: Any) -> dict[str, Any]:
    """The entries of a constrained result."""
    if solution.kkt is None or problem.rows is None:
        return {}
    kkt, shapes = solution.kkt, problem.trace.shapes
    w = problem.x_static.only(bounded.w)
    return {
        "v": [*as_returned(kkt.v, shapes), w],
        "constr": as_returned(kkt.rows.c, shapes),
        "multipliers": multipliers(kkt.v, problem.rows, shapes),
        "constr_violation": solution.residuals.violation,
        "optimality": solution.residuals.optimality,
    }


def result_of(
    problem: Problem, bounded: Any, x: Any, jac: Any, solution: Any, axes: tuple[int, ...] | None = None
) -> OptimizeResult:
    """The arrays of the solve in the user's structures; for ``axes`` see ``InverseHessian``."""
    variables, static, aux_static = problem.variables, problem.x_static, problem.trace.aux_static
    nit, nfev, nhev, curvature, history, njev, cosine, gnorm0 = solution.others
    if history is not None and history.x is not None:
        history = history._replace(x=static.only(history.x))
    hess_inv: Any = None if curvature is None else InverseHessian(curvature, variables, static, axes)
    if isinstance(curvature, Dense) and jax.tree_util.treedef_is_leaf(static.treedef):
        hess_inv = curvature.H
    return OptimizeResult(
        x=static.combine(x, problem.fixed),
        fun=solution.f,
        jac=None if jac is None else static.only(jac),
        nit=nit,
        nfev=nfev,
        njev=None if jac is None else nfev if njev is None else njev,
        cosine=cosine,
        nhev=nhev,
        history=history,
        status=solution.status,
        hess_inv=hess_inv,
        aux=aux_static.combine(solution.aux),
        **_of_rows(problem, solution, bounded),
        gnorm=bounded.gnorm,
        gnorm0=gnorm0,
        active_mask=None if bounded.active is None else static.only(bounded.active),
        _static=(static if static.leaves() else None, aux_static if aux_static.leaves() else None),
    )
