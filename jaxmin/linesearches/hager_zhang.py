"""Wolfe or approximate Wolfe conditions by double secant steps (Hager & Zhang, 2005)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch
from jaxmin.linesearches._bracket import Point, Trial, collapsed, hopeless, longest, measure, secant, select


class HagerZhangState(NamedTuple):
    a: Point  # lower end: phi(a) <= phi(0) + noise, phi'(a) < 0
    b: Point  # upper end: phi'(b) >= 0 or phi(b) > phi(0) + noise; t = inf until there is one
    best: Point  # the lowest f with the sufficient decrease; t = 0 until there is one
    width: jax.Array  # []  b - a where the iteration L1, L2, L3 began; inf where L2 is satisfied
    first: jax.Array  # [] bool: the trial is that of S1, and a second secant step may follow
    settling: jax.Array  # [] bool: the trial is the best one again, to be accepted
    step: jax.Array  # []  the next trial
    done: jax.Array  # [] bool: the trial just given is accepted
    failed: jax.Array  # [] bool: no acceptable step was found
    trials: jax.Array  # [] int32: trials given so far


@builder
def hager_zhang(
    sufficient: float = 0.1,
    curvature: float = 0.9,
    theta: float = 0.5,
    expansion: float = 5.0,
    shrinkage: float = 0.66,
    max_trials: int = 40,
) -> LineSearch:
    r"""Search for a step that satisfies the Wolfe or the approximate Wolfe conditions of Hager and Zhang.

    A step t is accepted where :math:`\phi'(t) \ge \sigma \phi'(0)` and either

    .. math:: \phi(t) \le \phi(0) + \delta t \phi'(0) \quad (T1) \qquad\text{or}\qquad
              \phi(t) \le \phi(0) + \epsilon, \ \phi'(t) \le (2 \delta - 1) \phi'(0) \quad (T2),

    where :math:`\epsilon` is the noise of f [1, eq. (4.1)]. On a parabola T2 is the same as T1. It uses slopes, which
    suffer less from rounding than differences of f. A step of length ``max_step`` is accepted where f still falls.
    f = -inf is accepted at once. After a trial at which f or its slope is not finite, the next step is shorter. A
    search that gives up returns to its best trial with the sufficient decrease. This costs one more evaluation. If
    there is no such trial, the search fails.

    Args:
      sufficient: :math:`\delta`, the part of the predicted decrease that a step needs, in (0, min(1/2, curvature)); 0.1
        by default.
      curvature: :math:`\sigma`, the part of the slope that may remain, in (0, 1); 0.9 by default.
      theta: :math:`\theta`, where U3 divides an interval whose upper end is too high, in (0, 1); 0.5 by default.
      expansion: :math:`\rho`, the factor by which steps grow until there is an upper end, finite, > 1; 5 by default.
      shrinkage: :math:`\gamma`. An interval that secant steps leave longer than this part of the last one is bisected.
        In (0, 1); 0.66 by default.
      max_trials: the search gives up after this many evaluations, >= 1; 40 by default.

    Returns:
      A ``LineSearch``. Equal constants give the same object.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for a constant that is not a number.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> phi = jax.value_and_grad(lambda t: (t**2 - 4.0) ** 2 - t)
    >>> f0, slope0 = phi(jnp.asarray(0.0))
    >>> search = jaxmin.hager_zhang()
    >>> start = jaxmin.Start(f0, slope0, noise=1e-6 * abs(f0), max_step=jnp.inf)
    >>> state = search.init(start, first_step=jnp.asarray(9.0))
    >>> while not (state.done or state.failed):
    ...     state = search.step(state, start, *phi(state.step), predicted=state.step * slope0)
    >>> print(f"{state.step:.2f} after {state.trials} trials")
    2.26 after 5 trials

    References:
      [1] W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192, Section 4.
      [2] W. W. Hager and H. Zhang, ACM Trans. Math. Softw. 32 (2006), 113-137, Section 2.
    """
    if not 0 < sufficient < min(0.5, curvature):  # T2 needs delta < 1/2
        raise ValueError(f"{sufficient=}, {curvature=}: give 0 < sufficient < min(1/2, curvature)")
    for name, value in (("curvature", curvature), ("theta", theta), ("shrinkage", shrinkage)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value!r}: give a number in (0, 1)")
    if not 1 < expansion < float("inf"):
        raise ValueError(f"{expansion=}: give a finite number > 1")
    if not max_trials >= 1:
        raise ValueError(f"{max_trials=}: give at least 1")
    return _search(sufficient, curvature, theta, expansion, shrinkage, max_trials)


def _search(delta, sigma, theta, rho, gamma, max_trials) -> LineSearch:
    def init(start, first_step):
        no, zero = jnp.asarray(False), jnp.zeros_like(start.f)
        max_step = longest(start)
        origin, infinite = Point(zero, zero, start.slope), jnp.full_like(start.f, jnp.inf)
        return HagerZhangState(
            a=origin, b=Point(infinite, infinite, zero), best=origin,
            width=infinite, first=no, settling=no, step=jnp.minimum(first_step, max_step), done=no, failed=no,
            trials=jnp.zeros((), jnp.int32),
        )  # fmt: skip

    def step(state, start, f, slope, predicted):
        max_step, t, trials = longest(start), state.step, state.trials + 1
        # A point outside the domain counts as too high: U3 bisects towards the lower end.
        trial = measure(start, Point(t, f, slope), predicted, delta, outside=start.slope)
        g, slope0 = trial.point.g, start.slope
        gentle = g >= sigma * slope0
        t1 = trial.sufficient & gentle
        t2 = trial.within & gentle & (g <= (2 * delta - 1) * slope0)
        at_end = (t >= max_step) & (g < 0)
        accepted = t1 | t2 | (at_end & trial.sufficient) | trial.unbounded | state.settling

        bracket = _updated(state, trial, at_end)
        following = _following(state, bracket, max_step)
        better = trial.sufficient & (trial.point.f <= state.best.f)
        best = select(better, trial.point, state.best)

        no_hope = hopeless(trial, trials, start.noise)
        no_room = collapsed(~bracket.unbracketed, following.span, bracket.b.t)
        give_up = ~accepted & (no_hope | no_room | (trials >= max_trials))
        done = accepted | (give_up & better)
        settling = give_up & ~done & (best.t > 0)
        return state._replace(
            a=bracket.a, b=bracket.b, best=best, width=following.width, first=following.first, settling=settling,
            trials=trials, done=done, failed=give_up & ~done & ~settling,
            step=jnp.where(done, t, jnp.where(settling, best.t, following.step)),
        )  # fmt: skip

    def _following(state, bracket, max_step):
        """The secant steps S1 to S4, the bisections of U3 and L2, and the longer steps of B3."""
        a, b, c, replaced, unbracketed = bracket
        halving = ~unbracketed & (b.g < 0)  # U3 goes on until phi'(b) >= 0
        c2 = secant(replaced, c)  # S2, S3
        c1 = secant(a, b)  # S1; outside [a, b] unless phi'(a) < 0 <= phi'(b)
        span = b.t - a.t
        second = state.first & (c2 > a.t) & (c2 < b.t)  # S4
        enough = ~(span > gamma * state.width)  # L2
        first = ~second & enough & (c1 > a.t) & (c1 < b.t)

        t = jnp.where(second, c2, jnp.where(first, c1, a.t + span / 2))
        t = jnp.where(halving, a.t + theta * span, t)
        t = jnp.where(unbracketed, jnp.minimum(rho * c.t, max_step), t)  # B3
        bisecting = ~(first | second | halving)  # a new iteration begins after the bisection of L2
        width = jnp.where(first, span, jnp.where(bisecting, jnp.inf, state.width))
        return Following(t, first, span, width)

    return LineSearch(init, step)


class Bracket(NamedTuple):
    """The interval [a, b] after the trial c."""

    a: Point
    b: Point
    c: Point
    replaced: Point  # the end that c replaces
    unbracketed: jax.Array  # [] bool: b is infinite


class Following(NamedTuple):
    """The next trial."""

    step: jax.Array  # []
    first: jax.Array  # [] bool: it is that of S1
    span: jax.Array  # []  b - a now
    width: jax.Array  # []  b - a where the iteration began


def _updated(state: HagerZhangState, trial: Trial, at_end: jax.Array) -> Bracket:
    """Update [a, b] by U1 to U3, or by B1 to B3 while b is infinite.

    B2 may begin at a = 0, but any a at which f falls serves as well. A trial at ``max_step`` that was not accepted is
    too high.
    """
    c = trial.point
    falls = (c.g < 0) & trial.within & ~at_end  # U2; else U1 or U3
    replaced = select(falls, state.a, state.b)
    a = select(falls, c, state.a)
    b = select(falls, state.b, c)
    return Bracket(a, b, c, replaced, ~(b.t < jnp.inf))
