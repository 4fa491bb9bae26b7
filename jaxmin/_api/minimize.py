"""minimize: SciPy's call, as one compiled loop."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from jaxmin._api.prepare import prepare
from jaxmin._core.protocol import LineSearch, Method
from jaxmin._core.result import OptimizeResult
from jaxmin._core.typing import PyTree, TransformationLike, Triple
from jaxmin._driver.callbacks import Traced, watched
from jaxmin._driver.compiled import solve
from jaxmin._problem.bounds import BoundsLike

# The ways to choose a method: by name, built, a transformation, or a triple of functions.
MethodLike: TypeAlias = str | Method | TransformationLike | Triple


def minimize(
    fun: Callable[..., Any],
    x0: PyTree,
    args: Any = (),
    method: MethodLike | None = "lbfgs",
    jac: Callable[..., Any] | bool | None = None,
    hess: Callable[..., Any] | None = None,
    hessp: Callable[..., Any] | None = None,
    bounds: BoundsLike | None = None,
    constraints: Sequence[Any] = (),
    tol: float | jax.Array | None = None,
    callback: Callable[..., Any] | Traced | None = None,
    options: dict[str, Any] | None = None,
    *,
    linesearch: str | LineSearch | None = None,
    has_aux: bool = False,
    progress: bool = False,
) -> OptimizeResult:
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
        "powell", without gradients; in SciPy's spelling or ours. "auto" is
        "trust_exact" if ``hess`` is given without bounds, "trust_ncg" if ``hessp``, or ``hess`` with bounds, is given,
        otherwise "lbfgs". None is SciPy's rule ("bfgs", with bounds "lbfgs"). Or a built method:
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
        JAX when the compiled function runs. Or :func:`jaxmin.traced`, a callback that is part of the compiled loop.
      hess, hessp: second derivatives by hand, for the methods that use them (others warn): None (automatic
        differentiation), or callables: ``hess(x, *args)`` gives H of shape [n, n], for x0 of any shape or a pytree
        what ``jax.hessian`` gives; ``hessp(x, p, *args)`` gives H p, with p and H p built like x0 (None for what
        does not vary), for complex parts in ``jax.grad``'s convention. Where both are given, the method uses
        the one that it needs, the Hessian at most once for each iterate. Derivatives of the solution use neither.
      constraints: SciPy's; not offered yet, and refused.
      tol: sets gtol (for "lbfgs" ftol as well, for "newton_cg" xtol as well, for "nelder_mead" and "powell" ftol and
        xtol), as in SciPy, whether the method is named or built. Tolerances in ``options`` take precedence.
      options: a dictionary, names in SciPy's spelling or ours. The reference has the whole table. The tolerances and
        limits are traced values:

        - ``gtol`` (1e-5): the infinity norm of the gradient that is small enough;
        - ``ftol`` (off): the decrease of fun in an iteration, relative to max(\|fun\|, 1);
        - ``xtol`` (off): the largest change of x in an iteration, relative to max(\|x\|, 1);
        - ``maxiter`` (15000), ``maxfun`` (15000, or a larger maxiter): iterations, evaluations.

        "nelder_mead" has SciPy's own: ``xatol`` and ``fatol`` (1e-4, absolute, both needed), and 200 n as limits.
        "powell" too: ``xtol`` and ``ftol`` (1e-4, relative; a line is searched to 100 xtol), and 1000 n.

        The others are known while compiling:

        - ``disp``: True prints a line an iteration;
        - ``history``: N keeps the figures of the last N iterates in ``res.history``, True those of maxiter + 1;
          ``history_x``: True keeps their points too;
        - ``warm_start``: the result of a similar problem, with whose ``res.hess_inv`` "lbfgs" and "bfgs" begin; the
          start is x0 all the same. An "lbfgs" that stores pairs does not take a matrix, which is what "bfgs", and
          "lbfgs" for up to 16 variables without ``memory``, give;
        - ``diff``: derivatives of the solution: "implicit" (default), by the implicit function theorem, with respect to
          args, bounds and what fun closes over; "none", which refuses them; or, for a transformation, "unroll", through
          each of the maxiter or maxfun evaluations, x0 included, with memory for all of them;
        - ``flat``: whether x0's leaves are joined to one vector for the method. By default they are, unless one of them
          is sharded over several devices, which is not visible under ``jit``. False leaves each as it is, with its
          sharding; it suits all methods but "bfgs" and those that use matrices or no gradients;
        - ``wrt`` (``nnx.Param``): of an x0 that is a Flax NNX module, the filter that says which variables vary;
        - the parameters of the method's and the search's builders, such as ``maxcor`` and ``maxls``; for a
          transformation by name, ``clip`` too: the largest 2-norm of a gradient that is not scaled down.
      linesearch: "backtracking", "wolfe", "hager_zhang", "fixed", or what a builder made. None (default) is the
        method's own.
      has_aux: fun returns ``(value, aux)``; with ``jac=True``, ``((value, aux), gradient)``. The result
        holds the aux of the point returned.
      progress: True shows a bar with f, the gradient norm and the evaluations, in notebooks too; of a batch, the
        lanes that have ended. It needs tqdm (``jaxmin[progress]``).

    Returns:
      An :class:`~jaxmin.OptimizeResult`. Trouble that depends on values (NaN, a failed search, a limit,
      rounding) is reported by its ``status``, with the best point found.

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
