r"""The augmented Lagrangian of Powell, Hestenes and Rockafellar, around a method for bounds alone [BM].

For rows :math:`l \le c(x) \le u`, multipliers v and a penalty :math:`\rho`,

.. math:: L_\rho(x, v) = f(x) + \frac{\rho}{2} \sum_i \mathrm{dist}(c_i(x) + v_i / \rho, [l_i, u_i])^2
    - \frac{|v|^2}{2 \rho}

[BM, (4.3)], for equal limits and for limits on both sides alike. Its gradient is :math:`g + J^T \bar v`, where
:math:`\bar v = v + \rho s` are the next multipliers, and :math:`s = c - P(c + v / \rho)`, with the projection P on the
limits, measures violation and complementarity at once [BM, (4.9)].

References:
  [BM] E. G. Birgin and J. M. Martínez, Practical Augmented Lagrangian Methods for Constrained Optimization, 2014.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._cache.registry import find
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.kkt import Kkt, Rows
from jaxmin._core.protocol import Defaults, Iterate, Method
from jaxmin._core.status import Status
from jaxmin.methods import _elastic

# The penalty grows by gamma unless s falls to tau times the last one [BM, Algorithm 4.1]; it is at most so large.
_GAMMA, _TAU, _RHO_MAX = 10.0, 0.5, 1e8
# The safeguard of the multipliers.
_V_MAX = 1e16
# The first tolerance of the inner solves, relative to max(|g|, 1), and how it falls.
_OMEGA, _FALL = 0.1, 0.1
# So many inner solves in a row may end without their tolerance.
_FAILURES = 3
# f is scaled so that no derivative at x0 is larger.
_STEEP = 100.0
# The first penalty, and the first tolerance, where the multipliers of an earlier solve are known.
_WARM_RHO, _WARM_OMEGA = 10.0, 1e-3
# The violation is stationary if J^T v is so small beside v.
_STATIONARY = 1e-3
# What a method inside may want.
_OFFERED = frozenset({"grad", "hv", "box", "xtol", "ended"})


class Shifted(NamedTuple):
    """The rows, seen by the augmented Lagrangian."""

    s: Any  # [m] c - P(c + v / rho)
    v: Any  # [m] v + rho s, the next multipliers


def shifted(rows, v, rho):
    """The ``Shifted`` at a point; its v is differentiated with respect to c."""
    z = rows.c + v / rho
    above, below = z > rows.upper, z < rows.lower
    # Equal limits have no inside, not even where c is at them.
    outside = above | below | rows.equal
    h = rows.c - jnp.where(above | rows.equal, rows.upper, jnp.where(below, rows.lower, rows.c))
    return Shifted(jnp.where(outside, h, -v / rho), jnp.where(outside, v + rho * h, 0))


class AugmentedLagrangianState(NamedTuple):
    # changes with every step
    trial: Any  # [n]
    inner: Any  # the state of the method inside
    renews: Any  # [] bool: v or rho are new; the trial is the iterate, where that method begins
    # changes with every iterate
    iterate: Iterate  # with f and g of the objective
    rows: Rows
    next_v: Any  # [m] v + rho s
    slope: Any  # [n] g + J^T (v + rho s)
    w: Any  # [n] the multipliers of the bounds
    accepted: Any  # [] bool
    nit: Any  # [] int32
    status: Any  # [] int32
    # changes with every inner solve
    v: Any  # [m]
    rho: Any  # []
    omega: Any  # [] its tolerance
    distance: Any  # [] the largest s at the end of the last one
    failures: Any  # [] int32: solves in a row that ended without their tolerance
    # known after x0
    scale: Any  # [] of f
    unit: Any  # [] of the rows

    def cotangent(self, rows):
        """[m] v + rho s at a trial: J is multiplied by it."""
        return shifted(rows, self.v, self.rho).v

    @property
    def along(self):
        """[n] the direction of the next product."""
        return self.inner.along

    @property
    def stays(self):
        """[] bool: the trial is the iterate."""
        return self.renews | self.inner.stays

    @property
    def kkt(self):
        """What the tests read."""
        return Kkt(self.rows, self.next_v, self.w, self.slope, jnp.full_like(self.next_v, self.unit))


class Found(NamedTuple):
    """A trial."""

    at: Iterate
    rows: Rows
    shifted: Shifted
    pull: Any  # [n] J^T (v + rho s)
    slope: Any  # [n] the gradient of the augmented Lagrangian
    value: Any  # []


def _inside(inner):
    """The ``Method`` inside, from its name or itself."""
    method = inner if isinstance(inner, Method) else find("inner", inner, "methods").build()
    if method.observe is not None or "grad" not in method.wants or not method.wants <= _OFFERED:
        raise ValueError(
            f"inner={inner!r}: it must want 'grad', and besides it only {', '.join(sorted(_OFFERED - {'grad'}))}: "
            "'trust_ncg', 'lbfgs', 'newton_cg'"
        )
    return method


@builder(aliases=("algencan", "auglag"), spellings={"initial_constr_penalty": "rho"}, converters={"inner": _inside})
def augmented_lagrangian(inner: Method | str = "trust_ncg", rho: float | None = None) -> Method:
    r"""The augmented Lagrangian method, for constraints on thousands of variables: neither J nor a Hessian is formed.

    A method for bounds alone minimises :math:`L_\rho(x, v) = f(x) + \frac{\rho}{2} \sum_i \mathrm{dist}(c_i(x) + v_i /
    \rho, [l_i, u_i])^2 - |v|^2 / (2 \rho)` over x, to a tolerance that falls from 0.1. Then the multipliers v become
    those that this function has at x, and :math:`\rho` grows tenfold unless violation and complementarity have halved
    [1, Algorithm 4.1; 2]. Each step evaluates f, c, g and :math:`J^T \bar v` at one point. With ``trust_ncg`` it is a
    trial, or a product of the Hessian of :math:`L_\rho` with one vector at the iterate.

    Below some hundred variables ``interior_point`` needs fewer evaluations. Scale the rows so that their derivatives
    are near 1: all are measured in one unit, 1, or \|J^T s\| / \|s\| for the violations s at x0 if that is less. A row
    in much smaller units than the others counts as met too early. Where the multipliers of far rows act together, as
    those of a long chain of differences do, :math:`\rho` grows and the evaluations become thousands.

    Args:
      inner: the method for bounds: "trust_ncg" (default), "newton_cg", which is better where many inequalities become
        active, "lbfgs", or a ``Method`` that wants the gradient, and besides it only ``hv``, ``box`` and ``xtol``.
      rho: the first penalty, in units of fun over squared units of the rows, > 0; None (default): 10 max(\|f\|, 1) over
        max(\|s\|^2 / 2, 1) at x0, at most 10, with f scaled so that no derivative is above 100 and s in that unit.

    Returns:
      A ``Method``. ``res.nfev`` counts its trials. ``res.nhev`` counts the products, and one more for each new v.
      The solve ends as ``INFEASIBLE`` where :math:`\rho` is large, rows are violated, and :math:`J^T \bar v` vanishes
      beside :math:`\bar v`; as ``SEARCH_FAILED`` where :math:`\rho` would pass 1e8, or three inner solves in a row
      end by rounding.

    Raises:
      ValueError: for an argument out of its range, and an inner method that wants something else.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> disks = jaxmin.NonlinearConstraint(lambda x: jnp.sum(x.reshape(-1, 2) ** 2, axis=1), ub=1.0)  # 500 rows
    >>> f = lambda x: jnp.sum((x - 2) ** 2)
    >>> res = jaxmin.minimize(f, jnp.zeros(1000), constraints=disks, method="augmented_lagrangian")
    >>> res.success, res.x[:2].round(3).tolist(), res.v[0].shape
    (True, [0.707, 0.707], (500,))

    References:
      [1] E. G. Birgin and J. M. Martínez, Practical Augmented Lagrangian Methods for Constrained Optimization, 2014.
      [2] R. Andreani, E. G. Birgin, J. M. Martínez and M. L. Schuverdt, SIAM J. Optim. 18 (2008), 1286-1309.
    """
    if rho is not None and not rho > 0:
        raise ValueError(f"rho={rho!r}: give a number > 0, or None")
    method: Any = inner

    def init(x, /, *, constraints, box=Unbounded()):
        return _start(method, box.clip(x), constraints)

    def update(grad, state, params, /, *, value, constraints, constraint_pull, box=Unbounded(), **given):
        first = state.nit < 0
        at = Iterate(params, jnp.asarray(value), grad)
        begins = first & ~_is_warm(state)
        state = vec.where(begins, _priced(state, at, constraints, constraint_pull, rho), state)
        # The cotangent at x0 was that of rho = 1.
        pull = jnp.where(begins, state.rho, 1) * constraint_pull
        found = _found(state, at, constraints, pull)
        wanted = {"box": box, "hv": given.get("lagrangian_product")} | given
        wanted = {name: wanted[name] for name in method.wants & wanted.keys()}
        _, new = method.update(found.slope, state.inner, params, value=found.value, **wanted)
        state = _renewed(method, _moved(state, found, new, box), box)
        return vec.sub(state.trial, params), state

    def warm_start(state, multipliers, **_):
        v = jnp.nan_to_num(multipliers.v)
        price = jnp.full_like(state.rho, _WARM_RHO if rho is None else rho)
        return state._replace(v=v, next_v=v, rho=price, omega=jnp.full_like(state.omega, _WARM_OMEGA))

    wants = {"grad", "constraints", "constraint_pull"} | (method.wants & {"box", "xtol"})
    wants |= {"lagrangian_product"} if "hv" in method.wants else set()
    limits = _elastic.TOLERANCES
    return Method(init, update, wants=frozenset(wants), warm_start=warm_start, defaults=Defaults(limits=limits))


def _start(method, x, rows):
    """The state before x0."""
    dtype = vec.scalar_dtype(x)
    zero, count, no = jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    v, g = jnp.zeros(rows.c.size, dtype), jnp.zeros(x.size, dtype)
    rows = Rows(v, jnp.asarray(rows.lower, dtype), jnp.asarray(rows.upper, dtype))
    return AugmentedLagrangianState(
        trial=x, inner=method.init(x), renews=no, iterate=Iterate(x, zero, g), rows=rows, next_v=v, slope=g, w=g,
        accepted=no, nit=count - 1, status=jnp.full((), Status.RUNNING, jnp.int32), v=v, rho=zero + 1,
        omega=zero + _OMEGA, distance=zero + jnp.inf, failures=count, scale=zero + 1,
        unit=zero + 1,
    )  # fmt: skip


def _is_warm(state):
    """[] bool: whether there were multipliers before x0."""
    return jnp.any(state.v != 0)


def _priced(state, at, rows, pull, rho):
    """The state with the scale of f, the unit of the rows and the first penalty, from what is known at x0.

    pull is J^T of the violations there. Without a violation, or where it is stationary, the unit is 1.
    """
    dtype = state.rho.dtype
    length, pulled = vec.norm(rows.violations), vec.norm(pull)
    known = (pulled > 0) & jnp.isfinite(pulled)
    unit = jnp.where(known, jnp.clip(pulled / jnp.where(known, length, 1), 1e-8, 1), 1)
    scale = jnp.clip(_STEEP / jnp.maximum(vec.max_abs(at.g), 1e-12), 1e-8, 1)
    if rho is None:  # [BM, Section 12.3]
        price = 10 * jnp.maximum(jnp.abs(at.f) * scale, 1) / jnp.maximum((length / unit) ** 2 / 2, 1)
        rho = jnp.clip(jnp.where(jnp.isfinite(price), price, 1), 1e-6, 10) / (scale * unit**2)
    return state._replace(rho=jnp.asarray(rho, dtype), scale=scale.astype(dtype), unit=unit.astype(dtype))


def _found(state, at, rows, pull):
    """The ``Found`` at a trial."""
    seen = shifted(rows, state.v, state.rho)
    # (|v + rho s|^2 - |v|^2) / (2 rho), without its cancellation.
    penalty = jnp.sum(seen.s * (seen.v + state.v)) / 2
    value = (at.f + penalty).astype(at.f.dtype)
    return Found(at._replace(f=at.f.astype(penalty.dtype)), rows, seen, pull, at.g + pull, value)


def _moved(state, found, inner, box):
    """The state after the step of the method inside; its point may be a new iterate."""
    here = inner.accepted
    accepted = here & ~state.renews
    slope = jnp.where(here, found.slope, state.slope)
    iterate = vec.where(here, found.at, state.iterate)
    held = box.active(iterate.x, slope)
    return state._replace(
        trial=inner.trial,
        inner=inner,
        renews=jnp.zeros((), bool),
        iterate=iterate,
        rows=state.rows._replace(c=jnp.where(here, found.rows.c, state.rows.c)),
        next_v=jnp.where(here, found.shifted.v, state.next_v),
        slope=slope,
        w=jnp.zeros_like(slope) if held is None else jnp.where(held == 0, 0, -slope),
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
    )


class Verdict(NamedTuple):
    """What becomes of an inner solve."""

    solved: Any  # [] bool: it has met its tolerance
    ends: Any  # [] bool: it has met it, or cannot go on
    poor: Any  # [] bool: s is still larger than tau times the last one
    stuck: Any  # [] bool: so is the method
    distance: Any  # [] the largest s, in units of the rows
    failures: Any  # [] int32


def _judged(state, box):
    """The ``Verdict``."""
    x, _, g = state.iterate
    small = vec.max_abs(box.projected(x, state.slope)) <= state.omega * jnp.maximum(vec.max_abs(g), 1)
    solved = state.inner.accepted & small
    stops = (state.inner.status != Status.RUNNING) & ~solved
    ends = solved | stops
    s = shifted(state.rows, state.v, state.rho).s
    distance = jnp.max(jnp.abs(s), initial=0) / state.unit
    poor = solved & (distance > jnp.maximum(_TAU * state.distance, _least(state)))
    failures = jnp.where(solved, 0, state.failures + stops.astype(jnp.int32))
    stuck = (poor & (state.rho >= _rho_max(state))) | (failures >= _FAILURES)
    # Rounding ends all tolerances.
    stuck |= ends & (state.omega < jnp.finfo(state.rho.dtype).eps)
    return Verdict(solved, ends, poor, stuck, distance, failures)


def _least(state):
    """A distance that counts as none."""
    return jnp.finfo(state.rho.dtype).eps ** 0.6


def _rho_max(state):
    return _RHO_MAX / (state.scale * state.unit**2)


def _renewed(method, state, box):
    """The state with new multipliers and a new penalty, where the inner solve has ended [BM, Algorithm 4.1]."""
    solved, ends, poor, stuck, distance, failures = _judged(state, box)
    x = state.iterate.x
    # An inner solution that is much better than v is of no use.
    floor = jnp.where(distance > _least(state), jnp.maximum(_FALL * distance, _least(state)), 0)
    omega = jnp.minimum(jnp.maximum(_FALL * state.omega, floor), state.omega)
    begun = method.init(x)
    if hasattr(begun, "radius"):  # where it could trust the model, it still can
        begun = begun._replace(radius=jnp.where(solved, state.inner.radius, begun.radius))
    lost = jnp.where(_is_infeasible(state, box), Status.INFEASIBLE, Status.SEARCH_FAILED)
    renews = ends & ~stuck
    return state._replace(
        trial=jnp.where(renews, x, state.trial),
        inner=vec.where(renews, begun, state.inner),
        renews=renews,
        v=jnp.where(renews, jnp.clip(state.next_v, -_V_MAX, _V_MAX), state.v),
        rho=jnp.where(renews & poor, jnp.minimum(_GAMMA * state.rho, _rho_max(state)), state.rho),
        omega=jnp.where(solved, omega, state.omega),
        distance=jnp.where(ends, distance, state.distance),
        failures=failures,
        status=jnp.where(stuck, lost, Status.RUNNING).astype(jnp.int32),
    )


def _is_infeasible(state, box):
    """Whether the violation is large, and no step can lower it to first order."""
    eps = jnp.finfo(state.rho.dtype).eps
    pull = vec.max_abs(box.projected(state.iterate.x, state.slope - state.iterate.g))
    violation, largest = (jnp.max(jnp.abs(u), initial=0) for u in (state.rows.violations, state.next_v))
    dear = state.rho >= 1e-4 * _rho_max(state)
    return (violation > eps**0.25 * state.unit) & (pull <= _STATIONARY * largest * state.unit) & dear
