"""minimize: SciPy's call, as one compiled loop."""

import dataclasses
import inspect
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmin import _hessian, _problem
from jaxmin import _vector as vec
from jaxmin._box import box, gradient_norm
from jaxmin._implicit import check_mode
from jaxmin._inverse_hessian import Dense, InverseHessian
from jaxmin._method import Method
from jaxmin._models import as_model
from jaxmin._options import OWN_SEARCH, as_arrays, choose, history_length, of_what_is_given, trips_unrolled
from jaxmin._progress import Bar
from jaxmin._result import OptimizeResult
from jaxmin._sharding import in_form, placed
from jaxmin._solve import solve
from jaxmin._warm_start import warm
from jaxmin._watch import Traced, Watcher, trace, watched


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
    progress=False,
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
      method: "lbfgs" (default), "bfgs", "cg", "gradient_descent"; "newton_cg" ("TNC"), "trust_ncg" and
        "trust_krylov", with Hessian-vector products; "trust_exact" and "dogleg", with Hessians; "nelder_mead" and
        "powell", without gradients; in SciPy's spelling or ours. "auto" is "trust_exact" where ``hess`` is given and no
        bounds, "trust_ncg" where it is with bounds, or ``hessp`` is, and else "lbfgs". None is SciPy's rule ("bfgs").
        Or what a builder made: ``jaxmin.lbfgs(memory=20)``. Or a transformation, which runs without a line
        search unless one is given: by name ("sgd", "momentum", "nesterov", "adagrad", "rmsprop",
        "rmsprop_momentum", "adam", "adamax", "sm3", "extra_gradient", with the option ``learning_rate``), any
        Optax-style object, or a triple of ``jax.example_libraries.optimizers``.
      jac: None (default) differentiates fun; True says that fun returns ``(value, gradient)``; a
        callable ``jac(x, *args)`` gives the gradient, built like x0, in ``jax.grad``'s convention.
      bounds: SciPy's list of (low, high) pairs, None for no bound; or :class:`~jaxmin.Bounds` (SciPy's too),
        with arrays or pytrees shaped like x0. A start outside is moved to the nearest point inside; nothing is
        evaluated outside. The stopping test is then on the projected gradient. A transformation that searches
        by itself is refused.
      callback: SciPy's: ``callback(x)``, or ``callback(intermediate_result)`` by that name, called on the host after
        each iteration with NumPy arrays, under ``vmap`` lane by lane. ``StopIteration`` or True ends the solve
        (that lane) with status 99; any other exception ends it and is raised here, or, under an outer ``jit``, by
        JAX when the compiled function runs. Or :func:`jaxmin.traced`, a callback that is part of the compiled loop.
      hess, hessp: second derivatives by hand, for the methods that use them (others warn): None (automatic
        differentiation), or callables: ``hess(x, *args)`` gives H of shape [n, n], for x0 of any shape or a pytree
        what ``jax.hessian`` gives; ``hessp(x, p, *args)`` gives H p, with p and H p built like x0 (None for what
        does not vary), for complex parts in ``jax.grad``'s convention. Where both are given, the one is called that
        the method asks for, the Hessian once an iterate at most. A solution's derivatives do without them.
      constraints: SciPy's; not offered yet, and refused.
      tol: the tolerance that counts for the method, as SciPy maps it: gtol, for "lbfgs" ftol as well, for "newton_cg"
        xtol as well.
        ``options`` go before it.
      options: a dictionary, names in SciPy's spelling or ours. Of the solve, all of them traced values:

        - ``gtol`` (1e-5): the infinity norm of the gradient that is small enough;
        - ``ftol`` (off): the decrease of fun in an iteration, relative to max(\|fun\|, 1);
        - ``xtol`` (off): the largest change of x in an iteration, relative to max(\|x\|, 1);
        - ``maxiter`` (15000), ``maxfun`` (15000, or a larger maxiter): iterations, evaluations.

        "nelder_mead" has SciPy's own: ``xatol`` and ``fatol`` (1e-4, absolute, both needed), and 200 n for limits.
        "powell" too: ``xtol`` and ``ftol`` (1e-4, relative; a line is searched to 100 xtol), and 1000 n.

        Of what is shown: ``disp``, True prints a line an iteration; ``history``, N keeps the figures of the
        last N iterates in ``res.history``, True those of maxiter + 1; ``history_x``, True their points too.
        Of what is known before: ``warm_start``, the result of a similar problem, whose curvature
        (``res.hess_inv``) "lbfgs" and "bfgs" begin with; the start is x0 all the same. A matrix, as of "bfgs" and of
        "lbfgs" for up to 16 variables without ``memory``, does not go into an "lbfgs" that keeps pairs.
        Of the method and its search: the parameters of their builders, such as ``maxcor`` and ``maxls``; for
        a transformation by name, ``clip`` too: the largest 2-norm of a gradient that is not scaled down.
        Of derivatives of the solution: ``diff``, "implicit" (default: by the implicit function theorem, with
        respect to args, bounds and what fun closes over), "none" (refused), or, for a transformation, "unroll"
        (through each of the maxiter or maxfun evaluations, x0 included: memory for all of them).
        Of what is sharded: ``flat``, whether x0's leaves are joined to one vector for the method. By default they
        are, unless one of them is sharded over several devices, and not known to be so under ``jit``. False keeps
        them apart, each with its sharding; the methods but "bfgs" and those that use matrices or no gradients can.
        Of x0, if it is a Flax NNX module: ``wrt`` (``nnx.Param``), the filter that says which of its
        variables vary.
      linesearch: "backtracking", "wolfe", "hager_zhang", "fixed", or what a builder made. By default the
        method's own.
      has_aux: fun returns ``(value, aux)``; with ``jac=True``, ``((value, aux), gradient)``. The result
        holds the aux of the point returned.
      progress: True shows a bar with f, the gradient norm and the evaluations, in notebooks too; of a batch, the
        lanes that have ended. It needs tqdm (``jaxmin[progress]``).

    Returns:
      An :class:`~jaxmin.OptimizeResult`. Trouble that depends on values (NaN, a failed search, a limit,
      rounding) is its ``status``, beside the best point found.

    Raises:
      ValueError, TypeError: for an argument that cannot be right, naming it and the choices.
      NotImplementedError: for what SciPy offers and this does not yet.
      ImportError: for ``progress=True`` where tqdm is missing.

    >>> import jax.numpy as jnp, jaxmin
    >>> def rosen(x, a):
    ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> res = jaxmin.minimize(rosen, [-1.2, 1.0], args=(1.0,))
    >>> res.success, res.x.round(3).tolist()
    (True, [1.0, 1.0])

    References:
      The method's and the search's own: see their builders.
    """
    call = prepare(
        fun, x0, args, method, jac=jac, hess=hess, hessp=hessp, bounds=bounds, constraints=constraints, tol=tol,
        callback=callback, options=options, linesearch=linesearch, has_aux=has_aux, progress=progress,
    )  # fmt: skip
    watcher = call.watcher()
    solved = watched(
        watcher, solve, call.problem, call.method, call.limits, call.diff, call.box, watcher, call.traced,
        call.curvature, call.unrolled, **call.history,
    )  # fmt: skip
    return call.result(*solved)


class Call(NamedTuple):
    """A call of minimize, checked and ready to run."""

    problem: Any
    method: Any
    limits: Any
    diff: str
    unrolled: Any  # how many trips are recorded, or None
    box: Any  # a ``Box``, or None
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
    callback=None, options=None, linesearch=OWN_SEARCH, has_aux=False, progress=False,
):  # fmt: skip
    """The arguments of minimize, which says what they are, as a ``Call``."""
    _refuse(constraints=constraints)
    if not (callback is None or callable(callback) or isinstance(callback, Traced)):
        raise TypeError(f"callback={callback!r}: callable, callback(x) or callback(intermediate_result)")
    for name, flag in (("has_aux", has_aux), ("progress", progress)):
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"{name}={flag!r}: True or False")
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
    flat = options.pop("flat", None)
    earlier, most = options.pop("warm_start", None), options.get("maxiter")
    if model is not None:
        fun, jac, hess, hessp = map(model.of_parameters, (fun, jac, hess, hessp))
        x0 = model.parameters
    method = of_what_is_given(method, hess, hessp, bounds is not None)
    chosen, limits = choose(method, linesearch, tol, options, bounded=bounds is not None)
    unrolled = trips_unrolled(diff, chosen, limits)
    hess, hessp = _hessian.used(chosen.wants, method, hess, hessp)
    problem = _problem.build(fun, x0, args, jac, has_aux, chosen.wants != "value", hess, hessp)
    problem = in_form(flat, problem, chosen)
    within = placed(box(bounds, problem.variables, problem.x_static), problem)
    if within is not None:
        _check_bounded(chosen)
    curvature = None if earlier is None else warm(earlier, chosen, problem.variables)
    whole = model.whole if model else lambda x: x
    asked = trace(callback, problem, whole, chosen.wants != "value") if isinstance(callback, Traced) else None
    told = None if asked is not None else callback

    def watcher():
        if told is None and not disp and not progress:
            return None
        bar = Bar(None if most is None or isinstance(most, jax.core.Tracer) else int(most)) if progress else None
        return Watcher(told, disp, lambda x, fixed: whole(problem.x_static.combine(x, fixed)), bar)

    limits = as_arrays(limits, problem.variables)
    of_user = None if model is None else whole
    return Call(problem, chosen, limits, diff, unrolled, within, asked, curvature, history, watcher, of_user)


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


class Bounded(NamedTuple):
    """What a result says of bounds; None where there are none."""

    gnorm: Any = None  # [] the infinity norm of the projected gradient; of leaves kept apart without bounds too
    active: Any = None  # -1, 0 or 1 for each variable, in the leaves' shapes


def bounded(variables, within, solution):
    """The ``Bounded`` of a solution."""
    x, g = solution.x, solution.g
    if within is None:  # a sharded gradient would have to be gathered for its norm to be told
        return Bounded(None if variables.flat else gradient_norm(x, g))
    gnorm = gradient_norm(x, g, within)
    g = vec.zeros(x) if g is None else g  # without a gradient: where x is at a bound
    return Bounded(gnorm, variables.parts(within.active(x, g)))


def _check_bounded(method):
    """Refuse a method of the user's own that knows no box; whether a transformation does shows when it is traced."""
    if isinstance(method, Method) and "box" not in inspect.signature(method.update).parameters:
        raise ValueError(
            "bounds: this method takes none; 'lbfgs', 'bfgs', 'cg', 'gradient_descent', 'newton_cg', 'trust_ncg', "
            "'nelder_mead' and 'powell' do, and a method of one's own whose update has a parameter 'box'"
        )


def result_of(problem, bounded, x, jac, solution, axes=None):
    """The arrays that the solve gave, in the user's structures; ``axes``: see ``InverseHessian``."""
    variables, static, aux_static = problem.variables, problem.x_static, problem.trace.aux_static
    nit, nfev, nhev, curvature, history = solution.others
    if history is not None and history.x is not None:
        history = history._replace(x=static.only(history.x))
    hess_inv = None if curvature is None else InverseHessian(curvature, variables, static, axes)
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
