"""A call of minimize, checked and ready to run."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmin._api.options import as_arrays, choose, parse, resolve_auto, trips_unrolled
from jaxmin._api.progress import Bar
from jaxmin._api.warm_start import warm
from jaxmin._cache.registry import methods_that
from jaxmin._core.inverse_hessian import Dense, InverseHessian
from jaxmin._core.result import OptimizeResult
from jaxmin._driver.callbacks import Traced, Watcher, trace
from jaxmin._driver.evaluation import SECOND_ORDER
from jaxmin._driver.implicit import check_mode
from jaxmin._driver.solution import bounded
from jaxmin._interop.nnx import as_model
from jaxmin._problem import hessian, objective
from jaxmin._problem.bounds import box
from jaxmin._problem.sharding import in_form, placed


class Call(NamedTuple):
    """A call of minimize, checked and ready to run."""

    problem: Any
    method: Any
    limits: Any
    diff: str
    unrolled: Any  # how many trips are recorded, or None
    box: Any  # a ``Box`` or ``Unbounded``
    traced: Any  # a ``TracedCallback``, or None
    curvature: Any  # of the result that the solve begins warm from, or None
    history: dict  # see ``_loop.begin``
    watcher: Any  # () -> a ``Watcher``, or None
    whole: Any  # x as the solve has it -> the user's

    def result(self, *solved):
        """What the user is given, of what ``solve`` gave."""
        result = result_of(self.problem, bounded(self.problem.variables, self.box, solved[-1]), *solved)
        return result if self.whole is None else dataclasses.replace(result, x=self.whole(result.x))


def prepare(
    fun, x0, args=(), method="lbfgs", *, jac=None, hess=None, hessp=None, bounds=None, constraints=(), tol=None,
    callback=None, options=None, linesearch=None, has_aux=False, progress=False,
):  # fmt: skip
    """The arguments of minimize, which says what they are, as a ``Call``."""
    _refuse(constraints=constraints)
    if not (callback is None or callable(callback) or isinstance(callback, Traced)):
        raise TypeError(f"callback={callback!r}: callable, callback(x) or callback(intermediate_result)")
    for name, flag in (("has_aux", has_aux), ("progress", progress)):
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"{name}={flag!r}: True or False")
    jac = _checked_jac(jac)
    hess, hessp = hessian.checked(hess, hessp)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: it must be callable, fun(x, *args)")
    options = parse(options)
    check_mode(options.diff)
    model = as_model(x0, options.wrt)
    if model is not None:
        fun, jac, hess, hessp = map(model.of_parameters, (fun, jac, hess, hessp))
        x0 = model.parameters
    method = resolve_auto(method, hess, hessp, bounds is not None)
    chosen, limits = choose(method, linesearch, tol, options, bounded=bounds is not None)
    unrolled = trips_unrolled(options.diff, chosen, limits)
    hess, hessp = hessian.used(chosen.wants, method, hess, hessp)
    gradient = "grad" in chosen.wants
    problem = objective.build(fun, x0, args, jac, has_aux, gradient, hess, hessp)
    if chosen.wants & SECOND_ORDER:
        problem = objective.with_second(problem)
    problem = in_form(options.flat, problem, chosen, _those_on_leaves)
    within = placed(box(bounds, problem.variables, problem.x_static), problem)
    _check_wants(chosen, problem, within.bounded)
    curvature = None if options.warm_start is None else warm(options.warm_start, chosen, problem.variables)
    whole = model.whole if model else lambda x: x
    asked = trace(callback, problem, whole, gradient) if isinstance(callback, Traced) else None
    told = None if asked is not None else callback

    def watcher():
        if told is None and not options.disp and not progress:
            return None
        most = options.limits.get("maxiter")
        bar = Bar(None if most is None or isinstance(most, jax.core.Tracer) else int(most)) if progress else None
        return Watcher(told, options.disp, lambda x, fixed: whole(problem.x_static.combine(x, fixed)), bar)

    limits = as_arrays(limits, problem.variables)
    of_user = None if model is None else whole
    return Call(
        problem, chosen, limits, options.diff, unrolled, within, asked, curvature, options.history, watcher, of_user
    )  # fmt: skip


def _refuse(**given):
    """What is not offered is refused by name, never ignored."""
    for name, value in given.items():
        if value is not None and not (name == "constraints" and isinstance(value, (tuple, list)) and not value):
            raise NotImplementedError(f"{name}: not offered yet")


def _checked_jac(jac):
    if not (jac is None or isinstance(jac, bool) or callable(jac)):
        raise ValueError(
            f"jac={jac!r}: None or False (automatic differentiation, which finite differences cannot beat), "
            "True (fun returns value and gradient), or a callable"
        )
    return None if jac is False else jac


def _check_wants(method, problem, bounded):
    """Refuse a method that wants what the problem does not offer, or takes no bounds where there are some."""
    missing = method.wants - problem.offers
    if missing:
        raise ValueError(
            f"method: it wants {_quoted(missing)}, and this problem offers {_quoted(problem.offers)}: fun returns one "
            "number, and there are no residuals and no constraints"
        )
    if bounded and "box" not in method.wants:
        able = methods_that(lambda method: "box" in method.wants)
        raise ValueError(
            f"bounds: this method takes no bounds; use one of {_quoted(able)}, or a method of your own with 'box' in "
            "its wants"
        )


def _those_on_leaves():
    """The methods that work on the leaves of x0 as they are, in words."""
    return f"{', '.join(map(repr, methods_that(lambda method: method.trees)))} and transformations"


def _quoted(names):
    return ", ".join(map(repr, sorted(names)))


def result_of(problem, bounded, x, jac, solution, axes=None):
    """The arrays that the solve gave, in the user's structures; ``axes``: see ``InverseHessian``."""
    variables, static, aux_static = problem.variables, problem.x_static, problem.trace.aux_static
    nit, nfev, nhev, curvature, history = solution.others
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
        njev=None if jac is None else nfev,
        nhev=nhev,
        history=history,
        status=solution.status,
        hess_inv=hess_inv,
        aux=aux_static.combine(solution.aux),
        gnorm=bounded.gnorm,
        active_mask=None if bounded.active is None else static.only(bounded.active),
        _static=(static if static.leaves() else None, aux_static if aux_static.leaves() else None),
    )
