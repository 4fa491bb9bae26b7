"""Newton's method with a trust region, with steps by truncated conjugate gradients."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate, Method
from jaxmin._core.status import is_stuck
from jaxmin.methods import _trust_region
from jaxmin.methods._band import Band
from jaxmin.methods._noise_floor import Noise
from jaxmin.methods._preconditioner import given, known, usable
from jaxmin.methods._probe import PROBED, steepest
from jaxmin.methods._scale import Scale
from jaxmin.methods._trust_region import Trial

# The model must predict at least this fraction of the decrease that the slope gives along a bent step [3].
_FALLS = 0.01
# The most products for a step where the gradient is 0. After k products Lanczos's method with a random start knows the
# lowest eigenvalue to about (log n / k)^2 of the width of the spectrum [6].
_PROBES = 200
# The preconditioners that are learnt, from the vector x and the bandwidth.
_LEARNT = {"diagonal": lambda x, _: Scale.unknown(x), "banded": Band.unknown}


class TrustNCGState(NamedTuple):
    # changes with every step
    trial: Any  # like params: where to evaluate next
    along: Any  # like params: d, the direction of the next product
    stays: Any  # [] bool: the trial is the iterate; the next step evaluates a product there
    bent: Any  # [] bool: ``along`` is the step bent into the box
    # for the conjugate gradients
    z: Any  # like params: the step so far
    Hz: Any  # like params; the product with the bent step, if the trial is at its end
    r: Any  # like params: the residual H z + g, over |g|, so that no product overflows
    ry: Any  # [] of r and y = M^-1 r
    zz: Any  # [] of z and M z
    inner: Any  # [] int32: products since the iterate; more where the gradient is 0, so that the limit is nearer
    concave: Any  # [] bool: the last product showed negative curvature
    # changes with every iterate
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    noise: Noise
    status: Any  # [] int32
    gnorm: Any  # [] the norm of the gradient of the free variables
    # with a preconditioner, else None
    first: Any  # [] the root of ry at z = 0
    zd: Any  # [] of z and M d
    dd: Any  # [] of d and M d
    weight: Any  # [] of M^-1
    M: Scale | Band | None  # if it is learnt
    retried: Any  # [] bool: the solve was stuck, and M was learnt once more

    @property
    def saddle(self):
        """[] bool: at x0 negative curvature was found, or the products go on."""
        return (self.nit == 0) & (self.stays | self.concave)


@builder(
    aliases=("trust-ncg", "steihaug", "newton-tr"),
    spellings=_trust_region.SPELLINGS,
    converters={"preconditioner": known(*_LEARNT)},
)
def trust_ncg(
    radius: float = 1.0,
    max_radius: float = math.inf,
    eta: float = 0.15,
    max_inner: int | None = None,
    preconditioner: str | Callable[[Any], Any] | None = None,
    bandwidth: int = 30,
) -> Method:
    r"""Newton's method in a trust region, by conjugate gradients that stop at its edge or at negative curvature.

    The step z makes :math:`m(z) = f + g^T z + \frac12 z^T H z` small over :math:`\|z\| \le \Delta`
    [1; 2, Algorithm 7.2]. H is never formed. Each step evaluates either f and g at a trial, or the product H d at the
    iterate. A step is accepted if :math:`\rho = (f(x) - f(x + z)) / (m(0) - m(z)) > \eta`. :math:`\Delta` shrinks to a
    quarter of the step if :math:`\rho < 1/4`, and doubles if :math:`\rho > 3/4` at the edge [2, Algorithm 4.1]. Within
    the noise floor of f the slopes at both ends give the decrease.

    In a box the conjugate gradients move only the free variables. A step that leads out of the box is bent along the
    bounds. One more product gives the model's decrease along the bent step, so that :math:`\rho` compares the same step
    [3]. If that decrease is too small, the method begins a shorter step.

    ``preconditioner`` is a matrix M near the Hessian: the conjugate gradients take fewer products, and the region is
    :math:`z^T M z \le \Delta^2`. Two kinds are learnt from products. Rounds of learning wait for a number of products
    for steps; the first one of a step counts only if it reaches the edge of the region. In float32 M is learnt once
    more where a solve is stuck.

    - ``"diagonal"`` is for variables in very different units. After each 100 products, ten more with vectors of random
      signs show how long the rows of H are, and from them the method learns a diagonal S for which those of S H S are
      about equally long [4]. If S spans some orders of magnitude, M is :math:`S^{-2}`; if not, nothing changes.
    - ``"banded"`` is for variables in an order in which each depends most on its neighbours: those of a trajectory, a
      series, a spline. For up to 31 variables the band is all of H. The method learns H within h of the diagonal from
      2 h + 1 products [5], or all of H from n, and factors it with its eigenvalues made positive. It tries h = 1, 3, 10
      and 30, each after five times the products that it costs, until one more product shows that little of H is
      missing. M is then learnt again after as many products as it costs. It takes about 3 h n numbers of memory, on one
      device.
    - A function r -> M^-1 r, for a positive definite M that you know. If x is not an array [n], r is: its leaves end to
      end, of a complex one the real parts before the imaginary parts.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.
      max_inner: the largest number of products for one step, >= 1; None (default) is 20 n. At an x0 where the gradient
        is 0, at most 200 products look for negative curvature.
      preconditioner: None (default), "diagonal", "banded", or a function.
      bandwidth: the largest h for "banded", >= 1; 30 by default.

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials.

    Raises:
      ValueError: for an argument out of its range.
      TypeError: for an argument of another type, and if a preconditioner does not return what is shaped like r.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="trust-ncg").success
    True

    Along a chain a band of the Hessian saves products.

    >>> x0 = -jnp.ones(1_000)
    >>> plain, banded = (
    ...     jaxmin.minimize(rosen, x0, method="trust_ncg", options={"preconditioner": M}) for M in (None, "banded")
    ... )
    >>> bool(plain.success), bool(banded.success), bool(banded.nhev < plain.nhev)
    (True, True, True)

    References:
      [1] T. Steihaug, SIAM J. Numer. Anal. 20 (1983), 626-637.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [3] C.-J. Lin and J. J. Moré, SIAM J. Optim. 9 (1999), 1100-1127.
      [4] A. M. Bradley and W. Murray, Matrix-free approximate equilibration, arXiv:1110.2805, 2011.
      [5] A. R. Curtis, M. J. D. Powell and J. K. Reid, J. Inst. Math. Appl. 13 (1974), 117-119.
      [6] J. Kuczyński and H. Woźniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), 1094-1122.
    """
    region = _trust_region.region(radius, max_radius, eta)
    if max_inner is not None and not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: give at least 1, or None")
    if not bandwidth >= 1:
        raise ValueError(f"bandwidth={bandwidth!r}: give at least 1")

    def most(x):
        """The largest number of products for one step."""
        return 20 * vec.size(x) if max_inner is None else max_inner

    def init(x):
        zeros, zero = vec.zeros(x), jnp.zeros((), vec.scalar_dtype(x))
        scalar = None if preconditioner is None else zero
        return TrustNCGState(
            trial=x,
            along=zeros,
            stays=jnp.zeros((), bool),
            bent=jnp.zeros((), bool),
            z=zeros,
            Hz=zeros,
            r=zeros,
            ry=zero + 1,
            zz=zero,
            inner=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
            gnorm=zero,
            first=scalar,
            zd=scalar,
            dd=scalar,
            weight=scalar,
            M=_LEARNT[preconditioner](x, bandwidth) if isinstance(preconditioner, str) else None,
            retried=None if scalar is None else jnp.zeros((), bool),
            **_trust_region.start(x, radius),
        )

    def update(grad, state, params, /, *, value, hv, box=Unbounded(), **_):
        M, state = state.M, state._replace(M=None)  # large arrays, which only its branches touch
        in_units = _in_units(M)
        judged = _judge(state, Trial(params, jnp.asarray(value), grad, state.Hz), box, in_units)
        moved, leaves = _advance(state, hv, box, in_units)
        is_new = judged.accepted & (judged.nit == 0)
        # The conjugate gradients go on, or another step begins, or neither.
        goes_on, begins, neither = state.stays, ~state.stays, judged
        if box.bounded:
            bent, again = _bend(state, hv, box)
            goes_on, begins = goes_on & ~state.bent, begins | (state.bent & again)
            neither = vec.where(state.stays, bent, judged)
        if M is not None:
            goes_on &= ~M.goes_on
            neither, M, begins, is_new = _learn(state, neither, M, hv, begins, leaves)
        begun = _begin(neither, box)
        r = vec.where(goes_on, moved.r, begun.r)
        raw = _applied(M, r)
        y, ry, weight = _weighed(begun, r, raw, _in_units(M), is_new, box)
        new = _set_out(begun, y, ry, weight)
        if box.bounded or M is not None:
            new = vec.where(begins, new, neither)
        new = vec.where(goes_on, _turn(moved, y, ry, leaves, box), new)
        if M is not None:
            new = new._replace(along=vec.where(M.goes_on, raw, new.along))
        new = new._replace(accepted=judged.accepted & ~state.stays, M=M)
        return vec.sub(new.trial, params), new

    def _in_units(M):
        """Whether M is known, so that the region is measured in its units."""
        return callable(preconditioner) if M is None else M.used

    def _applied(M, r):
        """M^-1 r; in a round of learning the vector whose product comes next."""
        if M is not None:
            return M.apply(r)
        return given(preconditioner, r) if callable(preconditioner) else r

    def _judge(state, trial, box, in_units):
        """Accept or reject the trial just evaluated."""
        length, reach = jnp.sqrt(state.zz), None  # of the step before it was bent
        if preconditioner is not None:  # the bent step has its share
            full, short = vec.measure(norms=(state.z, vec.sub(trial.x, state.iterate.x)))
            reach = jnp.where(in_units, length * jnp.where(short < full, short / full, 1), short)
        return _trust_region.judge(region, state, trial, length >= 0.99 * state.radius, box, reach)

    def _learn(state, neither, M, Hd, begins, leaves):
        """Learn M from the product with a probe; begin a round where one is due, and a step where one ends."""
        shown, used = state.stays & M.goes_on, M.used
        M = M.learnt(state.along, Hd, shown)
        last = shown & ~M.goes_on
        neither, M, again = _retry(state, neither, M, begins)
        # The first product of a step is needed with any M; but if it reaches the edge, a better M may reach farther.
        saved = state.stays & ~shown & (leaves | (state.inner > 0))
        M = M.counted(saved, begins & (M.is_due | again))
        neither = vec.where(shown, state, neither)
        waiting = neither._replace(trial=neither.iterate.x, stays=jnp.ones((), bool), bent=jnp.zeros((), bool))
        is_new = last & ~(used & M.has_units)
        return vec.where(M.goes_on, waiting, neither), M, (begins | last) & ~M.goes_on, is_new

    def _retry(state, neither, M, begins):
        """Where the solve is stuck, go on once with an M that is learnt there: its step may promise more."""
        # In float64 rounding rarely ends a solve before gtol does.
        coarse = jnp.finfo(neither.radius.dtype).bits < 64
        again = coarse & begins & is_stuck(neither.status) & ~state.retried & M.is_left
        first = _trust_region.start(neither.iterate.x, radius)
        noise = neither.noise._replace(stalls=jnp.where(again, 0, neither.noise.stalls))
        status, size = vec.where(again, (first["status"], first["radius"]), (neither.status, neither.radius))
        neither = neither._replace(status=status, radius=size, noise=noise, retried=state.retried | again)
        return neither, M.as_last_resort(again), again

    def _begin(state, box):
        """Begin a step from the iterate, with z = 0."""
        x, _, g = state.iterate
        free = box.free(x, g)
        g, zeros = box.only(free, g), vec.zeros(x)
        gnorm = vec.norm(g)
        return state._replace(
            trial=x,
            stays=jnp.ones((), bool),
            bent=jnp.zeros((), bool),
            z=zeros,
            Hz=zeros,
            r=steepest(g, gnorm, box.only(free, vec.probe(x))),
            zz=jnp.zeros_like(gnorm),
            inner=jnp.where(gnorm > 0, 0, jnp.maximum(most(x) - _PROBES, 0)).astype(jnp.int32),
            concave=jnp.zeros((), bool),
            gnorm=gnorm,
        )

    def _set_out(state, y, ry, weight):
        """The first direction of the conjugate gradients."""
        known = {"first": jnp.sqrt(ry), "zd": jnp.zeros_like(ry), "dd": ry, "weight": weight}
        return state._replace(along=vec.scale(-1, y), ry=ry, **({} if preconditioner is None else known))

    def _advance(state, Hd, box, in_units):
        """Go along d to the least value of the model, or to the edge [2, Algorithm 7.2]; also whether to the edge."""
        d, z, r, gnorm, ry, zz = state.along, state.z, state.r, state.gnorm, state.ry, state.zz
        dHd, zd, dd = vec.measure((d, Hd), (z, d), (d, d))
        if preconditioner is not None:  # in units of x they are measured, in those of M they are known
            zd, dd = vec.where(in_units, (state.zd, state.dd), (zd, dd))
        Hd_free = box.only(box.free(state.iterate.x, state.iterate.g), Hd)
        # A product that is not finite counts as 0: the step then follows d.
        Hd, Hd_free, dHd = (vec.where(jnp.isfinite(dHd), u, vec.zeros(u)) for u in (Hd, Hd_free, dHd))
        alpha = gnorm * ry / dHd
        leaves = ~(dHd > 0) | ~(jnp.sqrt(zz + alpha * (2 * zd + alpha * dd)) < state.radius)
        t = jnp.where(leaves, _trust_region.to_edge(state.radius, zz, zd, dd), alpha)
        known = {} if preconditioner is None else {"zd": zd + t * dd, "dd": dd}
        moved = state._replace(
            z=vec.axpy(t, d, z),
            Hz=vec.axpy(t, Hd, state.Hz),
            r=vec.axpy(jnp.where(gnorm > 0, t / gnorm, ry / dHd), Hd_free, r),
            zz=zz + t * (2 * zd + t * dd),
            inner=state.inner + 1,
            concave=dHd < 0,
            **known,
        )
        return moved, leaves

    def _turn(state, y, ry, leaves, box):
        """The next direction of the conjugate gradients; or the trial, where they end."""
        x, beta = state.iterate.x, ry / state.ry
        target = jnp.where(state.gnorm > 0, jnp.minimum(0.5, jnp.sqrt(state.gnorm)), PROBED)
        first = 1 if preconditioner is None else state.first
        ends = leaves | (jnp.sqrt(ry) <= target * first) | (state.inner >= most(x))
        straight = vec.add(x, state.z)
        trial = box.clip(straight)
        bent = ends & box.differ(trial, straight)
        known = {} if preconditioner is None else {"zd": beta * state.zd, "dd": ry + beta**2 * state.dd}
        return state._replace(
            trial=vec.where(ends & ~bent, trial, x),
            along=vec.where(bent, vec.sub(trial, x), vec.axpy(beta, state.along, vec.scale(-1, y))),
            stays=~ends | bent,
            bent=bent,
            ry=ry,
            **known,
        )

    def _weighed(state, r, y, used, is_new, box):
        """y = M^-1 r of the free variables, or r where r y is not positive; r y; and the weight of M^-1."""
        if preconditioner is None:
            return r, *vec.measure((r, r)), None
        y = box.only(box.free(state.iterate.x, state.iterate.g), y)
        rr, ry, yy = vec.measure((r, r), (r, y), (y, y))
        # At first the region reaches as far along y as it does in units of x.
        found = ry / yy
        weight = jnp.where(is_new & (found > 0) & (found < jnp.inf), found, state.weight)
        weight = jnp.where(used, weight, 1)
        return *usable(vec.scale(weight, y), weight * ry, r, rr), weight

    def _bend(state, Hs, box):
        """Make the bent step the next trial if the model falls along it; else begin a shorter step."""
        s, length = state.along, jnp.sqrt(state.zz)
        slope, s_Hs, longest = vec.measure((state.iterate.g, s), (s, Hs), largest=(s,))
        falls = (slope < 0) & (slope + s_Hs / 2 <= _FALLS * slope)
        nowhere = ~(longest > 0)  # judge ends the solve then
        taken = state._replace(
            trial=box.clip(vec.add(state.iterate.x, state.z)),
            stays=jnp.zeros((), bool),
            bent=jnp.zeros((), bool),
            Hz=Hs,
        )
        again = ~(falls | nowhere)
        return vec.where(again, state._replace(radius=length / 4), taken), again

    return Method(init, update, wants=frozenset({"grad", "hv", "box"}), trees=True)
