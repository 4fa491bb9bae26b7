"""Strong Wolfe conditions by safeguarded interpolation in a shrinking bracket (Moré & Thuente, 1994)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch
from jaxmin.linesearches._interpolate import Point, cubic, longest, secant, select


class WolfeState(NamedTuple):
    x: Point  # the end of least f: 0, or the best trial with the sufficient decrease
    y: Point  # the other end, longer or shorter than x; f = inf outside the domain
    bracketed: jax.Array  # [] bool: a minimiser is known to lie between x and y
    width: jax.Array  # []  |y - x| one trial ago
    width1: jax.Array  # []  and two trials ago
    settling: jax.Array  # [] bool: the trial is x once more, to be accepted
    step: jax.Array  # []  the next trial
    done: jax.Array  # [] bool: the trial just told is accepted
    failed: jax.Array  # [] bool: no acceptable step was found
    trials: jax.Array  # [] int32: trials told so far


@builder(aliases=("zoom", "strong_wolfe", "more_thuente", "dcsrch"))
def wolfe(sufficient: float = 1e-4, curvature: float = 0.9, max_trials: int = 40) -> LineSearch:
    r"""Search for a step that satisfies the strong Wolfe conditions, by the method of Moré and Thuente.

    A step t is accepted where

    .. math:: \phi(t) \le \phi(0) + \mu t \phi'(0), \qquad |\phi'(t)| \le \eta |\phi'(0)|.

    Where rounding hides the decrease that is asked for, the slopes stand for it: the approximate Wolfe
    conditions :math:`(2\mu - 1) \phi'(0) \ge \phi'(t) \ge \eta \phi'(0)` of Hager and Zhang are enough.
    A step at ``max_step`` from where f still falls is accepted too, and f = -inf at once. A trial at
    which f or its slope is not finite shortens the search. A search that has to give up returns to its
    best trial with the sufficient decrease, which takes one evaluation more, and fails where it has none.

    Args:
      sufficient: :math:`\mu`, the part of the predicted decrease that is asked for. Default 1e-4.
      curvature: :math:`\eta`, the part of the slope that may be left. Default 0.9, for quasi-Newton
        directions; conjugate gradients want 0.1.
      max_trials: evaluations after which the search gives up. Default 40.

    Returns:
      A :class:`LineSearch`; equal constants give the same object.

    Example:
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

    Reference:
      J. J. Moré and D. J. Thuente (1994). Line search algorithms with guaranteed sufficient decrease.
      ACM Transactions on Mathematical Software 20(3), 286-307. doi:10.1145/192115.192132
    """
    if not 0 < sufficient < curvature < 1:
        raise ValueError(f"{sufficient=}, {curvature=}: 0 < sufficient < curvature < 1 is needed")
    if not max_trials >= 1:
        raise ValueError(f"{max_trials=}: max_trials >= 1 is needed")
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
        (f0, slope0, noise), max_step = start[:3], longest(start)
        x, y, bracketed = state.x, state.y, state.bracketed
        t, trials = state.step, state.trials + 1

        # Outside the domain f is a wall: no interpolation is finite there, so the bracket is bisected.
        inside = jnp.isfinite(f) & jnp.isfinite(slope)
        unbounded = f == -jnp.inf
        f = jnp.where(inside, f - f0, jnp.inf)  # from here on phi(t) - phi(0)
        g = jnp.where(inside, slope, 0)

        # Where rounding may decide the first condition, the trapezoid of the slopes tells the decrease.
        moved = predicted < 0  # not so where x0 + t d is x0
        within = moved & (f <= noise)
        flat = within & (f >= -noise) & (-mu * predicted <= noise)
        f = jnp.where(flat, predicted * (1 + g / slope0) / 2, f)

        sufficient = moved & (f <= mu * predicted)  # (1.1)
        strong = jnp.abs(g) <= -eta * slope0  # (1.2)
        approximate = flat & (g >= eta * slope0)
        at_end = (t >= max_step) & (g < 0)
        accepted = (sufficient & (strong | approximate | at_end)) | unbounded | state.settling

        # The four cases of Section 4. x always has the sufficient decrease, so a trial without it is
        # worse than x for psi(t) = phi(t) - phi(0) - mu t phi'(0), whatever phi says. Only there do the
        # paper's two stages differ: psi is interpolated where phi alone would call the trial better.
        lower = f <= x.f
        case1 = ~(lower & sufficient)
        case2 = ~case1 & ((g < 0) != (x.g < 0))
        case3 = ~case1 & ~case2 & (jnp.abs(g) < jnp.abs(x.g))
        case4 = ~case1 & ~case2 & ~case3
        m = jnp.where(lower & ~sufficient, mu * slope0, 0)
        p = Point(t, f - m * t, g - m)
        q = Point(x.t, x.f - m * x.t, x.g - m)

        low = jnp.where(x.t > 0, t + 1.1 * (t - x.t), 0)  # until bracketed t > x, and the next trial lies
        high = t + 4.0 * (t - x.t)  # between these; the first may also be shorter than t
        beyond = jnp.where(bracketed, y.t, high)
        c = cubic(select(case1, q, p), select(case1, p, select(case4, y, q)))
        c = jnp.where(case3 & ~((c - t) * (t - x.t) > 0), beyond, c)
        s = secant(p, q)
        h = p.t - q.t
        a = q.t + q.g / (q.g - (p.f - q.f) / h) / 2 * h  # of the parabola that needs no slope at p
        nearest = jnp.abs(c - q.t) < jnp.abs(a - q.t)
        farther = jnp.abs(c - t) > jnp.abs(s - t)

        end = jnp.where(bracketed, t + 0.66 * (y.t - t), high)  # case 3 stays well inside the bracket
        start = jnp.where(bracketed, t, low)
        t1 = jnp.where(nearest, c, c + (a - c) / 2)  # case 1: the cubic's minimiser is trusted most
        t2 = jnp.where(farther, c, s)  # case 2: the farther from t
        t3 = jnp.where(farther == bracketed, s, c)  # case 3: the nearer to t in a bracket, else the farther
        t3 = jnp.clip(t3, jnp.minimum(start, end), jnp.maximum(start, end))
        t4 = jnp.where(bracketed, c, high)  # case 4: the cubic through t and y
        t_next = jnp.where(case1, t1, jnp.where(case2, t2, jnp.where(case3, t3, t4)))

        # Section 2, updating the interval; Section 4, its width must fall below 0.66 in two trials.
        trial = Point(t, f, g)
        y = select(case1, trial, select(case2, x, y))
        x = select(case1, x, trial)
        bracketed |= case1 | case2
        width = jnp.abs(y.t - x.t)
        wide = width >= 0.66 * state.width1
        between = (t_next > jnp.minimum(x.t, y.t)) & (t_next < jnp.maximum(x.t, y.t))
        t_next = jnp.where(bracketed & (wide | ~between), x.t + (y.t - x.t) / 2, t_next)

        # A step that promises less than the noise is not shortened for long: where f still rises by more,
        # the noise is larger than told; where f is flat, clean slopes find the step in two or three trials.
        # One that leaves x where it was can't be saved (and so ends a search in a direction not downhill).
        hopeless = ~(-predicted > noise) & (~moved | ((trials >= 4) & (~within | (g > 0))))
        collapsed = bracketed & (width <= 4 * float(jnp.finfo(f.dtype).eps) * jnp.maximum(x.t, y.t))
        give_up = ~accepted & (hopeless | collapsed | (trials >= max_trials))
        done = accepted | (give_up & ~case1)  # x is this trial
        settling = give_up & case1 & (x.t > 0)
        return state._replace(
            x=x, y=y, bracketed=bracketed, settling=settling, trials=trials, done=done,
            failed=give_up & ~done & ~settling,
            width=jnp.where(bracketed, width, state.width),
            width1=jnp.where(bracketed, state.width, state.width1),
            step=jnp.where(done, t, jnp.where(settling, x.t, jnp.minimum(t_next, max_step))),
        )  # fmt: skip

    return LineSearch(init, step)
