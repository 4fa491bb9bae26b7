"""minimize: SciPy's call, as one compiled loop."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from jaxmin._api.keywords import spelled
from jaxmin._api.prepare import prepare
from jaxmin._core.protocol import LineSearch, Method
from jaxmin._core.result import OptimizeResult
from jaxmin._core.typing import PyTree, TransformationLike, Triple
from jaxmin._driver.callbacks import Traced, watched
from jaxmin._driver.compiled import solve
from jaxmin._driver.slices import Interrupted
from jaxmin._problem.bounds import BoundsLike
from jaxmin._problem.constraints import ConstraintsLike

# The ways to choose a method: a name, a built method, a transformation, or a triple of functions.
MethodLike: TypeAlias = str | Method | TransformationLike | Triple


@spelled
def minimize(
    fun: Callable[..., Any],
    x0: PyTree,
    args: Any = (),
    method: MethodLike | None = "lbfgs",
    jac: Callable[..., Any] | bool | None = None,
    hess: Callable[..., Any] | None = None,
    hessp: Callable[..., Any] | None = None,
    bounds: BoundsLike | None = None,
    constraints: ConstraintsLike = (),
    tol: float | jax.Array | None = None,
    callback: Callable[..., Any] | Traced | None = None,
    options: dict[str, Any] | None = None,
    *,
    linesearch: str | LineSearch | None = None,
    has_aux: bool = False,
    progress: bool = False,
) -> OptimizeResult:
    r"""Find a local minimum of a scalar function, in one compiled loop: SciPy's call for JAX.

    It works under ``jit`` and ``vmap``. A second call with the same function, shapes and dtypes compiles nothing,
    whatever the values of x0, args, bounds, tolerances and limits.

    Args:
      fun: the objective, ``fun(x, *args) -> scalar``, any callable, written with ``jax.numpy``. It returns one real
        number, of shape [] or of size 1. A fun that certainly does not depend on x, or whose automatic gradient is
        certainly 0 at every x, gives a RuntimeWarning.
      x0: the start: an array, a list or tuple of numbers, or any pytree (nested containers, mixed and complex dtypes,
        modules with leaves that are not arrays). The result's x has the same structure, shapes and dtypes; integers
        become the default float dtype.
      args: further arguments of fun, a tuple; () by default. Anything else is one argument. Pytrees, integers and
        leaves that are not arrays are allowed.
      method: with constraints "interior_point", which is then the default, "slsqp" or "augmented_lagrangian". For
        residuals "levenberg_marquardt" ("lm"): fun then returns them, any pytree of arrays, and half the sum of their
        squares is minimised. Without these "lbfgs" (default), "bfgs", "cg", "gradient_descent"; "newton_cg" ("TNC"),
        "trust_ncg" and "trust_krylov", with Hessian-vector products; "lbfgs_newton", which takes them only where
        "lbfgs" creeps or is stuck; "trust_exact" and "dogleg", with Hessians; "nelder_mead" and "powell", without
        gradients; in SciPy's spelling or ours. "auto" is "trust_exact" if ``hess`` is given without bounds,
        "trust_ncg" if ``hessp``, or ``hess`` with bounds, is given, otherwise "lbfgs_newton". None follows SciPy's
        rule: "bfgs", or "lbfgs" with bounds; in a set it is "gradient_descent", and so is "auto". Or a built method:
        ``jaxmin.lbfgs(memory=20)``. Or a transformation, which runs without a line search unless one is given:
        by name ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop_momentum", "adam", "adamax", "sm3",
        "extra_gradient", with the option ``learning_rate``), any Optax-style object, or a triple of
        ``jax.example_libraries.optimizers``.
      jac: None (default) differentiates fun. True means that fun returns ``(value, gradient)``. A callable
        ``jac(x, *args)`` returns the gradient, like x0, in ``jax.grad``'s convention.
      bounds: None (default), or a list of (low, high) pairs as in SciPy, with None for no bound, or
        :class:`~jaxmin.Bounds` (SciPy's too), with arrays or pytrees shaped like x0. A start outside moves to the
        nearest point inside, and nothing is evaluated outside. The stopping test then leaves out the gradient of the
        variables that are at a bound where fun falls outwards; a variable that is only near its bound counts.
        A transformation that searches by itself cannot have bounds. Or a convex set of ``jaxmin.sets``, for
        "gradient_descent" and transformations: every point evaluated is in it, up to rounding, and the test compares
        P(x - g) - x with gtol, where P projects.
      callback: None (default), or as in SciPy ``callback(x)``, or ``callback(intermediate_result)`` with this name.
        It is called on the host after each iteration, with NumPy arrays, under ``vmap`` for each lane.
        ``StopIteration`` or True ends the solve (of that lane) with status 99. Any other exception ends it and is
        raised here; under an outer ``jit`` JAX raises it when the compiled function runs. Or :func:`jaxmin.traced`,
        a callback that is part of the compiled loop.
      hess, hessp: second derivatives by hand, for the methods that use them (others warn). None (default) means
        automatic differentiation. ``hess(x, *args)`` returns H of shape [n, n]; for an x0 of another shape, or a
        pytree, it returns what ``jax.hessian`` does. ``hessp(x, p, *args)`` returns H p, with p and H p like x0 (None
        for leaves that do not vary), for complex leaves in ``jax.grad``'s convention. If both are given, the method
        uses the one that it needs. It evaluates the Hessian at most once for each iterate. Derivatives of the solution
        use neither.
      constraints: () (default), or one or a list of :class:`~jaxmin.NonlinearConstraint`,
        :class:`~jaxmin.LinearConstraint`, SciPy's objects, or SciPy's dictionaries
        ``{"type": "eq" or "ineq", "fun": fun, "jac": jac, "args": args}``. Derivatives that are not given come from
        automatic differentiation. The default method is then "interior_point". The start need not be feasible.
      tol: None (default), or a number. It sets gtol (for "lbfgs" ftol as well, for "newton_cg" xtol as well, for
        "nelder_mead" and "powell" ftol and xtol), as in SciPy, whether the method is named or built. Tolerances in
        ``options`` take precedence.
      options: None (default), or a dictionary; names in SciPy's spelling or ours. The reference has the whole table.
        The tolerances and limits are traced values:

        - ``gtol`` (1e-5): the infinity norm of the gradient that is small enough, in units of fun over units of x;
        - ``gtol_relative`` (off): so much of that norm at x0 is small enough too. gtol is then 0, unless given;
        - ``ftol`` (off): the decrease of fun in an iteration, relative to max(\|fun\|, 1);
        - ``xtol`` (off): the largest change of x in an iteration, relative to max(\|x\|, 1);
        - ``maxiter`` (15000), ``maxfun`` (15000, or a larger maxiter): iterations, evaluations;
        - ``maxhev`` (off): Hessians, or products with them, for methods that use them.

        "nelder_mead" has SciPy's own: ``xatol`` and ``fatol`` (1e-4, absolute, both needed), and 200 n as limits.
        "powell" too: ``xtol`` and ``ftol`` (1e-4, relative; line searches use 100 xtol), and 1000 n as limits.

        The others are known while compiling:

        - ``disp``: True prints a line for each iteration;
        - ``history``: N stores the numbers of the last N iterates in ``res.history``, True those of maxiter + 1;
          ``history_x``: True stores their points too;
        - ``warm_start``: the result of a similar problem. "lbfgs" and "bfgs" begin with its ``res.hess_inv``, methods
          for constraints with its multipliers ``res.v``. The start is still x0, so give ``res.x`` too. An "lbfgs" that
          stores pairs cannot use a matrix. "bfgs" returns a matrix, and so does "lbfgs" without ``memory`` for up to 16
          variables;
        - ``diff``: derivatives of the solution. "implicit" (default) uses the implicit function theorem, with respect
          to args, bounds, the parameters of a set, constraints and the values that fun closes over. "none" makes
          derivatives an error. "unroll", for a transformation, differentiates through all the maxiter or maxfun
          evaluations, also with respect to x0, and needs memory for all of them;
        - ``flat``: whether x0's leaves are joined to one vector for the method. By default they are, unless one of them
          is sharded over several devices (under ``jit`` this is not visible). False leaves each as it is, with its
          sharding; it suits all methods but "bfgs" and those that use matrices or no gradients;
        - ``wrt`` (``nnx.Param``): for an x0 that is a Flax NNX module, the filter for the variables that vary;
        - the parameters of the method's and the search's builders, such as ``maxcor`` and ``maxls``. A transformation
          by name also has ``clip``: a gradient with a larger 2-norm is scaled down to it.
      linesearch: "backtracking", "wolfe", "hager_zhang", "fixed", or a built search. None (default) means the
        method's own search.
      has_aux: False by default. True means that fun returns ``(value, aux)``, or with ``jac=True``
        ``((value, aux), gradient)``. The result has the aux at the point returned.
      progress: False by default. True shows a bar with f, the gradient norm and the evaluations, in notebooks too; for
        a batch, the lanes that have ended. It needs tqdm (``jaxmin[progress]``).

    Returns:
      An :class:`~jaxmin.OptimizeResult`. Trouble that depends on values (NaN, a failed search, a limit, rounding) is
      no exception: ``status`` reports it, with the best point found.

    Raises:
      ValueError, TypeError: for an invalid argument; the message names it and the choices.
      NotImplementedError: for features of SciPy that jaxmin does not have yet.
      ImportError: for ``progress=True`` if tqdm is not installed.
      KeyboardInterrupt: after Ctrl-C in a call from Python, within some tenths of a second or one evaluation. The
        attribute ``result`` of the exception is the result so far, with status -1.

    >>> import jax.numpy as jnp, jaxmin
    >>> def rosen(x, a):
    ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)
    >>> res = jaxmin.minimize(rosen, [-1.2, 1.0], args=(1.0,))
    >>> res.success, res.x.round(3).tolist()
    (True, [1.0, 1.0])

    References:
      The builders of the methods and of the searches list them.
    """
    call = prepare(
        fun, x0, args, method, jac=jac, hess=hess, hessp=hessp, bounds=bounds, constraints=constraints, tol=tol,
        callback=callback, options=options, linesearch=linesearch, has_aux=has_aux, progress=progress,
    )  # fmt: skip
    call.warn()
    watcher = call.watcher()
    try:
        return watched(
            watcher, solve, call.problem, call.method, call.limits, call.diff, call.result, call.box, watcher,
            call.traced, call.warm, call.unrolled, **call.carried,
        )  # fmt: skip
    except Interrupted as interrupt:
        _, interrupt.result = interrupt.found
        raise
