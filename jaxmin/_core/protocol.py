"""Methods, directions and line searches: small records of pure functions, as in Optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# What a method needs besides the value, by default.
GRADIENT = frozenset({"grad"})
# The second derivatives of f, which a user may give by hand.
SECOND_ORDER = frozenset({"hv", "H"})
# The fields of every state of a method.
_OF_STATE = ("trial", "iterate", "nit", "status", "accepted")
# What a method wants of the constraints.
CONSTRAINTS = frozenset(
    {"constraints", "constraint_jacobian", "constraint_pull", "lagrangian_hessian", "lagrangian_product"}
)
# What a method wants of residuals.
RESIDUALS = frozenset({"residual", "jacobian", "gauss_newton"})
# What needs J^T u, without J.
PULLS = frozenset({"constraint_pull", "lagrangian_product"})


class Iterate(NamedTuple):
    """An accepted point, with the objective and its gradient there.

    - ``x``: the point, like params.
    - ``f``: the objective there, shape [], in the dtype of inner products of params (float32 or wider).
    - ``g``: the gradient there, like params; None for a method that needs no gradient.

    >>> import jax.numpy as jnp, jaxmin
    >>> tx, x = jaxmin.lbfgs(), jnp.zeros(2)
    >>> state = tx.init(x)
    >>> _, state = tx.update(jnp.ones(2), state, x, value=jnp.asarray(3.0))
    >>> float(state.iterate.f), state.iterate.g.shape
    (3.0, (2,))
    """

    x: Any  # like params
    f: jax.Array  # []
    g: Any  # like params; None for a method that needs no gradient


class PerVariable(NamedTuple):
    """A limit in proportion to the number of variables n: ``times`` n.

    >>> import jax.numpy as jnp
    >>> from jaxmin.extend import Defaults, PerVariable
    >>> Defaults(limits=(("maxiter", PerVariable(200)),)).limits
    (('maxiter', PerVariable(times=200)),)
    """

    times: int


class PerDtype(NamedTuple):
    """A tolerance by the precision of x.

    >>> from jaxmin.extend import PerDtype
    >>> PerDtype(double=1e-6, single=1e-3).single
    0.001
    """

    double: float  # for float64
    single: float  # for float32 and less


# A tolerance or a limit by default.
Limit = float | PerVariable | PerDtype


class Defaults(NamedTuple):
    """The stopping of a method, where the call does not set it.

    - ``tol``: the tolerances that the argument ``tol`` sets; ``("gtol",)`` by default.
    - ``limits``: (name, value) pairs, the method's own tolerances and limits; a value is a number or a
      :class:`PerVariable`. Empty by default: the tolerances and limits of ``minimize`` hold.
    - ``absolute``: whether ftol and xtol are absolute, so that they also have SciPy's names fatol and xatol; False by
      default.

    >>> import jaxmin
    >>> jaxmin.lbfgs().defaults
    Defaults(tol=('ftol', 'gtol'), limits=(), absolute=False)
    """

    tol: tuple[str, ...] = ("gtol",)
    limits: tuple[tuple[str, Limit], ...] = ()
    absolute: bool = False


class Method(NamedTuple):
    """A minimiser that never calls the function: it receives f and its ``wants``, and returns the next point.

    ``init(params) -> state`` evaluates nothing. The first ``update`` receives f and g at x0.

    ``update(grad, state, params, *, value, **wanted) -> (updates, state)``. ``params + updates`` is the next point to
    evaluate: a new iterate, or the next trial of a search. ``grad`` is None for a method that does not want it. Ignore
    all other keyword arguments (``**_``): loops of other libraries pass their own.

    ``wants`` is the set of names that ``update`` takes:

    =======================  =============================================  =====================
    name                     what it is                                     when it is given
    =======================  =============================================  =====================
    ``grad``                 the gradient, like params                      every step
    ``hv``                   the Hessian times ``state.along``              steps that stay
    ``H``                    the Hessian, [n, n]                            steps that stay
    ``residual``             r, [m]; then value = r.r/2, grad = J^T r       every step
    ``jacobian``             of r, [m, n]                                   where ``state.takes(value)``
    ``gauss_newton``         no argument: fun returns r, and H is J^T J
    ``constraints``          ``Rows``: c and its limits, [m] each           every step
    ``constraint_jacobian``  of c, [m, n]                                   every step
    ``lagrangian_hessian``   of f + v.c, v = ``state.multipliers``, [n, n]  every step
    ``constraint_pull``      J^T u, u = ``state.cotangent(rows)``, like x   every step
    ``lagrangian_product``   of grad + J^T u(c), along ``state.along``      steps that stay
    ``box``                  a ``Box``, or ``Unbounded()``                  every step of a solve
    ``set``                  no argument: ``box`` may be a ``Region``
    ``rare``                 no argument: few steps of a solve stay
    ``xtol``                 the tolerance of the solve, []                 every step of a solve
    ``ended``                [] bool: this lane has ended and waits         every step of a batch
    =======================  =============================================  =====================

    A step stays where ``state.stays`` ([] bool) is true: ``trial`` is then the iterate, where f is known. In such a
    step the loop evaluates what the method wants there, and not f. In all other steps, ignore the values under these
    names. Give ``box``, ``xtol`` and ``ended`` defaults, since loops of other libraries do not pass them.
    A method that does not want ``box`` takes no bounds. One that wants ``set`` takes convex sets too: ``box`` is then a
    ``Region``, and ``init(params, *, box)`` receives it. Where ``ended`` is true, the method accepts nothing: the
    iterate, ``nit`` and the result of ``inverse_hessian`` stay as they are.

    The state is a NamedTuple with these fields:

    - ``trial``: the next point, like params;
    - ``iterate``: an :class:`Iterate`, the last point accepted;
    - ``accepted``: [] bool, whether the last point given became the iterate;
    - ``nit``: [] int32, the number of the iterate: 0 at x0, and -1 before x0;
    - ``status``: [] int32, ``Status.RUNNING``, or why the method cannot go on. A method never says "converged".

    The state of a method that wants ``hv`` or ``H`` may have ``saddle``, [] bool: the gradient vanishes at x0, and the
    method has found, or must still find out, that f falls from there. The solve does not end by gtol while it is true.
    A method that wants ``constraints`` has ``init(params, *, constraints, box)``, where c is still 0. Its state has
    ``kkt``, a ``Kkt``: the rows, their limits and the multipliers at the iterate, which the stopping tests read.
    The state of a method that wants ``jacobian`` has a method ``takes(value)``, [] bool: whether a trial with this
    value becomes the iterate. If it does not want ``grad``, its state also has ``cosine`` and ``reach``, each []: the
    cosine of the angle between r and all that J reaches, and the length of the Gauss-Newton step relative to x. The
    solve ends by these, with gtol and xtol.
    A method that wants ``constraint_pull`` or ``lagrangian_product`` never has J formed for it. Its state has a method
    ``cotangent(rows) -> [m]``, a function of c that may be differentiated; the product includes its derivative.
    The state of a method that does not want ``grad`` also has ``spread``, (df, dx), each []: how far apart the values
    and the points are that it compares. The solve then ends by the spread, not by the gradient or by changes.

    Args:
      init, update: as above.
      wants: a frozenset of names; ``frozenset({"grad"})`` by default.
      inverse_hessian: ``inverse_hessian(state)`` returns the approximation at the iterate, an ``Unlimited``, a
        ``Compact`` or a ``Dense``; None (default) for a method without one.
      warm_start: ``warm_start(state, H) -> state`` starts from the inverse Hessian of a similar solve, before the
        first ``update``; None by default. For a method that wants ``constraints`` it is ``warm_start(state,
        multipliers, *, x, box)``, with a ``Multipliers`` and x0 as given.
      usual: a :class:`Usual`, the same method without what only trouble needs, where that takes long to compile. A call
        from Python runs it first, and the whole method only where trouble came. None by default.
      observe: for a method whose iterates are all the points evaluated, such as a transformation of another library:
        ``observe(grad, state, params, *, value) -> state`` records the point before the stopping tests. ``update`` is
        then called only if the solve goes on, and also receives ``value_fn``. None by default.
      stored: with ``observe``: ``stored(state)`` returns the value and the gradient at ``trial`` that the state
        holds, or None.
      loss: of a method that wants ``residual``: the ``Loss`` of the residuals. Those that it receives, and their
        Jacobian, are weighted, so that J^T r is the gradient of ``value``. None (default): half their sum of squares.
      trees: True if params may be any pytree of arrays. False (default): the method works on one flat vector.
      defaults: the :class:`Defaults` of its stopping.

    Raises:
      TypeError: from ``minimize``, if the state lacks one of the fields above.
      ValueError: from ``minimize``, if the problem does not offer a name in ``wants``, or if there are bounds and
        ``wants`` lacks ``box``.

    >>> import jax.numpy as jnp, jaxmin
    >>> tx, x = jaxmin.lbfgs(), jnp.zeros(2)
    >>> state = tx.init(x)
    >>> updates, state = tx.update(jnp.array([-2.0, 0.0]), state, x, value=jnp.asarray(1.0))
    >>> updates.tolist(), state.nit.item()
    ([1.0, 0.0], 0)

    The page "Writing a method" has a worked example.
    """

    init: Callable[..., Any]
    update: Callable[..., tuple[Any, Any]]
    wants: frozenset[str] = GRADIENT
    inverse_hessian: Callable[[Any], Any] | None = None
    warm_start: Callable[..., Any] | None = None
    usual: "Usual | None" = None
    observe: Callable[..., Any] | None = None
    stored: Callable[[Any], Any] | None = None
    trees: bool = False
    loss: Any = None
    defaults: Defaults = Defaults()


class Usual(NamedTuple):
    """A part of a method, whose solves are those of the whole unless they end by certain statuses.

    - ``method``: the part.
    - ``unless``: the statuses.
    - ``rest``: a :class:`Rest`, which goes on from there in the same program; None (default): nothing. A call
      from Python begins again from x0, with the whole method, and counts only that.

    >>> import jaxmin
    >>> usual = jaxmin.slsqp().usual
    >>> jaxmin.Status.SEARCH_FAILED in usual.unless
    True
    """

    method: Method
    unless: frozenset[int]
    rest: "Rest | None" = None


class Rest(NamedTuple):
    """The part of a method that goes on where the usual part cannot; it has the states of the whole.

    - ``method``: it takes steps from ``begun(state)``, with the state in which the usual part has ended.
    - ``first_state``: ``first_state(state)`` is the state of the usual part, from one of the whole before the first
      step.

    >>> import jaxmin
    >>> jaxmin.lbfgs_newton().usual.rest.method.wants == jaxmin.lbfgs_newton().wants
    True
    """

    method: Method
    begun: Callable[[Any], Any]
    first_state: Callable[[Any], Any]


def check_method(method: Method) -> None:
    """Raise unless ``wants`` is a frozenset of names."""
    wants = method.wants
    if not isinstance(wants, frozenset) or not all(isinstance(name, str) for name in wants):
        raise TypeError(f"method: its wants are {wants!r}; give a frozenset of names, such as frozenset({{'grad'}})")


def check_state(state: Any, wants: frozenset[str]) -> None:
    """Raise unless a method's state has the fields that the loop reads, by what the method wants."""
    missing = [name for name in _OF_STATE if name not in getattr(state, "_fields", ())]
    more = {
        "stays": wants & {"hv", "H", "lagrangian_product"},
        "takes": wants & {"jacobian"},
        "along": wants & {"hv", "lagrangian_product"},
        "multipliers": wants & {"lagrangian_hessian"},
        "cotangent": wants & PULLS,
        "kkt": wants & {"constraints"},
        "spread": not wants & {"grad", "residual"},
        "cosine": "residual" in wants and "grad" not in wants,
        "reach": "residual" in wants and "grad" not in wants,
    }
    missing += [name for name, read in more.items() if read and not hasattr(state, name)]
    if missing:
        raise TypeError(
            f"method: its state, a {type(state).__name__}, has no {' and no '.join(map(repr, missing))}; the state is "
            f"a NamedTuple with the fields {', '.join((*_OF_STATE, *(name for name, read in more.items() if read)))}"
        )


class Direction(NamedTuple):
    """A rule for a descent direction at an accepted iterate; :func:`jaxmin.descend` makes a method of it and a search.

    ``init(params) -> state``.

    ``update(grad, state, params, *, previous, accepted, restart) -> (d, state)``, with

    - ``grad``, ``params``: the gradient and the iterate;
    - ``previous``: the :class:`Iterate` before this one; at x0 it is x0 itself, with g = 0;
    - ``accepted``: [] bool. Where it is false, return the state unchanged; d is then not read;
    - ``restart``: [] bool. Where it is true, first drop all that the state has learnt up to ``previous``;
    - ``d``: the direction, like params. It may be 0 while nothing is known: steepest descent replaces a direction that
      does not lead downhill.

    Args:
      init, update: as above.
      inverse_hessian, warm_start, trees: as in :class:`Method`.
      wants: ``frozenset({"grad"})`` by default, or ``frozenset({"grad", "hv"})``. With ``hv`` the state has the fields
        ``along``, like params, and ``ready``, [] bool, true at first. After a new iterate ``ready`` is false, and each
        ``update`` receives ``hv``, the Hessian times ``along`` there, until ``ready`` is true. Only then is d read.
        With ``box``, ``update`` receives the ``Box``, or ``Unbounded``. With ``set`` it may be a ``Region``, which
        ``init(params, *, box)`` receives too; d is then replaced by P(x + d) - x, and the state may have ``highest``,
        []: where that is above f at the iterate, a search compares f with it. A state with ``hv`` may have ``saddle``,
        as in :class:`Method`, and ``bend``, []: where the gradient is 0, d . H d of a d of negative curvature, else 0.

    The direction of steepest descent, as a method:

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> def downhill(grad, state, params, *, previous, accepted, restart):
    ...     return jax.tree.map(jnp.negative, grad), state
    >>> steepest = jaxmin.Direction(lambda params: (), downhill, trees=True)
    >>> method = jaxmin.descend(steepest, jaxmin.backtracking())
    >>> jaxmin.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), method=method).x.tolist()
    [1.0, 1.0]
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    inverse_hessian: Callable[[Any], Any] | None = None
    warm_start: Callable[[Any, Any], Any] | None = None
    wants: frozenset[str] = GRADIENT
    trees: bool = False


class Start(NamedTuple):
    """What a line search knows of phi(t) = f(x + t d) before its first trial.

    Every field has shape [], in the dtype of inner products of x (float32 or wider).

    - ``f``: phi(0).
    - ``slope``: phi'(0), below 0.
    - ``noise``: how far rounding alone may move f near phi(0).
    - ``max_step``: the longest step allowed; inf for no limit.

    >>> import jax.numpy as jnp, jaxmin
    >>> start = jaxmin.Start(f=jnp.asarray(1.0), slope=-jnp.ones(()), noise=jnp.asarray(1e-7), max_step=jnp.inf)
    >>> float(jaxmin.wolfe().init(start, 0.5).step)
    0.5
    """

    f: jax.Array  # []
    slope: jax.Array  # []
    noise: jax.Array  # []
    max_step: Any  # []


class LineSearch(NamedTuple):
    """A search for a step t along one direction; it sees numbers only, never x, the direction or the problem.

    ``init(start, first_step) -> state`` and ``step(state, start, f, slope, predicted) -> state``, where all numbers
    have shape [] and

    - ``start`` is a :class:`Start`, the same throughout a search, so the state need not hold it;
    - ``first_step`` is the first trial that the method proposes;
    - ``f`` and ``slope`` are phi(t) and phi'(t) at the trial ``t = state.step``;
    - ``predicted`` is g0 . (x_trial - x0) as it was evaluated: t phi'(0) on a straight path.

    The state is a NamedTuple that has at least these fields:

    - ``step``: the next trial;
    - ``done``: [] bool, whether the last trial is accepted;
    - ``failed``: [] bool, whether the search found no acceptable step.

    Args:
      init, step: as above.
      growth: None (default) begins each search at the step that the method proposes. A number begins it at ``growth``
        times the last accepted step, and the first search at 1.

    A search that halves the step until f decreases, on phi(t) = (t - 1)^2 from t = 4:

    >>> import jax.numpy as jnp
    >>> from typing import NamedTuple
    >>> from jaxmin.extend import LineSearch, Start
    >>> class State(NamedTuple):
    ...     step: float
    ...     done: bool
    ...     failed: bool
    >>> def step(state, start, f, slope, predicted):
    ...     lower = f < start.f
    ...     return State(jnp.where(lower, state.step, state.step / 2), lower, state.step < 1e-10)
    >>> halving = LineSearch(lambda start, first_step: State(first_step, False, False), step)
    >>> start = Start(f=1.0, slope=-2.0, noise=0.0, max_step=jnp.inf)
    >>> state = halving.init(start, 4.0)
    >>> while not state.done:
    ...     t = state.step
    ...     state = halving.step(state, start, (t - 1) ** 2, 2 * (t - 1), -2 * t)
    >>> float(state.step)
    1.0
    """

    init: Callable[[Start, Any], Any]
    step: Callable[..., Any]
    growth: float | None = None
