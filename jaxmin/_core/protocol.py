"""What a method, a direction and a line search are: small records of pure functions, in Optax's manner."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Iterate(NamedTuple):
    """An accepted point with what is known there."""

    x: Any  # like params
    f: jax.Array  # []
    g: Any  # like params


class Method(NamedTuple):
    """A minimiser that never calls the function: it is told f and g and answers with the next point.

    ``init(params) -> state`` evaluates nothing; the first ``update`` is told f and g at x0.
    ``update(grad, state, params, *, value) -> (updates, state)``, where ``params + updates`` is the
    next point worth evaluating: a new iterate or the next trial of a search.

    The state has the fields ``trial`` (that point), ``iterate`` (an :class:`Iterate`: the last point
    accepted), ``nit`` (accepted points; x0 is number 0, before it -1) and ``status`` (RUNNING, or why
    the method cannot go on: a method never says "converged").

    ``wants``: "gradient" (what is told is f and g), "value" (f alone: grad is None, and no gradient is ever
    traced; the state's ``spread``, (df, dx), takes the place of the tests on the gradient and on changes, and its
    ``improved``, [] bool, says whether the iterate is the trial just told, which ``nit`` does not; ``update`` is
    told ``xtol`` besides, for searches that go by it) or
    "product": the state then holds ``along``, a vector, and ``stays``, [] bool: whether ``trial`` is the iterate,
    where f is known already; ``update`` is told ``hv`` besides, the Hessian's product with ``along`` at the trial;
    or "hessian": likewise without ``along``, and what is told besides is ``H``, [n, n]. Both are to be read only
    where the state stays; x is one vector then.

    ``inverse_hessian(state)``, for methods that have one: the approximation at the iterate, ``Unlimited``,
    ``Compact`` or ``Dense``. ``warm_start(state, H)`` takes one in before the first update, from the end of a similar
    solve.

    Where every point evaluated is an iterate, as for a transformation of another library,
    ``observe(grad, state, params, *, value) -> state`` takes it in before it is tested; ``update`` is then
    called only if the solve goes on, with ``value_fn`` besides; and ``stored(state)`` is the value and
    gradient that the state holds of ``trial``, or None.

    An ``update`` with a parameter ``ended``, [] bool, is told in a batch that the solve has ended and waits for the
    others. Then it accepts nothing, and the iterate, ``nit`` and what ``inverse_hessian`` gives stay as they are.

    ``trees``: whether params may be any pytree of arrays, which are never joined; else ``minimize`` has it work on
    one vector.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    inverse_hessian: Callable[[Any], Any] | None = None
    observe: Callable[..., Any] | None = None
    stored: Callable[[Any], Any] | None = None
    wants: str = "gradient"
    warm_start: Callable[[Any, Any], Any] | None = None
    trees: bool = False


class Direction(NamedTuple):
    """A descent direction, worked out at an accepted iterate from the gradient and what was before.

    ``init(params) -> state``.
    ``update(grad, state, params, *, previous, accepted, restart) -> (d, state)``: ``previous`` is the
    iterate before this one (x0 itself, with g = 0, at x0). Where ``accepted`` is false the state must
    come back unchanged and d is not read. Where ``restart`` is true, all that was learnt up to
    ``previous`` is dropped first.

    A direction that has nothing to go by yet may be 0: one that does not lead downhill is replaced by the
    steepest descent.

    ``wants``: "gradient", or "product": the state then holds ``along``, a vector, and ``ready``, [] bool, true at
    first. Once told of a new iterate it is not ready, and is told ``hv``, the Hessian's product with ``along`` there,
    until it is. d is read when it has become ready.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    inverse_hessian: Callable[[Any], Any] | None = None
    warm_start: Callable[[Any, Any], Any] | None = None  # (state, H) -> state: before the first update
    wants: str = "gradient"
    trees: bool = False  # params may be any pytree of arrays, which are never joined


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
    - ``state.step``: the next trial; ``state.done``: the trial just told is accepted;
      ``state.failed``: no acceptable step was found.

    ``growth``: where set, a search begins at ``growth`` times the last accepted step (at first 1), and
    not at the step that the method proposes.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    growth: float | None = None
