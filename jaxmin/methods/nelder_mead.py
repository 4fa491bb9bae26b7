"""The simplex of Nelder and Mead."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate, Method, PerVariable
from jaxmin._core.status import Status

# What a trial is.
_BUILD, _REFLECT, _EXPAND, _OUTSIDE, _INSIDE, _SHRINK = range(6)

# The edges of the first simplex, SciPy's: relative, and where a coordinate of x0 is 0.
_EDGE, _EDGE_AT_0 = 0.05, 0.00025


class NelderMeadState(NamedTuple):
    # changes with every trial
    trial: Any  # [n] the point to evaluate next
    phase: Any  # [] int32: what it is
    vertex: Any  # [] int32: which vertex it is, where the simplex is built or shrunk
    iterate: Iterate  # the lowest point yet; g is None
    accepted: Any  # [] bool: it is the trial given last
    # changes within an iteration
    xr: Any  # [n] the reflected point
    fr: Any  # [] f there
    # changes with every iteration; in order of f, but where the simplex is built or shrunk
    simplex: Any  # [n+1, n]
    values: Any  # [n+1] inf for NaN
    spread: Any  # (df, dx): the largest distances from the lowest vertex, at the end of the last iteration
    nit: Any  # [] int32: iterations, the building of the simplex one of them; -1 before x0
    status: Any  # [] int32


def _vertices(vertices):
    """The vertices in a form that can be compared, unless they are traced."""
    if vertices is None:
        return None
    try:
        shape = np.shape(vertices)
        known = vertices if isinstance(vertices, jax.core.Tracer) else np.asarray(vertices, float)
    except (TypeError, ValueError):
        raise TypeError(f"initial_simplex={vertices!r}: an array [n+1, n] of numbers") from None
    if len(shape) != 2 or shape[0] != shape[1] + 1:
        raise ValueError(f"initial_simplex: an array [n+1, n], not of shape {list(shape)}")
    return tuple(map(tuple, known.tolist())) if isinstance(known, np.ndarray) else known


@builder(
    tol=("ftol", "xtol"),
    limits={"ftol": 1e-4, "xtol": 1e-4, "maxiter": PerVariable(200), "maxfun": PerVariable(200)},
    converters={"initial_simplex": _vertices},
)
def nelder_mead(adaptive: bool = False, initial_simplex: ArrayLike | None = None) -> Method:
    r"""Nelder and Mead's simplex, for functions without a gradient: it compares values, and no more.

    An iteration reflects the highest of n + 1 vertices at the centroid of the others, and expands, contracts
    or shrinks the simplex by SciPy's rules [1]. A NaN counts as infinity. It ends where both the values and the
    vertices are within ftol and xtol (SciPy's fatol and xatol, 1e-4 both) of the lowest one's; by default after
    200 n iterations or evaluations. In a box every point is moved to the nearest one inside, and the first
    simplex is reflected at an upper bound.

    Args:
      adaptive: expand, contract and shrink less the more variables there are [2]; False by default.
      initial_simplex: the vertices, an array [n+1, n], in place of x0; by default x0, and for each coordinate
        x0 with that coordinate 5 % larger, or 0.00025 where it is 0.

    Returns:
      A ``Method`` that wants the value alone: no gradient is ever traced.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.max(jnp.abs(x - 1)), [0.0, 3.0], method="nelder-mead")
    >>> res.success, res.x.round(3).tolist(), res.jac is None
    (True, [1.0, 1.0], True)

    References:
      [1] J. A. Nelder and R. Mead, Computer Journal 7 (1965), 308-313.
      [2] F. Gao and L. Han, Comput. Optim. Appl. 51 (2012), 259-277.
    """
    return _build(adaptive, initial_simplex)


def _build(adaptive, vertices):
    def init(params):
        n, dtype = params.size, vec.scalar_dtype(params)
        zero = jnp.zeros((), dtype)
        start = params if vertices is None else _as_array(vertices, params)[0]
        return NelderMeadState(
            trial=start,
            phase=jnp.full((), _BUILD, jnp.int32),
            vertex=jnp.zeros((), jnp.int32),
            iterate=Iterate(start, zero, None),
            accepted=jnp.zeros((), bool),
            xr=start,
            fr=zero,
            simplex=jnp.zeros((n + 1, n), params.dtype),
            values=jnp.full(n + 1, jnp.inf, dtype),
            spread=(zero + jnp.inf, zero + jnp.inf),
            nit=jnp.full((), -1, jnp.int32),
            status=jnp.full((), Status.RUNNING, jnp.int32),
        )

    def update(grad, state, params, /, *, value, box=Unbounded(), **_):
        del grad
        n, dtype = params.size, state.fr.dtype
        chi, psi, sigma = (1 + 2 / n, 0.75 - 1 / (2 * n), 1 - 1 / n) if adaptive and n else (2, 0.5, 0.5)
        at_x0 = state.nit < 0
        value = value.astype(dtype)
        f = jnp.where(jnp.isnan(value), jnp.inf, value)
        built = _first_simplex(params, box) if vertices is None else _inside(_as_array(vertices, params), box)
        simplex = jnp.where(at_x0, built, state.simplex)
        lowest, second, highest = state.values[0], state.values[max(n - 1, 0)], state.values[n]

        # What the trial says.
        is_ = lambda phase: state.phase == phase
        filling = is_(_BUILD) | is_(_SHRINK)
        expand = is_(_REFLECT) & (f < lowest)
        good = is_(_REFLECT) & (f >= lowest) & (f < second)
        contract = is_(_REFLECT) & (f >= lowest) & (f >= second)
        outside, inside = contract & (f < highest), contract & (f >= highest)
        contracted = (is_(_OUTSIDE) & (f <= state.fr)) | (is_(_INSIDE) & (f < highest))
        shrink = (is_(_OUTSIDE) | is_(_INSIDE)) & ~contracted
        replaced = good | is_(_EXPAND) | contracted
        ended = replaced | (filling & (state.vertex == n))

        # It takes the place of the highest vertex, or its own.
        reflected = is_(_EXPAND) & (f >= state.fr)
        x, fx = jnp.where(reflected, state.xr, params), jnp.where(reflected, state.fr, f)
        slot = jnp.where(filling, state.vertex, n)
        simplex = vec.write_row(simplex, slot, x, when=filling | replaced)
        values = vec.write_row(state.values, slot, fx, when=filling | replaced)
        order = jnp.where(ended, jnp.argsort(values, stable=True), jnp.arange(n + 1))
        simplex, values = simplex[order], values[order]
        simplex = jnp.where(shrink, simplex[:1] + sigma * (simplex - simplex[:1]), simplex)
        spread = vec.max_abs(values[1:] - values[0]), vec.max_abs(simplex[1:] - simplex[:1])

        # The next one: x + t (x - highest), with x the centroid of the other vertices; or a vertex.
        centroid = jnp.sum(simplex[:-1], axis=0) / max(n, 1)
        t = jnp.where(expand, chi, jnp.where(outside, psi, jnp.where(inside, -psi, 1))).astype(params.dtype)
        vertex = jnp.where(filling, state.vertex + 1, 1).astype(jnp.int32) % (n + 1)
        fills = shrink | (filling & ~ended)
        trial = box.clip(jnp.where(fills, simplex[vertex], (1 + t) * centroid - t * simplex[-1]))
        phase = state.phase
        for holds, then in ((expand, _EXPAND), (outside, _OUTSIDE), (inside, _INSIDE), (shrink, _SHRINK)):
            phase = jnp.where(holds, then, phase)
        phase = jnp.where(ended, _REFLECT, phase).astype(jnp.int32)

        accepted = at_x0 | ~(state.iterate.f <= f)
        state = NelderMeadState(
            trial=trial,
            phase=phase,
            vertex=vertex,
            iterate=vec.where(accepted, Iterate(params, value, None), state.iterate),
            accepted=accepted,
            xr=jnp.where(is_(_REFLECT), params, state.xr),
            fr=jnp.where(is_(_REFLECT), f, state.fr),
            simplex=simplex,
            values=values,
            spread=vec.where(ended, spread, state.spread),
            nit=state.nit + (at_x0 | ended).astype(jnp.int32),
            status=state.status,
        )
        return trial - params, state

    return Method(init, update, wants=frozenset({"box"}))


def _as_array(vertices, params):
    vertices = jnp.asarray(vertices, params.dtype)
    if vertices.shape[1] != params.size:
        raise ValueError(f"initial_simplex: {vertices.shape[1]} coordinates, for {params.size} variables in x0")
    return vertices


def _first_simplex(x0, box):
    moved = jnp.where(x0 == 0, _EDGE_AT_0, (1 + _EDGE) * x0).astype(x0.dtype)
    edges = jnp.where(jnp.eye(x0.size, dtype=bool), moved, x0[None])
    return _inside(jnp.concatenate([x0[None], edges]), box)


def _inside(simplex, box):
    """The vertices in the box: what is beyond a bound is reflected there, lest the simplex be flat.

    SciPy reflects at upper bounds alone, and calls a flat simplex at a lower one a success.
    """
    return jax.vmap(box.reflect)(simplex)
