"""Wolfe or approximate Wolfe conditions by double secant steps (Hager & Zhang, 2005)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core.protocol import LineSearch
from jaxmin.linesearches._interpolate import Point, longest, secant, select


class HagerZhangState(NamedTuple):
    a: Point  # lower end: phi(a) <= phi(0) + noise, phi'(a) < 0
    b: Point  # upper end: phi'(b) >= 0 or phi(b) > phi(0) + noise; t = inf while there is none
    best: Point  # the least f with the sufficient decrease; t = 0 while there is none
    width: jax.Array  # []  b - a where the iteration L1, L2, L3 began; inf where L2 is satisfied
    first: jax.Array  # [] bool: the trial is S1's, a second secant step may follow
    settling: jax.Array  # [] bool: the trial is the best once more, to be accepted
    step: jax.Array  # []  the next trial
    done: jax.Array  # [] bool: the trial just told is accepted
    failed: jax.Array  # [] bool: no acceptable step was found
    trials: jax.Array  # [] int32: trials told so far


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

    with the noise of f for :math:`\epsilon`. T2 is T1 on a parabola, but told by slopes, which rounding
    blurs later than differences of f. A step at ``max_step`` from where f still falls is accepted too,
    and f = -inf at once. A trial at which f or its slope is not finite shortens the search. A search that
    has to give up returns to its best trial with the sufficient decrease, which takes one evaluation
    more, and fails where it has none.

    Args:
      sufficient: :math:`\delta`, the part of the predicted decrease that is asked for. Default 0.1.
      curvature: :math:`\sigma`, the part of the slope that may be left. Default 0.9.
      theta: :math:`\theta`, where U3 divides an interval whose upper end is too high. Default 0.5.
      expansion: :math:`\rho`, by which steps grow until an upper end is found. Default 5.
      shrinkage: :math:`\gamma`, an interval that secant steps leave longer than this part is bisected.
        Default 0.66.
      max_trials: evaluations after which the search gives up. Default 40.

    Returns:
      A :class:`LineSearch`; equal constants give the same object.

    Example:
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
      W. W. Hager and H. Zhang (2005). A new conjugate gradient method with guaranteed descent and an
      efficient line search. SIAM Journal on Optimization 16(1), 170-192. doi:10.1137/030601880

      W. W. Hager and H. Zhang (2006). Algorithm 851: CG_DESCENT, a conjugate gradient method with
      guaranteed descent. ACM Transactions on Mathematical Software 32(1), 113-137.
      doi:10.1145/1132973.1132979
    """
    if not 0 < sufficient < min(0.5, curvature):  # T2 needs delta < 1/2
        raise ValueError(f"{sufficient=}, {curvature=}: 0 < sufficient < min(1/2, curvature) is needed")
    for name, value in (("curvature", curvature), ("theta", theta), ("shrinkage", shrinkage)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value!r}: 0 < {name} < 1 is needed")
    if not 1 < expansion < float("inf"):
        raise ValueError(f"{expansion=}: 1 < expansion < inf is needed")
    if not max_trials >= 1:
        raise ValueError(f"{max_trials=}: max_trials >= 1 is needed")
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
        (f0, slope0, noise), max_step = start[:3], longest(start)
        a, b, best = state.a, state.b, state.best
        t, trials = state.step, state.trials + 1

        # Outside the domain is a point that is too high: U3 bisects towards the lower end.
        inside = jnp.isfinite(f) & jnp.isfinite(slope)
        unbounded = f == -jnp.inf
        f = jnp.where(inside, f - f0, jnp.inf)  # from here on phi(t) - phi(0)
        g = jnp.where(inside, slope, slope0)

        # Where rounding may decide the decrease, the trapezoid of the slopes tells it; T1 is T2 then.
        moved = predicted < 0  # not so where x0 + t d is x0
        within = moved & (f <= noise)
        flat = within & (f >= -noise) & (-delta * predicted <= noise)
        f = jnp.where(flat, predicted * (1 + g / slope0) / 2, f)

        sufficient = moved & (f <= delta * predicted)
        gentle = g >= sigma * slope0
        t1 = sufficient & gentle
        t2 = within & gentle & (g <= (2 * delta - 1) * slope0)
        at_end = (t >= max_step) & (g < 0)
        accepted = t1 | t2 | (at_end & sufficient) | unbounded | state.settling

        # The update of [a, b], which is B1 to B3 as well while b is infinite: B2 could begin at a = 0,
        # but any a from where f falls will do. A point at the end that was not accepted is too high.
        c = Point(t, f, g)
        keeps = (g < 0) & within & ~at_end  # U2; else U1 or U3
        old = select(keeps, a, b)  # the end that c replaces
        a = select(keeps, c, a)
        b = select(keeps, b, c)

        unbracketed = ~(b.t < jnp.inf)
        halving = ~unbracketed & (b.g < 0)  # U3 goes on until phi'(b) >= 0
        c2 = secant(old, c)  # S2, S3
        c1 = secant(a, b)  # S1; outside of [a, b] unless phi'(a) < 0 <= phi'(b)
        span = b.t - a.t
        second = state.first & (c2 > a.t) & (c2 < b.t)  # S4
        enough = ~(span > gamma * state.width)  # L2
        first = ~second & enough & (c1 > a.t) & (c1 < b.t)

        t_next = jnp.where(second, c2, jnp.where(first, c1, a.t + span / 2))
        t_next = jnp.where(halving, a.t + theta * span, t_next)
        t_next = jnp.where(unbracketed, jnp.minimum(rho * t, max_step), t_next)  # B3
        bisecting = ~(first | second | halving)  # after L2's bisection a new iteration begins
        width = jnp.where(first, span, jnp.where(bisecting, jnp.inf, state.width))

        better = sufficient & (f <= best.f)
        best = select(better, c, best)
        # A step that promises less than the noise is not shortened for long: where f still rises by more,
        # the noise is larger than told; where f is flat, clean slopes find the step in two or three trials.
        # One that leaves x where it was can't be saved (and so ends a search in a direction not downhill).
        hopeless = ~(-predicted > noise) & (~moved | ((trials >= 4) & (~within | (g > 0))))
        collapsed = ~unbracketed & (span <= 4 * float(jnp.finfo(f.dtype).eps) * b.t)
        give_up = ~accepted & (hopeless | collapsed | (trials >= max_trials))
        done = accepted | (give_up & better)
        settling = give_up & ~done & (best.t > 0)
        return state._replace(
            a=a, b=b, best=best, width=width, first=first, settling=settling, trials=trials, done=done,
            failed=give_up & ~done & ~settling,
            step=jnp.where(done, t, jnp.where(settling, best.t, t_next)),
        )  # fmt: skip

    return LineSearch(init, step)
