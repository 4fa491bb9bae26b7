"""minimize: SciPy's call, as one compiled loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _problem
from jaxmin._foreign import Foreign, is_transformation
from jaxmin._inverse_hessian import InverseHessian
from jaxmin._loop import Limits, run
from jaxmin._method import LineSearch, Method
from jaxmin._registry import find
from jaxmin._result import OptimizeResult


class _OwnSearch:
    """The default of ``linesearch``: whatever search is the method's own."""

    def __repr__(self):
        return "'backtracking'"


_OWN_SEARCH = _OwnSearch()

_LIMITS = {"gtol": 1e-5, "ftol": -1.0, "xtol": -1.0, "maxiter": 15_000, "maxfun": 15_000}
_LIMIT_SPELLINGS = {name: name for name in _LIMITS} | {"maxfev": "maxfun", "xrtol": "xtol"}
_SEARCH_SPELLINGS = {"maxls": "max_trials", "c1": "sufficient", "c2": "curvature"}
# Options of SciPy's that have one value here, and why.
_FIXED_OPTIONS = {
    "disp": (False, "printing is not offered yet"),
    "return_all": (False, "a history is not offered yet"),
    "norm": (np.inf, "gtol is compared with the infinity norm"),
}
_NO_DIFFERENCES = ("eps", "finite_diff_rel_step", "workers")


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
    linesearch=_OWN_SEARCH,
    has_aux=False,
):
    r"""Find a local minimum of a scalar function, in one compiled loop: SciPy's call for JAX.

    It works under ``jit`` and ``vmap``; a second call with the same function, shapes and dtypes compiles
    nothing, whatever the values.

    Args:
      fun: the objective, ``fun(x, *args) -> scalar``, written with ``jax.numpy``. Any callable.
      x0: the start: an array, a list or tuple of numbers, or any pytree (nested containers, mixed and
        complex dtypes, modules with leaves that are no arrays). x comes back as x0 went in; integers
        become the default float dtype.
      args: further arguments, a tuple; anything else is the only one. Pytrees, integers and leaves that
        are no arrays are welcome.
      method: "lbfgs" (default), "bfgs", "cg", "gradient_descent", in SciPy's spelling or ours; None is
        SciPy's rule ("bfgs"); what a builder made: ``jaxmin.lbfgs(memory=20)``; or any Optax-style
        transformation, which runs without a line search unless one is given.
      jac: None (default) differentiates fun; True says that fun returns ``(value, gradient)``; a
        callable ``jac(x, *args)`` gives the gradient, built like x0, in ``jax.grad``'s convention.
      hess, hessp, bounds, constraints, callback: SciPy's; not offered yet, and refused.
      tol: the tolerance that counts for the method, as SciPy maps it: gtol, for "lbfgs" ftol as well.
        ``options`` go before it.
      options: a dictionary, names in SciPy's spelling or ours. Of the solve, all of them traced values:

        - ``gtol`` (1e-5): the infinity norm of the gradient that is small enough;
        - ``ftol`` (off): the decrease of fun in an iteration, relative to max(\|fun\|, 1);
        - ``xtol`` (off): the largest change of x in an iteration, relative to max(\|x\|, 1);
        - ``maxiter`` (15000), ``maxfun`` (15000, or a larger maxiter): iterations, evaluations.

        Of the method and its search: the parameters of their builders, such as ``maxcor`` and ``maxls``.
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
    _refuse(hess=hess, hessp=hessp, bounds=bounds, constraints=constraints, callback=callback)
    jac = _checked_jac(jac)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: it must be callable, fun(x, *args)")
    if not isinstance(options, (dict, type(None))):
        raise TypeError(f"options={options!r}: a dictionary")
    chosen, limits = _choose(method, linesearch, tol, dict(options or {}))
    problem = _problem.build(fun, x0, args, jac, has_aux)
    solve = _compiled(problem.trace.signature, problem.variables, problem.trace.value_dtype, chosen, problem.x_static)
    return _result(problem, *solve(problem.leaves, problem.inputs(), _as_arrays(limits, problem.variables.dtype)))


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


def _choose(method, linesearch, tol, options):
    """The method to run and the limits of the solve."""
    limits = _take_limits(options)
    entry = None
    if method is None:
        method = "bfgs"
    if not isinstance(method, Method) and not is_transformation(method):
        entry = find("methods", "method", method)
    if tol is not None:
        _check_limit("tol", tol)
        for name in entry.tol_sets if entry else ("gtol",):
            limits.setdefault(name, tol)
    if "maxiter" in limits and "maxfun" not in limits:  # who asks for more iterations wants their evaluations
        limits["maxfun"] = _no_less(_LIMITS["maxfun"], limits["maxiter"])
    limits = Limits(**(_LIMITS | limits))
    if isinstance(method, Method):
        if linesearch is not _OWN_SEARCH:
            raise ValueError("linesearch: this method is already built; give the search to its builder")
        _reject_options(options, {})
        return method, limits
    if entry is None:
        if linesearch is _OWN_SEARCH:
            _reject_options(options, {})
            return Foreign(method), limits
        return Foreign(method, **_choose_search(linesearch, options, {})), limits

    constants = _take(options, entry.parameters)
    search = _choose_search(linesearch, options, entry.parameters)
    return entry.build(**constants, **search), limits


def _no_less(default, count):
    traced = isinstance(count, jax.core.Tracer)
    return jnp.maximum(default, count) if traced else max(default, float(count))


def _choose_search(linesearch, options, others):
    """The search as a builder's keyword, out of what is left of the options; empty for the method's own."""
    if isinstance(linesearch, LineSearch):
        _reject_options(options, others)
        return {"linesearch": linesearch}
    own = linesearch is _OWN_SEARCH
    entry = find("linesearches", "linesearch", "backtracking" if own else linesearch)
    known = {name: to for name, to in _SEARCH_SPELLINGS.items() if to in entry.parameters} | entry.parameters
    constants = _take(options, known)
    _reject_options(options, others | known)
    return {} if own and not constants else {"linesearch": entry.build(**constants)}


def _take(options, spellings):
    """Take out of the options those that ``spellings`` knows."""
    taken = {}
    for given in list(options):
        name = spellings.get(str(given).lower())
        if name is not None:
            if name in taken:
                raise ValueError(f"options: {given!r} is given twice, in two spellings")
            taken[name] = options.pop(given)
    return taken


def _take_limits(options):
    for name, (value, reason) in _FIXED_OPTIONS.items():
        if name in options and options.pop(name) not in (value, None):
            raise NotImplementedError(f"options[{name!r}]: {reason}")
    for name in _NO_DIFFERENCES:
        if name in options:
            raise ValueError(f"options[{name!r}]: there are no finite differences; gradients are exact")
    limits = {name: value for name, value in _take(options, _LIMIT_SPELLINGS).items() if value is not None}
    for name, value in limits.items():
        _check_limit(f"options[{name!r}]", value)
    return limits


def _check_limit(name, value):
    """A real scalar; where its value is known, one that makes sense."""
    if not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) or np.ndim(value) != 0:
        raise TypeError(f"{name}={value!r}: one number")
    if not np.issubdtype(getattr(value, "dtype", type(value)), np.number) or np.iscomplexobj(value):
        raise TypeError(f"{name}={value!r}: one real number")
    if isinstance(value, jax.core.Tracer):
        return
    value = float(value)
    least = {"options['maxiter']": 0, "options['maxfun']": 1}.get(name, -np.inf)
    if not value >= least:
        raise ValueError(f"{name}={value!r}: a number, at least {least}")


def _reject_options(options, parameters):
    if options:
        choices = sorted({*_LIMIT_SPELLINGS, *parameters})
        unknown = ", ".join(map(repr, options))
        raise ValueError(f"options: unknown {unknown}; the choices are {', '.join(choices)}")


@functools.lru_cache(maxsize=256)
def _compiled(signature, variables, value_dtype, method, x_static):
    """The solve as one compiled function of arrays alone."""

    def solve(leaves, inputs, limits):
        constants, fixed, arrays = inputs
        rest = jax.tree.leaves((fixed, arrays))
        count = len(leaves)

        def evaluate(x):
            value, *outputs = signature(*constants, *variables.unravel(x), *rest)
            return value, variables.ravel([g.conj() for g in outputs[:count]]), outputs[count:]

        chosen = method
        if isinstance(method, Foreign):
            chosen = method.bind(
                lambda x: x_static.only(variables.unravel(x)), lambda params: variables.ravel(jax.tree.leaves(params))
            )
        aux0 = [jnp.zeros(aval.shape, aval.dtype) for aval in signature.outputs[1 + count :]]
        x0 = variables.ravel(leaves)
        end = run(evaluate, variables.rounded, chosen, x0, aux0, limits)
        x, f, g = end.state.iterate
        curvature = chosen.inverse_hessian(end.state) if chosen.inverse_hessian else None
        jac = [leaf.conj() for leaf in variables.unravel(g)]
        counts = end.state.nit, end.nfev, end.status
        return variables.unravel(x), f.astype(value_dtype), jac, counts, curvature, end.aux

    return jax.jit(solve)


def _as_arrays(limits, dtype):
    """The limits in the dtypes of the solve, whatever they were given as: another type would compile anew."""

    def count(value):
        whole = jnp.iinfo(jnp.int32).max
        if isinstance(value, jax.core.Tracer):
            return jnp.minimum(value, whole).astype(jnp.int32)
        return np.int32(min(float(value), whole))

    def tolerance(value):
        return value.astype(dtype) if isinstance(value, jax.core.Tracer) else np.asarray(value, dtype)

    return Limits(*map(tolerance, limits[:3]), *map(count, limits[3:]))


def _result(problem, x, f, jac, counts, curvature, aux):
    """The arrays that the solve gave, in the user's structures."""
    nit, nfev, status = counts
    static = problem.x_static
    is_array = jax.tree_util.treedef_is_leaf(static.treedef)
    if curvature is not None and not (is_array and hasattr(curvature, "H")):
        curvature = InverseHessian(curvature, problem.variables, static)
    elif curvature is not None:
        curvature = curvature.H
    return OptimizeResult(
        x=static.combine(x, problem.fixed),
        fun=f,
        jac=static.only(jac),
        nit=nit,
        nfev=nfev,
        njev=nfev,
        status=status,
        hess_inv=curvature,
        aux=problem.trace.aux_static.combine(aux),
    )
