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

# The edges of the first simplex, as in SciPy: relative, and absolute where a coordinate of x0 is 0.
_EDGE, _EDGE_AT_0 = 0.05, 0.00025


class NelderMeadState(NamedTuple):
    # changes with every trial
    trial: Any  # [n] the point to evaluate next
    phase: Any  # [] int32: what it is
    vertex: Any  # [] int32: which vertex it is, while the simplex is built or shrunk
    iterate: Iterate  # the lowest point yet; g is None
    accepted: Any  # [] bool: it is the trial given last
    # changes within an iteration
    xr: Any  # [n] the reflected point
    fr: Any  # [] f there
    # changes with every iteration; in order of f, except while the simplex is built or shrunk
    simplex: Any  # [n+1, n]
    values: Any  # [n+1] inf for NaN
    spread: Any  # (df, dx): the largest distances from the lowest vertex, at the end of the last iteration
    nit: Any  # [] int32: iterations; building the simplex counts as one; -1 before x0
    status: Any  # [] int32


def _vertices(vertices):
    """The vertices as a tuple, which can be compared, unless they are traced."""
    if vertices is None:
        return None
    try:
        shape = np.shape(vertices)
        known = vertices if isinstance(vertices, jax.core.Tracer) else np.asarray(vertices, float)
    except (TypeError, ValueError):
        raise TypeError(f"initial_simplex={vertices!r}: give an array [n+1, n] of numbers") from None
    if len(shape) != 2 or shape[0] != shape[1] + 1:
        raise ValueError(f"initial_simplex: its shape is {list(shape)}; give an array [n+1, n]")
    return tuple(map(tuple, known.tolist())) if isinstance(known, np.ndarray) else known


@builder(
    tol=("ftol", "xtol"),
    limits={"ftol": 1e-4, "xtol": 1e-4, "maxiter": PerVariable(200), "maxfun": PerVariable(200)},
    absolute=True,
    converters={"initial_simplex": _vertices},
)
def nelder_mead(adaptive: bool = False, initial_simplex: ArrayLike | None = None) -> Method:
    r"""Nelder and Mead's simplex, for functions without a gradient: it only compares values.

    An iteration reflects the highest of n + 1 vertices at the centroid of the others, and expands, contracts or shrinks
    the simplex by SciPy's rules [1]. NaN counts as infinity. A solve ends when all values are within ftol of the lowest
    one and all vertices within xtol of the lowest one (SciPy's fatol and xatol; both are 1e-4 by default), or after
    200 n iterations or evaluations. If f has the same value at all vertices of the first simplex, the solve ends with
    status 2. In a box each trial is moved to the nearest point inside, and the first simplex is
    reflected at the bounds.

    Args:
      adaptive: True makes expansion, contraction and shrinking gentler as n grows [2]; False by default.
      initial_simplex: the vertices, an array [n+1, n] in units of x, used instead of x0. By default (None) they are x0
        and, for each coordinate, x0 with that coordinate 5 % larger, or 0.00025 if it is 0.

    Returns:
      A ``Method`` that needs only the value: no gradient is ever traced.

    Raises:
      ValueError: if ``initial_simplex`` has another shape; at x0, if it has another number of coordinates than x0.
      TypeError: if ``initial_simplex`` does not hold numbers, or ``adaptive`` is not True or False.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.max(jnp.abs(x - 1)), [0.0, 3.0], method="nelder-mead")
    >>> res.success, res.x.round(3).tolist(), res.jac is None
    (True, [1.0, 1.0], True)

    References:
      [1] J. A. Nelder and R. Mead, Computer Journal 7 (1965), 308-313.
      [2] F. Gao and L. Han, Comput. Optim. Appl. 51 (2012), 259-277, eq. (4.1).
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
        at_x0 = state.nit < 0
        value = value.astype(state.fr.dtype)
        f = jnp.where(jnp.isnan(value), jnp.inf, value)
        built = _first_simplex(params, box) if vertices is None else _inside(_as_array(vertices, params), box)
        simplex = jnp.where(at_x0, built, state.simplex)
        outcome = _outcome(state, f)
        simplex, values = _placed(state, params, f, simplex, outcome, adaptive)
        spread = vec.max_abs(values[1:] - values[0]), vec.max_abs(simplex[1:] - simplex[:1])
        # A first simplex on which f has one value shows no direction, and would only shrink.
        level = (state.phase == _BUILD) & outcome.ended & jnp.all(values == values[0]) & (len(values) > 1)
        trial, vertex = _next_trial(state, simplex, outcome, adaptive)
        trial = box.clip(trial)
        phase = _next_phase(state, outcome)

        accepted = at_x0 | ~(state.iterate.f <= f)
        state = NelderMeadState(
            trial=trial,
            phase=phase,
            vertex=vertex,
            iterate=vec.where(accepted, Iterate(params, value, None), state.iterate),
            accepted=accepted,
            xr=jnp.where(state.phase == _REFLECT, params, state.xr),
            fr=jnp.where(state.phase == _REFLECT, f, state.fr),
            simplex=simplex,
            values=values,
            spread=vec.where(outcome.ended & ~level, spread, state.spread),
            nit=state.nit + (at_x0 | outcome.ended).astype(jnp.int32),
            status=jnp.where(level, Status.PRECISION_LOSS, state.status).astype(jnp.int32),
        )
        return trial - params, state

    return Method(init, update, wants=frozenset({"box"}))


def _factors(n, adaptive):
    """How far the simplex expands (chi), contracts (psi) and shrinks (sigma) [2, eq. (4.1)]."""
    return (1 + 2 / n, 0.75 - 1 / (2 * n), 1 - 1 / n) if adaptive and n else (2, 0.5, 0.5)


class Outcome(NamedTuple):
    """What follows from the value at a trial."""

    filling: Any  # [] bool: the trial is a vertex of a simplex that is built or shrunk
    expand: Any  # [] bool: the reflected point is the lowest; try one farther out
    outside: Any  # [] bool: contract between the reflected point and the centroid
    inside: Any  # [] bool: contract between the highest vertex and the centroid
    shrink: Any  # [] bool: the contraction failed
    replaced: Any  # [] bool: the trial, or the reflected point, replaces the highest vertex
    ended: Any  # [] bool: the iteration is complete


def _outcome(state, f):
    """Compare f at the trial with the vertices."""
    n = len(state.values) - 1
    lowest, second, highest = state.values[0], state.values[max(n - 1, 0)], state.values[n]
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
    return Outcome(filling, expand, outside, inside, shrink, replaced, ended)


def _placed(state, x, f, simplex, outcome, adaptive):
    """The simplex and its values with the trial in its place: in order if the iteration ended, or shrunk."""
    n = len(state.values) - 1
    _, _, sigma = _factors(n, adaptive)
    reflected = (state.phase == _EXPAND) & (f >= state.fr)  # the reflected point is lower than the expanded one
    x, fx = jnp.where(reflected, state.xr, x), jnp.where(reflected, state.fr, f)
    slot = jnp.where(outcome.filling, state.vertex, n)
    simplex = vec.write_row(simplex, slot, x, when=outcome.filling | outcome.replaced)
    values = vec.write_row(state.values, slot, fx, when=outcome.filling | outcome.replaced)
    order = jnp.where(outcome.ended, jnp.argsort(values, stable=True), jnp.arange(n + 1))
    simplex, values = simplex[order], values[order]
    return jnp.where(outcome.shrink, simplex[:1] + sigma * (simplex - simplex[:1]), simplex), values


def _next_trial(state, simplex, outcome, adaptive):
    """The next trial, and which vertex it is.

    It is x + t (x - highest), with the centroid x of the other vertices, or a vertex while the simplex is built or
    shrunk.
    """
    n = len(simplex) - 1
    chi, psi, _ = _factors(n, adaptive)
    _, expand, outside, inside, shrink, _, ended = outcome
    centroid = jnp.sum(simplex[:-1], axis=0) / max(n, 1)
    t = jnp.where(expand, chi, jnp.where(outside, psi, jnp.where(inside, -psi, 1))).astype(simplex.dtype)
    vertex = jnp.where(outcome.filling, state.vertex + 1, 1).astype(jnp.int32) % (n + 1)
    fills = shrink | (outcome.filling & ~ended)
    return jnp.where(fills, simplex[vertex], (1 + t) * centroid - t * simplex[-1]), vertex


def _next_phase(state, outcome):
    """What the next trial is."""
    phase = state.phase
    _, expand, outside, inside, shrink, _, _ = outcome
    for holds, then in ((expand, _EXPAND), (outside, _OUTSIDE), (inside, _INSIDE), (shrink, _SHRINK)):
        phase = jnp.where(holds, then, phase)
    return jnp.where(outcome.ended, _REFLECT, phase).astype(jnp.int32)


def _as_array(vertices, params):
    vertices = jnp.asarray(vertices, params.dtype)
    if vertices.shape[1] != params.size:
        raise ValueError(
            f"initial_simplex: {vertices.shape[1]} coordinates, for {params.size} variables in x0; give n + 1 vertices"
        )
    return vertices


def _first_simplex(x0, box):
    moved = jnp.where(x0 == 0, _EDGE_AT_0, (1 + _EDGE) * x0).astype(x0.dtype)
    edges = jnp.where(jnp.eye(x0.size, dtype=bool), moved, x0[None])
    return _inside(jnp.concatenate([x0[None], edges]), box)


def _inside(simplex, box):
    """The vertices reflected into the box, so that the simplex does not become flat.

    SciPy reflects at upper bounds only, and reports success for a simplex that is flat at a lower bound.
    """
    return jax.vmap(box.reflect)(simplex)
