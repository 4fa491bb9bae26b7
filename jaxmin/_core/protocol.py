"""What a method, a direction and a line search are: small records of pure functions, in Optax's manner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# What a method is given beside the value unless it says otherwise.
GRADIENT = frozenset({"grad"})
# The fields of every state of a method.
_OF_STATE = ("trial", "iterate", "nit", "status", "accepted")


class Iterate(NamedTuple):
    """An accepted point with what is known there.

    >>> import jax.numpy as jnp, jaxmin
    >>> tx, x = jaxmin.lbfgs(), jnp.zeros(2)
    >>> state = tx.init(x)
    >>> _, state = tx.update(jnp.ones(2), state, x, value=jnp.asarray(3.0))
    >>> float(state.iterate.f), state.iterate.g.shape
    (3.0, (2,))
    """

    x: Any  # like params
    f: jax.Array  # []
    g: Any  # like params; None for a method that wants no gradient


class PerVariable(NamedTuple):
    """A limit that grows with the number of variables n: ``times`` n."""

    times: int


# A tolerance or a limit by default.
Limit = float | PerVariable


class Defaults(NamedTuple):
    """What a method changes in the stopping of a solve, unless the call says otherwise.

    >>> import jaxmin
    >>> jaxmin.lbfgs().defaults
    Defaults(tol=('ftol', 'gtol'), limits=())
    """

    tol: tuple[str, ...] = ("gtol",)  # the tolerances that the argument ``tol`` stands for
    limits: tuple[tuple[str, Limit], ...] = ()  # pairs: tolerances and limits of its own


class Method(NamedTuple):
    """A minimiser that never calls the function: it is given f and what it wants, and answers with the next point.

    ``init(params) -> state`` evaluates nothing; the first ``update`` is given f and g at x0.

    ``update(grad, state, params, *, value, **wanted) -> (updates, state)``, where ``params + updates`` is the next
    point worth evaluating: a new iterate, or the next trial of a search. ``grad`` is None for a method that does not
    want it. Further keyword arguments are to be ignored (``**_``): loops of other libraries pass their own.

    ``wants`` is the set of names that ``update`` takes:

    =======================  =============================================  =====================
    name                     what it is                                     when it is given
    =======================  =============================================  =====================
    ``grad``                 the gradient, like params                      every step
    ``hv``                   the Hessian's product with ``state.along``     steps that stay
    ``H``                    the Hessian, [n, n]                            steps that stay
    ``residual``             r, [m]; then value = r.r/2, grad = J^T r       every step
    ``jacobian``             of r, [m, n]                                   steps that stay
    ``constraints``          c, [k]                                         every step
    ``constraint_jacobian``  of c, [k, n]                                   every step
    ``lagrangian_hessian``   of f + v.c, v = ``state.multipliers``, [n, n]  steps that stay
    ``box``                  a ``Box``, or ``Unbounded()``                  every step of a solve
    ``xtol``                 the tolerance of the solve, []                 every step of a solve
    ``ended``                [] bool: this lane has ended and waits         every step of a batch
    =======================  =============================================  =====================

    In a step that stays (``state.stays``, [] bool: ``trial`` is the iterate, where f is known) the loop evaluates what
    the method wants there, and not f. In all other steps what is given under such a name has no meaning.
    ``box``, ``xtol`` and ``ended`` need defaults, since other libraries' loops do not pass them.
    A method that does not want ``box`` takes no bounds. One that is given ``ended`` as true accepts nothing: the
    iterate, ``nit`` and what ``inverse_hessian`` gives stay as they are.

    The state is a NamedTuple with the fields

    - ``trial``: the next point, like params;
    - ``iterate``: an :class:`Iterate`, the last point accepted;
    - ``accepted``: [] bool, whether the point given last has become the iterate;
    - ``nit``: [] int32, iterations; x0 is number 0, before it -1;
    - ``status``: [] int32, ``Status.RUNNING``, or why the method cannot go on. A method never says "converged".

    A method that does not want ``grad`` has ``spread`` too, (df, dx): how far apart the values and the points are that
    it compares. It takes the place of the tests on the gradient and on changes.

    Args:
      init, update: as above.
      wants: a frozenset of names; ``frozenset({"grad"})`` by default.
      inverse_hessian: ``inverse_hessian(state)``: the approximation at the iterate, ``Unlimited``, ``Compact`` or
        ``Dense``; None (default) where there is no such thing.
      warm_start: ``warm_start(state, H) -> state`` takes one in before the first update, from the end of a similar
        solve; None by default.
      observe: where every point evaluated is an iterate, as for a transformation of another library:
        ``observe(grad, state, params, *, value) -> state`` takes it in before it is tested; ``update`` is then called
        only if the solve goes on, with ``value_fn`` as well. None by default.
      stored: of such a method, ``stored(state)``: the value and gradient that the state holds of ``trial``, or None.
      trees: whether params may be any pytree of arrays, which are never joined; False by default: ``minimize`` has
        the method work on one vector.
      defaults: the :class:`Defaults` of its stopping; ``tol`` is gtol by default, and the limits are those of
        ``minimize``.

    A worked example is in the page "Writing a method".
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    wants: frozenset[str] = GRADIENT
    inverse_hessian: Callable[[Any], Any] | None = None
    warm_start: Callable[[Any, Any], Any] | None = None
    observe: Callable[..., Any] | None = None
    stored: Callable[[Any], Any] | None = None
    trees: bool = False
    defaults: Defaults = Defaults()


def check_state(state: Any) -> None:
    """Raise unless a method's state has the fields that the loop reads."""
    missing = [name for name in _OF_STATE if name not in getattr(state, "_fields", ())]
    if missing:
        raise TypeError(
            f"method: its state, a {type(state).__name__}, has no {' and no '.join(map(repr, missing))}; the state is "
            f"a NamedTuple with the fields {', '.join(_OF_STATE)}"
        )


class Direction(NamedTuple):
    """A descent direction, worked out at an accepted iterate from the gradient and what was before.

    ``init(params) -> state``.
    ``update(grad, state, params, *, previous, accepted, restart) -> (d, state)``: ``previous`` is the
    iterate before this one (x0 itself, with g = 0, at x0). Where ``accepted`` is false the state must
    come back unchanged and d is not read. Where ``restart`` is true, all that was learnt up to
    ``previous`` is dropped first.

    A direction that has nothing to go by yet may be 0: a direction that does not lead downhill is replaced by the
    steepest descent.

    Args:
      init, update: as above.
      inverse_hessian, warm_start, trees: those of :class:`Method`.
      wants: ``frozenset({"grad"})`` by default, or ``frozenset({"grad", "hv"})``: the state then holds ``along``, a
        vector, and ``ready``, [] bool, true at first. After a new iterate it is not ready, and ``update`` is given
        ``hv``, the Hessian's product with ``along`` there, until it is. d is read when it has become ready.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    inverse_hessian: Callable[[Any], Any] | None = None
    warm_start: Callable[[Any, Any], Any] | None = None
    wants: frozenset[str] = GRADIENT
    trees: bool = False


class Start(NamedTuple):
    """What a line search knows of phi before its first trial."""

    f: Any  # [] phi(0)
    slope: Any  # [] phi'(0) < 0
    noise: Any  # [] how far rounding alone may move f near phi(0)
    max_step: Any  # [] the longest step allowed


class LineSearch(NamedTuple):
    """A search along one direction that sees numbers only: never x, the direction or the problem.

    ``init(start, first_step) -> state`` and ``step(state, start, f, slope, predicted) -> state``, with

    - ``start``: a :class:`Start`, the same throughout the search, so that no state need hold it;
    - ``f``, ``slope``: phi(t) and phi'(t) at the trial ``t = state.step``;
    - ``predicted``: g0 . (x_trial - x0) as it was evaluated, t * slope0 on a straight path;
    - ``state.step``: the next trial; ``state.done``: the trial given last is accepted;
      ``state.failed``: no acceptable step was found.

    Args:
      init, step: as above.
      growth: where set, a search begins at ``growth`` times the last accepted step (at first 1), and not at the step
        that the method proposes; None by default.
    """

    init: Callable[[Start, Any], Any]
    step: Callable[..., Any]
    growth: float | None = None
