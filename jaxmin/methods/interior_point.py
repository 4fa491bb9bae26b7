"""The interior-point method for constraints: elastic rows, hard bounds, one Cholesky factor an iterate."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Defaults, Iterate, Method
from jaxmin._core.status import Status
from jaxmin.methods import _elastic
from jaxmin.methods._elastic import Change

# mu falls once the error of the current problem is at most kappa mu [WB, (7)].
_KAPPA = 10.0
# The constant of sufficient decrease [WB, (20)].
_ARMIJO = 1e-4
# A step goes at most so much of the way to a bound [WB, (8)].
_TAU = 0.99
# Second-order corrections, and how much of the violation each has to take away [WB, Section 2.4].
_CORRECTIONS, _CORRECTED = 4, 0.5
# The price rises at the latest so many iterates after it did.
_WAIT = 3
# The watchdog takes so many steps on trust.
_TRUSTED = 2
_BACKTRACKS, _FAILURES = 30, 2
# mu falls to the smaller one of this fraction and this power of it [WB, (7)].
_SLOWER, _POWER = 0.2, 1.5
# The multipliers of bounds are within this factor of mu over the distance [WB, (16)].
_CENTRAL = 1e10
# The longest first step, relative to x.
_CAP = 10.0
# With known multipliers: how far x0 is moved into the box, and the largest first mu.
_NEAR, _WARM_MU = 1e-6, 1e-5


class Point(NamedTuple):
    """An iterate, what was found there, and its multipliers."""

    at: Iterate
    c: Any  # [m]
    J: Any  # [m, n]
    y: Any  # [2, m] multipliers of both sides of the rows
    z: Any  # [2, n] those of the bounds


class Path(NamedTuple):
    """A step, and the data of the search along it."""

    step: Change
    longest: Any  # [] the first t of the search: 1, or less where a bound is near
    dual: Any  # [] the step of the multipliers
    phi: Any  # [] the merit function at t = 0
    slope: Any  # [] its derivative there
    mu: Any  # []
    nu: Any  # []


class InteriorPointState(NamedTuple):
    # changes with every step
    trial: Any  # [n]
    t: Any  # [] the step along the path to the trial
    tries: Any  # [] int32: trials on this path before
    corrections: Any  # [] int32: second-order corrections before
    corrected: Any  # [2, m] the distances for the next correction, without those at the trial
    violation: Any  # [] at the last correction
    straight: Any  # [] the merit function at the trial before the corrections
    again: Any  # [] bool: the trial before the corrections again; the watchdog accepts it on trust
    renews: Any  # [] bool: the trial is the iterate, with other multipliers
    # changes with every iterate
    iterate: Iterate
    rows: Any  # Rows
    J: Any  # [m, n]
    y: Any  # [2, m]
    z: Any  # [2, n]
    path: Path
    L: Any  # [n, n] the factor of the condensed matrix there
    accepted: Any  # [] bool
    nit: Any  # [] int32
    status: Any  # [] int32
    mu: Any  # []
    nu: Any  # []: the price of violation
    shift: Any  # []: the last multiple of I that made the matrix positive definite
    cap: Any  # []: the longest step relative to x
    since: Any  # [] int32: iterates since nu changed
    failures: Any  # [] int32: searches in a row that failed
    # the watchdog's
    trusted: Any  # [] int32: steps taken on trust; 0: none
    saved: Any  # (Point, Path) before these
    B: Any  # [n, n] the learnt Hessian of the Lagrangian at the iterate; None where it is exact
    # known after x0
    scale: Any  # [] of f
    unit: Any  # [m] of each row, times that of f

    @property
    def stays(self):
        """[] bool: f is known at the trial."""
        return self.renews | self.again

    @property
    def multipliers(self):
        """[m] v at the trial, if it becomes the iterate."""
        moved = jnp.where(self.renews, 0, self.path.dual) * self.path.step.y
        return -_elastic.net(self.y + moved)

    @property
    def kkt(self):
        """What the tests read."""
        return _elastic.kkt(self)


class Outcome(NamedTuple):
    """What becomes of a trial: at most one is true, and none at x0 or where the trial is the iterate."""

    lower: Any  # [] bool: the merit function is low enough
    corrects: Any  # [] bool: a second-order correction follows
    trusts: Any  # [] bool: the watchdog accepts it on trust
    repeats: Any  # [] bool: the corrections have failed; the trial before them is accepted on trust in the next step
    returns: Any  # [] bool: back to where it began to trust
    shortens: Any  # [] bool: a shorter step follows
    fails: Any  # [] bool: the step cannot become shorter


class Found(NamedTuple):
    """A trial, as the merit function sees it."""

    point: Point
    phi: Any  # []
    violation: Any  # [] the sum of all violations
    finite: Any  # [] bool


@builder(
    aliases=("interior", "trust-constr", "ipopt"),
    spellings={"initial_barrier_parameter": "mu", "initial_constr_penalty": "nu"},
)
def interior_point(mu: float = 0.1, nu: float = 10.0, hessian: str = "exact") -> Method:
    r"""The elastic penalty-barrier method for constraints: each step is one Newton step on a smooth function of x.

    Bounds are hard: every point evaluated is inside. Every row l <= c(x) <= u is elastic: its violation has a price
    :math:`\nu`, and logarithms with the weight :math:`\mu` smooth the price. What is minimised is

    .. math:: \Phi(x) = f(x) + \sum_i \psi(c_i(x); \mu, \nu) - \mu \sum_j \log(x_j - l_j) - \mu \sum_j \log(u_j - x_j)

    with :math:`\mu \to 0`. :math:`\psi` is the least price of a violation and of its slack, in closed form. Newton's
    primal-dual equations reduce to n equations, whatever the number of rows. The least multiple of I tried that
    makes their matrix positive definite serves as the correction of the inertia and for rows that depend on each
    other. :math:`\nu` rises while a violated row presses against it; where that does not help, the problem is locally
    infeasible. A step that raises the violation is corrected to second order, and a watchdog takes two steps on trust.
    A step evaluates f, c, their first derivatives, and the Hessian of the Lagrangian, once. The method is for n up to
    a few hundred. Without constraints it is Newton's method with barriers for the bounds.

    Args:
      mu: the first :math:`\mu`, in units of f scaled to derivatives of at most 100 at x0, > 0; 0.1 by default.
      nu: the first price of a violation, in the same units over those of the rows, scaled alike, > 0; 10 by default.
      hessian: "exact" (default), or "bfgs": the Hessian of the Lagrangian is learnt from gradients. It is for functions
        without second derivatives; ``hess="bfgs"`` in ``minimize`` sets it.

    Returns:
      A ``Method``. ``res.nfev`` counts its points, ``res.nhev`` its Hessians. The defaults of gtol, ctol and
      barrier_tol are 1e-6, 1e-6 and 1e-8 in float64, 1e-3, 1e-3 and 1e-4 in float32.

    Raises:
      ValueError: for an argument out of its range.

    >>> import jax.numpy as jnp, jaxmin
    >>> def volume(x):
    ...     return -x[0] * x[1] * x[2]
    >>> surface = jaxmin.NonlinearConstraint(lambda x: 2 * (x[0] * x[1] + x[1] * x[2] + x[2] * x[0]), ub=6.0)
    >>> res = jaxmin.minimize(volume, [0.5, 1.0, 2.0], bounds=[(0, None)] * 3, constraints=surface)
    >>> res.x.round(3).tolist(), res.constr[0].round(3).item(), res.v[0].round(3).item()
    ([1.0, 1.0, 1.0], 6.0, 0.25)

    References:
      A. Wächter and L. T. Biegler, Math. Program. 106 (2006), 25-57: the equations that the comments name by [WB].
      N. I. M. Gould, D. Orban and Ph. L. Toint, An interior-point l1-penalty method for nonlinear optimization, in
      Numerical Analysis and Optimization, 2015. R. M. Chamberlain et al., Math. Program. Study 16 (1982), 1-17: the
      watchdog.
    """
    _elastic.check(nu=nu, mu=mu, hessian=hessian)

    def init(x, /, *, constraints, box):
        B = None if hessian == "exact" else jnp.eye(x.size, dtype=x.dtype)
        return _start(_elastic.inside(x, box), constraints, mu, nu)._replace(B=B)

    def update(grad, state, params, /, *, value, constraints, constraint_jacobian, box, lagrangian_hessian=None, **_):
        at = Iterate(params, jnp.asarray(value, state.iterate.f.dtype), grad)
        s = _elastic.sides(constraints, box, params)
        first = state.nit < 0
        state = _elastic.scaled(state, grad, constraint_jacobian, constraints)
        state = _in_units(state, first)
        found = _found(s, state, at, constraints, constraint_jacobian)
        H = lagrangian_hessian
        if H is None:
            H = _elastic.learnt_at(state, at, constraint_jacobian, found.point.y)
        found = found._replace(finite=found.finite & jnp.all(jnp.isfinite(H)))
        outcome = _judge(state, found)
        is_new = first | state.renews | outcome.lower | outcome.trusts
        state = _moved(s, state, found, outcome)
        state = _continued(s, state, outcome, found, H, first, is_new)
        if hessian == "bfgs":
            state = state._replace(B=jnp.where(state.accepted, H, state.B))
        return vec.sub(state.trial, params), state

    def warm_start(state, multipliers, *, x, box):
        x = _elastic.inside(x, box, _NEAR)
        state = _elastic.warm(state, multipliers, state.rows.equal)
        return state._replace(trial=x, iterate=state.iterate._replace(x=x), mu=jnp.minimum(state.mu, _WARM_MU))

    return Method(
        init,
        update,
        wants=_elastic.WANTS[hessian],
        warm_start=warm_start,
        defaults=Defaults(limits=_elastic.TOLERANCES),
    )


def _start(x, rows, mu, nu):
    """The state before x0."""
    m, n = rows.c.size, x.size
    dtype = vec.scalar_dtype(x)
    zero, one, count = jnp.zeros((), dtype), jnp.ones((), dtype), jnp.zeros((), jnp.int32)
    y, z, J = jnp.zeros((2, m), dtype), jnp.zeros((2, n), dtype), jnp.zeros((m, n), dtype)
    iterate = Iterate(x, zero, jnp.zeros_like(x))
    mu, nu = zero + mu, zero + nu
    path = Path(Change(jnp.zeros_like(x), y, z), one, one, zero, zero, mu, nu)
    no, running = jnp.zeros((), bool), jnp.full((), Status.RUNNING, jnp.int32)
    return InteriorPointState(
        trial=x, t=one, tries=count, corrections=count, corrected=y, violation=zero,
        straight=zero, again=no, renews=no,
        iterate=iterate, rows=rows, J=J, y=y, z=z, path=path, L=jnp.eye(n, dtype=dtype), accepted=no,
        nit=count - 1, status=running, mu=mu, nu=nu, shift=zero, cap=zero + _CAP, since=count, failures=count,
        B=None, trusted=count, saved=(Point(iterate, rows.c, J, y, z), path), scale=one, unit=jnp.ones(m, dtype),
    )  # fmt: skip


def _in_units(state, first):
    """The state with mu in units of f, and a price above all multipliers that are known before x0."""
    return state._replace(
        mu=jnp.where(first, state.mu / state.scale, state.mu),
        nu=jnp.where(first, _elastic.above_multipliers(state), state.nu),
    )


def _prices(s, state):
    return _elastic.weights(s, state.mu, state.nu * state.unit)


def _found(s, state, at, constraints, J):
    """The trial with the multipliers that it has as an iterate."""
    gap, dual, step = _elastic.gaps(s, at.x), jnp.where(state.renews, 0, state.path.dual), state.path.step
    central = state.mu / gap
    z = jnp.clip(state.z + dual * step.z, central / _CENTRAL, central * _CENTRAL)  # [WB, (16)]
    z = jnp.where(state.nit < 0, state.z, z)
    point = Point(at, constraints.c, J, state.y + dual * step.y, jnp.where(s.bounded, z, 0))
    phi = _elastic.merit(s, _prices(s, state), at.x, at.f, constraints.c)
    finite = jnp.isfinite(phi)
    for part in (at.g, J):
        finite &= jnp.all(jnp.isfinite(part))
    return Found(point, phi, jnp.sum(constraints.violations * state.unit), finite)


def _judge(state, found):
    """The ``Outcome`` of a trial."""
    searches, path, finite = (state.nit >= 0) & ~state.renews, state.path, found.finite
    _, old = state.saved
    t = state.t
    # On trust, the decrease is measured from where the watchdog began.
    guarded = (state.trusted > 0) & (old.mu == state.mu) & (old.nu == state.nu)
    base, step = jnp.where(guarded, old.phi, path.phi), jnp.where(guarded, old.longest, t)
    slope = jnp.minimum(jnp.where(guarded, old.slope, path.slope), 0)
    eps = jnp.finfo(found.phi.dtype).eps
    noise = 10 * eps * jnp.abs(path.phi) + eps / state.scale
    lower = searches & finite & ~state.again & (found.phi <= base + _ARMIJO * step * slope + noise)

    before = jnp.sum(state.rows.violations * state.unit)
    begins = (state.tries == 0) & (state.corrections == 0) & (found.violation > _CORRECTED * before)
    goes_on = (state.corrections > 0) & (state.corrections < _CORRECTIONS)
    goes_on &= found.violation <= _CORRECTED * state.violation
    rest = searches & ~lower
    corrects = rest & finite & (begins | goes_on) & (found.violation > 0) & ~state.again
    rest &= ~corrects
    at_once, corrected = state.tries == 0, state.corrections > 0
    may_trust = rest & at_once & (finite | corrected) & (state.trusted < _TRUSTED)
    trusts, repeats = may_trust & ~corrected, may_trust & corrected
    returns = rest & ~may_trust & at_once & (state.trusted > 0)
    rest &= ~may_trust & ~returns
    length = t * _elastic.relative(path.step.x, state.iterate.x)
    fails = rest & ((length < eps) | (state.tries > _BACKTRACKS))
    return Outcome(lower, corrects, trusts, repeats, returns, rest, fails)


def _shorter(state, found):
    """The next t of a search: where the parabola through the values and the slope is least."""
    t, path, corrected = state.t, state.path, state.corrections > 0
    phi = jnp.where(corrected, state.straight, found.phi)
    t_q = -path.slope * t**2 / (2 * (phi - path.phi - t * path.slope))
    t_q = jnp.where((found.finite | corrected) & (path.slope < 0) & jnp.isfinite(t_q), t_q, t / 4)
    return jnp.clip(t_q, t / 10, t / 2)


def _moved(s, state, found, o):
    """The state with its next iterate, and all that does not need Newton's equations there."""
    first = state.nit < 0
    accepted = first | o.lower | o.trusts
    here = Point(state.iterate, state.rows.c, state.J, state.y, state.z)
    begins_trust = o.trusts & (state.trusted == 0)
    saved = vec.where(begins_trust, (here, state.path), state.saved)
    before, old = saved
    point = vec.where(accepted | state.renews, found.point, vec.where(o.returns, before, here))
    mu = jnp.where(o.fails, jnp.maximum(_SLOWER * state.mu, _least(state)), jnp.where(o.returns, old.mu, state.mu))
    nu = jnp.where(o.returns, old.nu, state.nu)
    moved = _elastic.relative(point.at.x - state.iterate.x, state.iterate.x)
    long = accepted & ~first & (state.t >= 0.9 * state.path.longest)
    return state._replace(
        t=jnp.where(o.returns, old.longest / 2, jnp.where(o.shortens, _shorter(state, found), state.t)),
        tries=jnp.where(o.returns, 1, state.tries + o.shortens.astype(jnp.int32)),
        corrections=jnp.where(o.corrects, state.corrections + 1, 0),
        violation=jnp.where(o.corrects, found.violation, state.violation),
        straight=jnp.where(o.corrects & (state.corrections == 0), found.phi, state.straight),
        again=o.repeats,
        iterate=point.at,
        rows=state.rows._replace(c=point.c),
        J=point.J,
        y=point.y,
        z=point.z,
        path=vec.where(o.returns, old, state.path),
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        mu=mu,
        nu=nu,
        cap=jnp.where(long, jnp.maximum(state.cap, 4 * moved), state.cap),
        failures=jnp.where(accepted, 0, state.failures + o.fails.astype(jnp.int32)),
        trusted=jnp.where(o.lower | o.returns, 0, state.trusted + o.trusts.astype(jnp.int32)),
        saved=saved,
    )


def _least(state):
    """The least mu: below it, rounding is all that is left."""
    return jnp.finfo(state.mu.dtype).eps ** 0.75 / state.scale


class Balance(NamedTuple):
    """The forces at the iterate: of f, of the rows with their multipliers, and of the bounds."""

    r: Any  # [] the largest entry of the gradient of the Lagrangian
    pull: Any  # [] the largest part that the rows have in it, without cancellation
    pressure: Any  # [] the largest multiplier of a row, in its unit; at most nu
    violation: Any  # [] the largest violation, scaled


def _balance(s, state):
    r = state.iterate.g - state.J.T @ _elastic.net(state.y) - _elastic.net(state.z)
    return Balance(
        r=vec.max_abs(jnp.where(s.free, r, 0)),
        pull=vec.max_abs(jnp.abs(state.J).T @ jnp.sum(jnp.abs(state.y), axis=0)),
        pressure=_elastic.pressure(state.y, state.unit),
        violation=jnp.max(state.rows.violations * state.unit, initial=0) * state.scale,
    )


def _renewed(s, state):
    """(mu, nu, since, infeasible) at a new iterate."""
    point = state.iterate.x
    gap, h = _elastic.gaps(s, point), _elastic.heights(s, state.rows.c)
    total = jnp.sum(jnp.abs(state.y) / state.unit) + state.scale * jnp.sum(state.z)
    heavy = jnp.maximum(total / (s.on.shape[1] + 2 * point.size), 100) / 100  # [WB, (6)]
    balance = _balance(s, state)

    def error(mu):
        """The residual of the conditions of the merit function's minimum [WB, (5)]."""
        w = _prices(s, state._replace(mu=mu))
        a, b = _elastic.slacks(s, w, h)
        products = jnp.where(s.on, jnp.maximum(jnp.abs((w.w + state.y) * a - mu), jnp.abs((w.p - state.y) * b - mu)), 0)
        of_bounds = jnp.where(s.bounded, state.z * gap - mu, 0)
        return jnp.maximum(jnp.maximum(balance.r, vec.max_abs(products)), vec.max_abs(of_bounds)) / heavy

    def faster(mu):
        scaled = mu * state.scale
        return jnp.maximum(jnp.minimum(_SLOWER * scaled, scaled**_POWER) / state.scale, _least(state))

    def solved(carry):
        mu, far = carry
        return (far <= _KAPPA * mu) & ((far < 0) | (mu > _least(state)))

    def lower(carry):
        mu = jnp.where(carry[1] < 0, carry[0], faster(carry[0]))
        return mu, error(mu)

    # Written so that the error is compiled once: it is below 0 before the first.
    mu, far = lax.while_loop(solved, lower, (state.mu, -jnp.ones_like(state.mu)))
    presses = balance.pressure > 0.9 * state.nu
    tol = jnp.finfo(mu.dtype).eps ** 0.375
    due = (far <= 100 * mu) | (state.since + 1 > _WAIT)
    # With the least mu, no smaller violation comes by itself.
    last = (mu <= _least(state)) & (balance.violation > 0)
    rises = presses & due & ((balance.violation > jnp.maximum(tol, 10 * mu * state.scale)) | last)
    nu = jnp.where(rises, 10 * state.nu, state.nu)
    # At a minimum of the merit function where f has no part in the balance, the violation itself is stationary.
    alone = (far <= _KAPPA * mu) & (vec.max_abs(state.iterate.g) <= 1e-5 * balance.pull) & (state.nu >= 1e4)
    return mu, nu, jnp.where(rises, 0, state.since + 1), rises & (alone | (state.nu >= _elastic.highest(mu)))


def _is_stationary(s, state):
    """Whether violated rows press against a high price, and the gradient of the merit function is nothing beside it."""
    balance, eps = _balance(s, state), jnp.finfo(state.mu.dtype).eps
    presses = balance.pressure > 0.5 * state.nu
    small = balance.r <= eps**0.375 * balance.pull
    return (balance.violation > eps**0.25) & presses & small & (state.nu >= 1e4)


class Centre(NamedTuple):
    """What the merit function says at the iterate."""

    w: Any  # its ``Weights``
    primal: Any  # [2, m] its multipliers of the rows
    away: Any  # [2, n] those of the bounds
    h: Any  # [2, m] the distances of the rows
    y: Any  # [2, m] the multipliers to go on with
    z: Any  # [2, n]
    B: Any  # their ``Barriers``


def _centred(s, state, o, first):
    """The ``Centre`` at the iterate.

    At x0, and where a search has failed, the multipliers to go on with are those of the merit function. At x0 those of
    equalities are 0, and Newton's equations become those of least-squares multipliers [WB, Section 3.6].
    """
    x = state.iterate.x
    w, gap, h = _prices(s, state), _elastic.gaps(s, x), _elastic.heights(s, state.rows.c)
    a, b = _elastic.slacks(s, w, h)
    primal = jnp.where(s.on, w.p - w.mu / b, 0)
    away = jnp.where(s.bounded, w.mu / gap, 0)
    margin = 1e-6 * w.p
    inner = jnp.clip(primal, margin * 1e-6 - w.w, w.p - margin)
    begin = jnp.where(s.equal, 0, jnp.minimum(inner, w.p / 2))
    warm = first & _elastic.is_warm(state)
    known = jnp.clip(state.y, margin - w.w, w.p - margin)
    y = jnp.where(first, jnp.where(warm, known, begin), jnp.where(o.fails, inner, state.y))
    y = jnp.where(s.on, y, 0)
    z = jnp.where(first | o.fails, jnp.where(warm, jnp.maximum(state.z, away), away), state.z)
    B = _elastic.barriers(s, w, a, b, y, gap, z)
    B = B._replace(
        per_row=jnp.where(first, jnp.where(s.equal, 1e8, 0), B.per_row),
        per_variable=jnp.where(first, 0, B.per_variable),
    )
    h = jnp.where(first, w.mu / B.za - w.mu / B.zb, h)
    return Centre(w, primal, away, h, y, z, B)


def _path(s, state, at, step):
    """The ``Path`` along a step from the iterate, and its fractions to the boundary."""
    x, g = state.iterate.x, state.iterate.g
    tau = jnp.maximum(_TAU, 1 - state.mu * state.scale)
    longest = _elastic.fraction(_elastic.gaps(s, x), jnp.where(s.bounded, _elastic.signed(step.x), 0), tau)
    # y stays between -w and p.
    dual = _elastic.fraction(jnp.where(step.y < 0, at.B.za, at.B.zb), -jnp.abs(step.y), tau)
    dual = jnp.minimum(dual, _elastic.fraction(jnp.where(s.bounded, at.z, 1), step.z, tau))
    slope = vec.dot(g - state.J.T @ _elastic.net(at.primal) - _elastic.net(at.away), step.x)
    phi = _elastic.merit(s, at.w, x, state.iterate.f, state.rows.c)
    return Path(step, longest, dual, phi, slope, state.mu, state.nu)


def _ending(s, state, infeasible, broken):
    """The status: whether the method can go on."""
    stuck = broken | (state.failures > _FAILURES)
    lost = _elastic.failure(state, infeasible | _is_stationary(s, state))
    return jnp.where(stuck | infeasible, lost, Status.RUNNING)


def _continued(s, state, o, found, H, first, is_new):
    """The state with the next trial: along a new path, on the old one, or as a correction."""
    improves, x = is_new & ~first, state.iterate.x
    kept = state.mu, state.nu, state.since, jnp.zeros((), bool)
    mu, nu, since, infeasible = lax.cond(improves, lambda: _renewed(s, state), lambda: kept)
    state = state._replace(mu=mu, nu=nu, since=since)
    at = _centred(s, state, o, first)
    H = jnp.where(first, jnp.eye(x.size, dtype=H.dtype), H)
    L, shift = lax.cond(
        is_new,
        lambda: _elastic.factor(_elastic.condensed(s, at.B, H, state.J), H, state.shift),
        lambda: (state.L, state.shift),
    )
    bent = state.corrected + _elastic.heights(s, found.point.c)
    used = jnp.where(o.corrects, bent, at.h)
    step = _elastic.newton(s, at.w, at.B, L, state.iterate.g, state.J, Change(x, at.y, at.z), used)
    within = jnp.minimum(state.cap / jnp.maximum(_elastic.relative(step.x, x), 1e-30), 1)
    step = vec.scale(jnp.where(o.corrects, 1, within), step)
    new = _path(s, state, at, step)
    status = _ending(s, state, infeasible, improves & ~jnp.isfinite(new.slope))
    path = vec.where(improves, new, state.path)
    t = jnp.where(improves, new.longest, state.t)
    renews = first | o.fails
    trial = x + jnp.where(o.corrects, new.longest * step.x, t * path.step.x)

    fine = jnp.all(jnp.isfinite(step.y)) & (_elastic.pressure(step.y, state.unit) < 1e3)
    y = jnp.where(first & fine & s.equal & ~_elastic.is_warm(state), step.y, at.y)
    return state._replace(
        trial=jnp.where(renews, x, trial),
        t=t,
        tries=jnp.where(is_new, 0, state.tries),
        corrected=jnp.where(improves | o.corrects, new.longest * used, state.corrected),
        y=y,
        z=at.z,
        path=path,
        L=L,
        renews=renews,
        status=status,
        nu=jnp.where(first, _elastic.above_multipliers(state._replace(y=y)), nu),
        shift=jnp.where(first, state.shift, shift),
    )
