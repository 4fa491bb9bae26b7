"""Strong Wolfe conditions by safeguarded interpolation in a shrinking bracket (Moré & Thuente, 1994)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch
from jaxmin.linesearches._bracket import Point, Trial, collapsed, cubic, hopeless, longest, measure, secant, select


class WolfeState(NamedTuple):
    x: Point  # the end with the lower f: 0, or the best trial with the sufficient decrease
    y: Point  # the other end, longer or shorter than x; f = inf outside the domain
    bracketed: jax.Array  # [] bool: a minimiser is known to lie between x and y
    width: jax.Array  # []  |y - x| one trial ago
    width1: jax.Array  # []  and two trials ago
    settling: jax.Array  # [] bool: the trial is x again, to be accepted
    step: jax.Array  # []  the next trial
    done: jax.Array  # [] bool: the trial just given is accepted
    failed: jax.Array  # [] bool: no acceptable step was found
    trials: jax.Array  # [] int32: trials given so far


@builder(aliases=("zoom", "strong_wolfe", "more_thuente", "dcsrch"))
def wolfe(sufficient: float = 1e-4, curvature: float = 0.9, max_trials: int = 40) -> LineSearch:
    r"""Search for a step that satisfies the strong Wolfe conditions, by the method of Moré and Thuente.

    A step t is accepted where

    .. math:: \phi(t) \le \phi(0) + \mu t \phi'(0), \qquad |\phi'(t)| \le \eta |\phi'(0)|.

    Where rounding hides the decrease, the slopes decide: the approximate Wolfe conditions
    :math:`(2\mu - 1) \phi'(0) \ge \phi'(t) \ge \eta \phi'(0)` of Hager and Zhang [2, eq. (4.1)] are enough. A step of
    length ``max_step`` is accepted where f still falls. f = -inf is accepted at once. After a trial at which f or its
    slope is not finite, the next step is shorter. A search that gives up returns to its best trial with the sufficient
    decrease. This costs one more evaluation. If there is no such trial, the search fails.

    Args:
      sufficient: :math:`\mu`, the part of the predicted decrease that a step needs, in (0, curvature); 1e-4 by default.
      curvature: :math:`\eta`, the part of the slope that may remain, in (sufficient, 1); 0.9 by default, for
        quasi-Newton directions. Conjugate gradients need about 0.1.
      max_trials: the search gives up after this many evaluations, >= 1; 40 by default.

    Returns:
      A ``LineSearch``. Equal constants give the same object.

    Raises:
      ValueError: for a constant out of its range.
      TypeError: for a constant that is not a number.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> phi = jax.value_and_grad(lambda t: (t**2 - 4.0) ** 2 - t)
    >>> f0, slope0 = phi(jnp.asarray(0.0))
    >>> search = jaxmin.wolfe(curvature=0.1)
    >>> start = jaxmin.Start(f0, slope0, noise=1e-6 * abs(f0), max_step=jnp.inf)
    >>> state = search.init(start, first_step=jnp.asarray(9.0))
    >>> while not (state.done or state.failed):
    ...     state = search.step(state, start, *phi(state.step), predicted=state.step * slope0)
    >>> print(f"{state.step:.2f} after {state.trials} trials")
    2.03 after 5 trials

    References:
      [1] J. J. Moré and D. J. Thuente, ACM Trans. Math. Softw. 20 (1994), 286-307, Sections 2 to 4.
      [2] W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192.
    """
    if not 0 < sufficient < curvature < 1:
        raise ValueError(f"{sufficient=}, {curvature=}: give 0 < sufficient < curvature < 1")
    if not max_trials >= 1:
        raise ValueError(f"{max_trials=}: give at least 1")
    return _search(sufficient, curvature, max_trials)


def _search(mu, eta, max_trials) -> LineSearch:
    def init(start, first_step):
        no, zero = jnp.asarray(False), jnp.zeros_like(start.f)
        max_step = longest(start)
        origin = Point(zero, zero, start.slope)
        return WolfeState(
            x=origin, y=origin, bracketed=no, width=max_step,
            width1=2 * max_step, settling=no, step=jnp.minimum(first_step, max_step), done=no, failed=no,
            trials=jnp.zeros((), jnp.int32),
        )  # fmt: skip

    def step(state, start, f, slope, predicted):
        max_step, t, trials = longest(start), state.step, state.trials + 1
        # Outside the domain no interpolation is finite, so the bracket is bisected there.
        trial = measure(start, Point(t, f, slope), predicted, mu, outside=0)
        g, slope0 = trial.point.g, start.slope
        strong = jnp.abs(g) <= -eta * slope0  # (1.2)
        approximate = trial.flat & (g >= eta * slope0)
        at_end = (t >= max_step) & (g < 0)
        accepted = (trial.sufficient & (strong | approximate | at_end)) | trial.unbounded | state.settling

        cases = _cases(state, trial)
        t_next = _interpolated(state, trial, cases, mu * slope0)
        bracket = _updated(state, trial, cases, t_next)
        x, y = bracket.x, bracket.y

        no_hope = hopeless(trial, trials, start.noise)
        no_room = collapsed(bracket.bracketed, bracket.width, jnp.maximum(x.t, y.t))
        give_up = ~accepted & (no_hope | no_room | (trials >= max_trials))
        done = accepted | (give_up & ~cases.higher)  # the trial is x
        settling = give_up & cases.higher & (x.t > 0)
        return state._replace(
            x=x, y=y, bracketed=bracket.bracketed, settling=settling, trials=trials, done=done,
            failed=give_up & ~done & ~settling,
            width=jnp.where(bracket.bracketed, bracket.width, state.width),
            width1=jnp.where(bracket.bracketed, state.width, state.width1),
            step=jnp.where(done, t, jnp.where(settling, x.t, jnp.minimum(bracket.t_next, max_step))),
        )  # fmt: skip

    return LineSearch(init, step)


class Cases(NamedTuple):
    """The four cases of Section 4; exactly one holds. And which function to interpolate."""

    higher: jax.Array  # [] bool, case 1: the trial is worse than x
    turned: jax.Array  # [] bool, case 2: the slope changed its sign
    gentler: jax.Array  # [] bool, case 3: the slope has the same sign and is smaller
    steeper: jax.Array  # [] bool, case 4: the slope has the same sign and is not smaller
    psi: jax.Array  # [] bool: interpolate psi(t) = phi(t) - phi(0) - mu t phi'(0), not phi


def _cases(state: WolfeState, trial: Trial) -> Cases:
    """The case of the trial.

    x always has the sufficient decrease, so a trial without it is worse than x for psi, whatever phi says. The two
    stages of the paper differ only there: psi is interpolated where phi alone would call the trial better.
    """
    x, (_, f, g) = state.x, trial.point
    lower = f <= x.f
    higher = ~(lower & trial.sufficient)
    turned = ~higher & ((g < 0) != (x.g < 0))
    gentler = ~higher & ~turned & (jnp.abs(g) < jnp.abs(x.g))
    steeper = ~higher & ~turned & ~gentler
    return Cases(higher, turned, gentler, steeper, lower & ~trial.sufficient)


def _interpolated(state: WolfeState, trial: Trial, cases: Cases, slope_of_psi: jax.Array) -> jax.Array:
    """The next step length by the rules of Section 4; it may lie outside the bracket."""
    x, y, bracketed = state.x, state.y, state.bracketed
    t, f, g = trial.point
    m = jnp.where(cases.psi, slope_of_psi, 0)
    p = Point(t, f - m * t, g - m)
    q = Point(x.t, x.f - m * x.t, x.g - m)

    # Until bracketed t > x, and the next trial lies between these two. The first may also be shorter than t.
    low = jnp.where(x.t > 0, t + 1.1 * (t - x.t), 0)
    high = t + 4.0 * (t - x.t)
    beyond = jnp.where(bracketed, y.t, high)
    c = cubic(select(cases.higher, q, p), select(cases.higher, p, select(cases.steeper, y, q)))
    c = jnp.where(cases.gentler & ~((c - t) * (t - x.t) > 0), beyond, c)
    s = secant(p, q)
    h = p.t - q.t
    a = q.t + q.g / (q.g - (p.f - q.f) / h) / 2 * h  # of the parabola that needs no slope at p
    nearest = jnp.abs(c - q.t) < jnp.abs(a - q.t)
    farther = jnp.abs(c - t) > jnp.abs(s - t)

    end = jnp.where(bracketed, t + 0.66 * (y.t - t), high)  # case 3 stays well inside the bracket
    start = jnp.where(bracketed, t, low)
    t1 = jnp.where(nearest, c, c + (a - c) / 2)  # case 1: near the minimiser of the cubic
    t2 = jnp.where(farther, c, s)  # case 2: the farther from t
    t3 = jnp.where(farther == bracketed, s, c)  # case 3: the nearer to t in a bracket, else the farther
    t3 = jnp.clip(t3, jnp.minimum(start, end), jnp.maximum(start, end))
    t4 = jnp.where(bracketed, c, high)  # case 4: the cubic through t and y
    return jnp.where(cases.higher, t1, jnp.where(cases.turned, t2, jnp.where(cases.gentler, t3, t4)))


class Bracket(NamedTuple):
    """The interval after the trial, and the next step length in it."""

    x: Point
    y: Point
    bracketed: jax.Array  # [] bool
    width: jax.Array  # []
    t_next: jax.Array  # []


def _updated(state: WolfeState, trial: Trial, cases: Cases, t_next: jax.Array) -> Bracket:
    """Section 2, updating the interval; Section 4, its width must fall below 0.66 in two trials."""
    y = select(cases.higher, trial.point, select(cases.turned, state.x, state.y))
    x = select(cases.higher, state.x, trial.point)
    bracketed = state.bracketed | (cases.higher | cases.turned)
    width = jnp.abs(y.t - x.t)
    wide = width >= 0.66 * state.width1
    between = (t_next > jnp.minimum(x.t, y.t)) & (t_next < jnp.maximum(x.t, y.t))
    t_next = jnp.where(bracketed & (wide | ~between), x.t + (y.t - x.t) / 2, t_next)
    return Bracket(x, y, bracketed, width, t_next)
