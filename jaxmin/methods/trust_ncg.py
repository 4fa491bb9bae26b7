"""Newton's method with a trust region, with steps by truncated conjugate gradients."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate, Method
from jaxmin.methods import _trust_region
from jaxmin.methods._noise_floor import Noise
from jaxmin.methods._probe import PROBED, steepest
from jaxmin.methods._scale import Scale
from jaxmin.methods._trust_region import Trial

# The model must predict at least this fraction of the decrease that the slope gives along a bent step [3].
_FALLS = 0.01


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
    inner: Any  # [] int32: products since the iterate
    concave: Any  # [] bool: the last product showed negative curvature
    # changes with every iterate
    iterate: Iterate
    accepted: Any  # [] bool: it is the trial given last
    nit: Any  # [] int32; -1 before x0
    radius: Any  # []
    noise: Noise
    status: Any  # [] int32
    # where the units of the variables are learnt, else None
    scale: Scale | None
    first: Any  # [] the norm of S r at z = 0

    @property
    def saddle(self):
        """[] bool: at x0 negative curvature was found, or the products go on."""
        return (self.nit == 0) & (self.stays | self.concave)


@builder(aliases=("trust-ncg", "steihaug", "newton-tr"), spellings=_trust_region.SPELLINGS)
def trust_ncg(
    radius: float = 1.0,
    max_radius: float = math.inf,
    eta: float = 0.15,
    max_inner: int | None = None,
    preconditioner: str | None = None,
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

    ``preconditioner="diagonal"`` is for variables in very different units. After each 100 products, ten more with
    vectors of random signs show how long the rows of H are, and from them the method learns a diagonal S for which
    those of S H S are about equally long [4]. If S spans some orders of magnitude, the conjugate gradients are
    preconditioned by :math:`S^2`, and the region is :math:`\|S^{-1} z\| \le \Delta`; if not, nothing changes.

    Args:
      radius: the first :math:`\Delta`, in units of x, > 0; 1.0 by default.
      max_radius: the largest :math:`\Delta`, in units of x, >= radius; infinite by default (SciPy has 1000).
      eta: the agreement of model and function that an accepted step needs, in [0, 1/4); 0.15 by default.
      max_inner: the largest number of products for one step, >= 1; None (default) is 20 n.
      preconditioner: None (default), or "diagonal".

    Returns:
      A ``Method``. ``res.nhev`` counts its products, ``res.nfev`` its trials.

    Raises:
      ValueError: for an argument out of its range.
      TypeError: for an argument that is not a number.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> jaxmin.minimize(rosen, [-1.2, 1.0], method="trust-ncg").success
    True

    References:
      [1] T. Steihaug, SIAM J. Numer. Anal. 20 (1983), 626-637.
      [2] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006.
      [3] C.-J. Lin and J. J. Moré, SIAM J. Optim. 9 (1999), 1100-1127.
      [4] A. M. Bradley and W. Murray, Matrix-free approximate equilibration, arXiv:1110.2805, 2011.
    """
    region = _trust_region.region(radius, max_radius, eta)
    if max_inner is not None and not max_inner >= 1:
        raise ValueError(f"max_inner={max_inner!r}: give at least 1, or None")
    if preconditioner not in (None, "diagonal"):
        raise ValueError(f"preconditioner={preconditioner!r}: give None or 'diagonal'")
    learns = preconditioner is not None

    def init(x):
        zeros = vec.zeros(x)
        return TrustNCGState(
            trial=x,
            along=zeros,
            stays=jnp.zeros((), bool),
            bent=jnp.zeros((), bool),
            z=zeros,
            Hz=zeros,
            r=zeros,
            inner=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
            scale=Scale.unknown(x) if learns else None,
            first=jnp.ones((), vec.scalar_dtype(x)) if learns else None,
            **_trust_region.start(x, radius),
        )

    def update(grad, state, params, /, *, value, hv, box=Unbounded(), **_):
        evaluated = _judge(grad, state, params, jnp.asarray(value), box)
        searched = _conjugate_gradient(state, hv, box)
        if learns:
            searched = vec.where(state.scale.goes_on, _learn(state, hv, box), searched)
        new = vec.where(state.stays, searched, evaluated)
        if box.bounded:
            new = vec.where(state.bent, _bend(state, hv, box), new)
        new = new._replace(accepted=evaluated.accepted & ~state.stays)
        return vec.sub(new.trial, params), new

    def _judge(g, state, x, value, box):
        """Accept or reject the trial just evaluated, and begin a new step from the iterate."""
        edge_met = _length(state, state.z) >= 0.99 * state.radius  # by the step before it was bent
        reach = _length(state, vec.sub(x, state.iterate.x)) if learns else None
        state = _trust_region.judge(region, state, Trial(x, value, g, state.Hz), edge_met, box, reach)
        begun = _begin(state, box)
        if not learns:
            return begun
        # The last step stays in z: the radius is converted by its length in the new units.
        scale = state.scale.begun()
        learning = begun._replace(scale=scale, z=state.z, along=scale.probe(state.z))
        return vec.where(state.scale.is_due, learning, begun)

    def _learn(state, Hd, box):
        """Learn the units of the variables from a product with a probe; after the last one, begin a step."""
        new = state._replace(scale=state.scale.learnt(Hd))
        before, after = _length(state, state.z), _length(new, state.z)
        new = new._replace(radius=jnp.where(before > 0, state.radius * (after / before), state.radius))
        return vec.where(new.scale.goes_on, new._replace(along=new.scale.probe(state.z)), _begin(new, box))

    def _length(state, z):
        """The norm of the region."""
        return vec.norm(_in_units(state, z))

    def _in_units(state, z):
        """S^-1 z."""
        return vec.over(z, state.scale.unit()) if learns else z

    def _preconditioned(state, r):
        """S^2 r."""
        if not learns:
            return r
        S = state.scale.unit()
        return vec.times(vec.times(S, S), r)

    def _begin(state, box):
        """Begin a step from the iterate, with z = 0."""
        x, _, g = state.iterate
        free = box.free(x, g)
        g, zeros = box.only(free, g), vec.zeros(x)
        r = steepest(g, vec.norm(g), box.only(free, vec.probe(x)))
        y = _preconditioned(state, r)
        return state._replace(
            trial=x,
            first=jnp.sqrt(vec.dot(r, y)) if learns else None,
            along=vec.scale(-1, y),
            stays=jnp.ones((), bool),
            bent=jnp.zeros((), bool),
            z=zeros,
            Hz=zeros,
            r=r,
            inner=jnp.zeros((), jnp.int32),
            concave=jnp.zeros((), bool),
        )

    def _conjugate_gradient(state, Hd, box):
        """One iteration of conjugate gradients for H z = -g among the free variables [2, Algorithm 7.2]."""
        d, z, r = state.along, state.z, state.r
        x, _, g = state.iterate
        free = box.free(x, g)
        g, Hd_free = box.only(free, g), box.only(free, Hd)
        y = _preconditioned(state, r)
        ry, dHd, gnorm = vec.measure((r, y), (d, Hd), norms=(g,))
        # A product that is not finite counts as 0: the step then follows d.
        Hd, Hd_free, dHd = (vec.where(jnp.isfinite(dHd), u, vec.zeros(u)) for u in (Hd, Hd_free, dHd))
        alpha = gnorm * ry / dHd
        inside = vec.axpy(alpha, d, z)
        leaves = ~(dHd > 0) | ~(_length(state, inside) < state.radius)
        tau = _trust_region.to_edge(_in_units(state, z), _in_units(state, d), state.radius)
        t = jnp.where(leaves, tau, alpha)
        z, Hz = vec.axpy(t, d, z), vec.axpy(t, Hd, state.Hz)
        r = vec.axpy(jnp.where(gnorm > 0, t / gnorm, ry / dHd), Hd_free, r)
        y = _preconditioned(state, r)
        (ry_new,) = vec.measure((r, y))
        inner = state.inner + 1
        target = jnp.where(gnorm > 0, jnp.minimum(0.5, jnp.sqrt(gnorm)), PROBED)
        small = jnp.sqrt(ry_new) <= (target * state.first if learns else target)
        limit = 20 * vec.size(d) if max_inner is None else max_inner
        ends = leaves | small | (inner >= limit)
        straight = vec.add(x, z)
        trial = box.clip(straight)
        bent = ends & box.differ(trial, straight)
        return state._replace(
            trial=vec.where(ends & ~bent, trial, x),
            along=vec.where(bent, vec.sub(trial, x), vec.axpy(ry_new / ry, d, vec.scale(-1, y))),
            stays=~ends | bent,
            bent=bent,
            z=z,
            Hz=Hz,
            r=r,
            inner=inner,
            concave=dHd < 0,
            scale=state.scale._replace(spent=state.scale.spent + 1) if learns else None,
        )

    def _bend(state, Hs, box):
        """Make the bent step the next trial if the model falls along it; else begin a shorter step."""
        s, length = state.along, _length(state, state.z)
        slope, s_Hs, longest = vec.measure((state.iterate.g, s), (s, Hs), largest=(s,))
        falls = (slope < 0) & (slope + s_Hs / 2 <= _FALLS * slope)
        nowhere = ~(longest > 0)  # judge ends the solve then
        taken = state._replace(
            trial=box.clip(vec.add(state.iterate.x, state.z)),
            stays=jnp.zeros((), bool),
            bent=jnp.zeros((), bool),
            Hz=Hs,
        )
        return vec.where(falls | nowhere, taken, _begin(state._replace(radius=length / 4), box))

    return Method(init, update, wants=frozenset({"grad", "hv", "box"}), trees=True)
