"""minimize: SciPy's call, as one compiled loop."""

import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _hessian, _problem
from jaxmin import _vector as vec
from jaxmin._box import box
from jaxmin._implicit import check_mode
from jaxmin._inverse_hessian import Dense, InverseHessian
from jaxmin._method import Method
from jaxmin._models import as_model
from jaxmin._options import OWN_SEARCH, as_arrays, choose, history_length
from jaxmin._result import OptimizeResult
from jaxmin._solve import solve
from jaxmin._watch import Watcher, watched


def minimize(
    fun,
    x0,
    args=(),
    method="lbfgs",
    jac=None,
    hess=None,
    hessp=None,
    bounds=None,
    constraints=(),
    tol=None,
    callback=None,
    options=None,
    *,
    linesearch=OWN_SEARCH,
    has_aux=False,
):
    r"""Find a local minimum of a scalar function, in one compiled loop: SciPy's call for JAX.

    It works under ``jit`` and ``vmap``; a second call with the same function, shapes and dtypes compiles
    nothing, whatever the values of x0, args, bounds, tolerances and limits.

    Args:
      fun: the objective, ``fun(x, *args) -> scalar``, written with ``jax.numpy``. Any callable.
      x0: the start: an array, a list or tuple of numbers, or any pytree (nested containers, mixed and
        complex dtypes, modules with leaves that are no arrays). x comes back as x0 went in; integers
        become the default float dtype.
      args: further arguments, a tuple; anything else is the only one. Pytrees, integers and leaves that
        are no arrays are welcome.
      method: "lbfgs" (default), "bfgs", "cg", "gradient_descent"; "trust_ncg" and "trust_krylov", with
        Hessian-vector products; "trust_exact" and "dogleg", with Hessians; "nelder_mead", without gradients;
        in SciPy's spelling or ours. None is SciPy's rule ("bfgs"); what a builder made:
        ``jaxmin.lbfgs(memory=20)``. Or a transformation, which runs without a line search unless one is given:
        by name ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop_momentum", "adam", "adamax", "sm3",
        "extra_gradient", with the option ``learning_rate``), any Optax-style object, or a triple of
        ``jax.example_libraries.optimizers``.
      jac: None (default) differentiates fun; True says that fun returns ``(value, gradient)``; a
        callable ``jac(x, *args)`` gives the gradient, built like x0, in ``jax.grad``'s convention.
      bounds: SciPy's list of (low, high) pairs, None for no bound; or :class:`~jaxmin.Bounds` (SciPy's too),
        with arrays or pytrees shaped like x0. A start outside is moved to the nearest point inside; nothing is
        evaluated outside. The stopping test is then on the projected gradient. A transformation that searches
        by itself is refused.
      callback: SciPy's: ``callback(x)``, or ``callback(intermediate_result)`` by that name, called on the host after
        each iteration with NumPy arrays, under ``vmap`` lane by lane. ``StopIteration`` or True ends the solve
        (that lane) with status 99; any other exception ends it and is raised here, or, under an outer ``jit``, by
        JAX when the compiled function runs.
      hess, hessp: second derivatives by hand, for the methods that use them (others warn): None (automatic
        differentiation), or callables: ``hess(x, *args)`` gives H of shape [n, n], for x0 of any shape or a pytree
        what ``jax.hessian`` gives; ``hessp(x, p, *args)`` gives H p, with p and H p built like x0 (None for what
        does not vary), for complex parts in ``jax.grad``'s convention. Where both are given, the one is called that
        the method asks for, the Hessian once an iterate at most. A solution's derivatives do without them.
      constraints: SciPy's; not offered yet, and refused.
      tol: the tolerance that counts for the method, as SciPy maps it: gtol, for "lbfgs" ftol as well.
        ``options`` go before it.
      options: a dictionary, names in SciPy's spelling or ours. Of the solve, all of them traced values:

        - ``gtol`` (1e-5): the infinity norm of the gradient that is small enough;
        - ``ftol`` (off): the decrease of fun in an iteration, relative to max(\|fun\|, 1);
        - ``xtol`` (off): the largest change of x in an iteration, relative to max(\|x\|, 1);
        - ``maxiter`` (15000), ``maxfun`` (15000, or a larger maxiter): iterations, evaluations.

        "nelder_mead" has SciPy's own: ``xatol`` and ``fatol`` (1e-4, absolute, both needed), and 200 n for limits.

        Of what is shown: ``disp``, True prints a line an iteration; ``history``, N keeps the figures of the
        last N iterates in ``res.history``, True those of maxiter + 1.
        Of the method and its search: the parameters of their builders, such as ``maxcor`` and ``maxls``; for
        a transformation by name, ``clip`` too: the largest 2-norm of a gradient that is not scaled down.
        Of derivatives of the solution: ``diff``, "implicit" (default: by the implicit function theorem, with
        respect to args, bounds and what fun closes over) or "none" (refused).
        Of x0, if it is a Flax NNX module: ``wrt`` (``nnx.Param``), the filter that says which of its
        variables vary.
      linesearch: "backtracking", "wolfe", "hager_zhang", "fixed", or what a builder made. By default the
        method's own.
      has_aux: fun returns ``(value, aux)``; with ``jac=True``, ``((value, aux), gradient)``. The result
        holds the aux of the point returned.

    Returns:
      An :class:`~jaxmin.OptimizeResult`. Trouble that depends on values (NaN, a failed search, a limit,
      rounding) is its ``status``, beside the best point found.

    Raises:
      ValueError, TypeError: for an argument that cannot be right, naming it and the choices.
      NotImplementedError: for what SciPy offers and this does not yet.

    >>> import jax.numpy as jnp, jaxmin
    >>> def rosen(x, a):
    ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> res = jaxmin.minimize(rosen, [-1.2, 1.0], args=(1.0,))
    >>> res.success, res.x.round(3).tolist()
    (True, [1.0, 1.0])

    References:
      The method's and the search's own: see their builders.
    """
    _refuse(constraints=constraints)
    if not (callback is None or callable(callback)):
        raise TypeError(f"callback={callback!r}: callable, callback(x) or callback(intermediate_result)")
    if not isinstance(has_aux, (bool, np.bool_)):
        raise TypeError(f"has_aux={has_aux!r}: True or False")
    jac = _checked_jac(jac)
    hess, hessp = _hessian.checked(hess, hessp)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: it must be callable, fun(x, *args)")
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options={options!r}: a dictionary")
    options = dict(options or {})
    model = as_model(x0, options.pop("wrt", None))
    diff = options.pop("diff", "implicit")
    check_mode(diff)
    disp = bool(options.pop("disp", False))
    history = history_length(options)
    if model is not None:
        fun, jac, hess, hessp = map(model.of_parameters, (fun, jac, hess, hessp))
        x0 = model.parameters
    chosen, limits = choose(method, linesearch, tol, options, bounded=bounds is not None)
    hess, hessp = _hessian.used(chosen.wants, method, hess, hessp)
    problem = _problem.build(fun, x0, args, jac, has_aux, chosen.wants != "value", hess, hessp)
    within = box(bounds, problem.variables, problem.x_static)
    if within is not None:
        _check_bounded(chosen)
    limits = as_arrays(limits, problem.variables)
    whole = model.whole if model else lambda x: x
    watcher = None
    if callback is not None or disp:
        watcher = Watcher(callback, disp, lambda x, fixed: whole(problem.x_static.combine(x, fixed)))
    solved = watched(watcher, solve, problem, chosen, limits, diff, within, watcher, history)
    result = _result(problem, within, *solved)
    return result if model is None else dataclasses.replace(result, x=whole(result.x))


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


def _active(variables, within, solution):
    """-1, 0 or 1 for each variable, in the leaves' shapes."""
    counts = [math.prod(shape) for shape, _ in variables.shapes]
    g = 0 if solution.g is None else solution.g  # without a gradient: where x is at a bound
    parts = jnp.split(within.active(solution.x, g), np.cumsum(counts)[:-1].tolist())
    return [part.reshape(shape) for part, (shape, _) in zip(parts, variables.shapes)]


def _check_bounded(method):
    """Refuse a method of the user's own that knows no box; whether a transformation does shows when it is traced."""
    if isinstance(method, Method) and "box" not in inspect.signature(method.update).parameters:
        raise ValueError(
            "bounds: this method takes none (its update has no parameter 'box'); 'lbfgs', 'bfgs', 'cg', "
            "'gradient_descent' and 'nelder_mead' do"
        )


def _result(problem, within, x, jac, solution):
    """The arrays that the solve gave, in the user's structures."""
    variables, static, aux_static = problem.variables, problem.x_static, problem.trace.aux_static
    nit, nfev, nhev, curvature, history = solution.others
    hess_inv = None if curvature is None else InverseHessian(curvature, variables, static)
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
        gnorm=None if within is None or solution.g is None else vec.max_abs(within.projected(solution.x, solution.g)),
        active_mask=None if within is None else static.only(_active(problem.variables, within, solution)),
        _static=tuple(part if part.leaves() else None for part in (static, aux_static)),
    )
