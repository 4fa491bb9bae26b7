"""Powell's method of conjugate directions, without gradients."""

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
from jaxmin.methods import _brent
from jaxmin.methods._noise_floor import unit

# The default tolerance of x.
_XTOL = 1e-4
# Line searches, and the test on how far a cycle moves x, use this many times xtol.
_COARSE = 100
# A decrease of f in a cycle below half of this counts as 0, however small f is, as in SciPy.
_ZERO_CHANGE = 1e-20
# A distance along a direction below this counts as 0, as in SciPy.
_LEAST = 1e-11


class PowellState(NamedTuple):
    # changes with every trial
    trial: Any  # [n] the point to evaluate next: origin + search.step * d
    search: Any  # a ``_brent.Search`` along d
    iterate: Iterate  # the lowest point yet; g is None
    accepted: Any  # [] bool: it is the trial given last
    # changes with every line
    line: Any  # [] int32: the direction searched; n: the point beyond the cycle is tried; n + 1: a search from there
    origin: Any  # [n]
    d: Any  # [n]
    f_origin: Any  # [] f there
    decrease: Any  # [] the largest along one direction in this cycle
    largest: Any  # [] int32: that direction
    # changes with every cycle
    x0: Any  # [n] where the last cycle ended
    f0: Any  # [] f where this one began
    directions: Any  # [n, n] one per row
    finite: Any  # [] bool: f was finite at another point than x0
    spread: Any  # (df, dx): the relative changes of f and x in the last cycle, that of x divided by 100
    nit: Any  # [] int32: cycles; -1 before x0
    status: Any  # [] int32


def _directions(direc):
    """The directions as a tuple, which can be compared, unless they are traced."""
    if direc is None:
        return None
    try:
        known = direc if isinstance(direc, jax.core.Tracer) else np.asarray(direc, float)
    except (TypeError, ValueError):
        raise TypeError(f"direc={direc!r}: give an array [n, n] of numbers, one direction per row") from None
    if known.ndim != 2 or known.shape[0] != known.shape[1]:
        raise ValueError(f"direc: its shape is {list(known.shape)}; give an array [n, n], one direction per row")
    if isinstance(known, jax.core.Tracer):
        return known
    if not np.all(np.isfinite(known)) or np.linalg.matrix_rank(known) < len(known):
        raise ValueError(
            f"direc={known.tolist()}: give finite and linearly independent directions, so that every x can be reached"
        )
    return tuple(map(tuple, known.tolist()))


@builder(
    tol=("ftol", "xtol"),
    limits={"ftol": 1e-4, "xtol": _XTOL, "maxiter": PerVariable(1000), "maxfun": PerVariable(1000)},
    converters={"direc": _directions},
)
def powell(direc: ArrayLike | None = None) -> Method:
    r"""Powell's method, for functions without a gradient: it searches one line after another for its lowest point.

    An iteration is a cycle of line searches along n directions, which are the axes at first. Then the method tries the
    point as far again beyond the end of the cycle. If Powell's test says so, it also searches the line through that
    point, and this line replaces the direction of the largest decrease [1; 2, eq. (10.7.7)]. NaN counts as infinity. A
    line is searched by Brent's method [3] to within 100 xtol of the distance moved along it. In a box a line is bent
    along the bounds.

    A solve ends when a cycle lowers f by no more than ftol, relative to the mean of \|f\| before and after, and moves x
    by no more than 100 xtol, relative to max(\|x\|, 1); SciPy has no test on x. Both tolerances are 1e-4 by default. It
    also ends after 1000 n iterations or evaluations.

    Args:
      direc: the first directions, an array [n, n] in units of x, one per row. The length of a row is the first step
        along it. By default (None) they are the axes.

    Returns:
      A ``Method`` that needs only the value: no gradient is ever traced.

    Raises:
      ValueError: if ``direc`` is not square, not finite or singular; at x0, if it has another size than x0.
      TypeError: if ``direc`` does not hold numbers.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: (x[0] - 1) ** 2 + jnp.abs(x[1] - x[0]), [0.0, 3.0], method="powell")
    >>> res.success, res.x.round(2).tolist(), res.jac is None
    (True, [1.0, 1.0], True)

    References:
      [1] M. J. D. Powell, Computer Journal 7 (1964), 155-162.
      [2] W. H. Press et al., Numerical Recipes, third edition, 2007, section 10.7.
      [3] R. P. Brent, Algorithms for Minimization without Derivatives, 1973, chapter 5.
    """
    return _build(direc)


def _build(direc):
    def init(params):
        n, dtype = params.size, vec.scalar_dtype(params)
        zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        no = jnp.zeros((), bool)
        return PowellState(
            trial=params,
            search=_brent.begin(zero, zero, zero, zero),
            iterate=Iterate(params, zero, None),
            accepted=no,
            line=count,
            origin=params,
            d=jnp.zeros_like(params),
            f_origin=zero,
            decrease=zero,
            largest=count,
            x0=params,
            f0=zero,
            directions=jnp.eye(n, dtype=params.dtype) if direc is None else _as_array(direc, params),
            finite=no,
            spread=(zero + jnp.inf, zero + jnp.inf),
            nit=count - 1,
            status=count + Status.RUNNING,
        )

    def update(grad, state, params, /, *, value, box=Unbounded(), xtol=None, **_):
        del grad
        dtype, at_x0 = state.f0.dtype, state.nit < 0
        value = value.astype(dtype) if value.dtype != dtype else value
        f = jnp.where(jnp.isnan(value), jnp.inf, value)
        accepted = at_x0 | ~(state.iterate.f <= f)
        x, fx, _ = iterate = vec.where(accepted, Iterate(params, value, None), state.iterate)

        finite = state.finite | (~at_x0 & jnp.isfinite(f))
        line_search = _brent.advance(state.search, f, _line_tol(xtol, dtype), unit(value, dtype), _ZERO_CHANGE / 2)
        line = _line_after(state, f, line_search.done)
        cycle = _cycle_after(state, line.ended, x, fx)
        begins = line.ended & (at_x0 | (state.line >= state.d.size))
        directions = _directions_after(state, line, cycle.largest, begins, x)

        number = jnp.where(begins, 0, jnp.where(line.ended | line.extends, state.line + 1, state.line))
        number = number.astype(jnp.int32)
        origin = jnp.where(line.ended, x, state.origin)
        # The first trial beyond a cycle is as far again as the cycle went.
        d = jnp.where(line.ended, jnp.where(cycle.complete, cycle.move, _row(directions, number)), state.d)
        search = vec.where(line.ended, _brent.begin(fx, *_extent(origin, d, box, dtype)), line_search)
        trial = _point(origin, d, search.step, box)

        state = PowellState(
            trial=trial,
            search=search,
            iterate=iterate,
            accepted=accepted,
            line=number,
            origin=origin,
            d=d,
            f_origin=jnp.where(line.ended, fx, state.f_origin),
            decrease=jnp.where(begins, 0, cycle.decrease),
            largest=jnp.where(begins, 0, cycle.largest),
            x0=jnp.where(cycle.complete | at_x0, x, state.x0),
            f0=jnp.where(begins, fx, state.f0),
            directions=directions,
            finite=finite,
            spread=vec.where(cycle.complete & finite, cycle.spread, state.spread),
            nit=state.nit + (at_x0 | cycle.complete).astype(jnp.int32),
            status=jnp.where(cycle.complete & ~finite, Status.NAN, state.status).astype(jnp.int32),
        )
        return trial - params, state

    return Method(init, update, wants=frozenset({"box", "xtol"}))


class Line(NamedTuple):
    """The line after a trial."""

    ended: Any  # [] bool: its search is over
    beyond: Any  # [] bool: the trial was the point beyond the cycle
    worth: Any  # [] bool: Powell's test says that the line through that point is worth a search
    extends: Any  # [] bool: that search goes on


class Cycle(NamedTuple):
    """The cycle after a trial."""

    decrease: Any  # [] the largest along one direction
    largest: Any  # [] int32: that direction
    complete: Any  # [] bool: the line was the last of the cycle
    move: Any  # [n] how far the cycle has moved x
    spread: Any  # (df, dx) as in the state


def _line_tol(xtol, dtype):
    """The tolerance of a line search; xtol is None or negative where it is not set."""
    xtol = _XTOL if xtol is None else jnp.where(xtol < 0, _XTOL, xtol)
    return jnp.maximum(_COARSE * xtol, float(jnp.finfo(dtype).eps) ** 0.5).astype(dtype)


def _line_after(state, f, done):
    """Whether the search of the line goes on after a trial with value f."""
    beyond = state.line == state.d.size
    worth = _worth(state.f0, state.iterate.f, f, state.decrease)
    ended = (state.nit < 0) | done | (beyond & ~worth)
    return Line(ended, beyond, worth, beyond & worth)


def _cycle_after(state, ended, x, fx):
    """Which direction gave the largest decrease, and whether the cycle is complete."""
    n, at_x0 = state.d.size, state.nit < 0
    gain = state.f_origin - fx
    most = ended & (state.line < n) & (gain > state.decrease)
    decrease, largest = jnp.where(most, gain, state.decrease), jnp.where(most, state.line, state.largest)
    complete = ended & ~at_x0 & (state.line == n - 1)
    move = x - state.x0
    spread = _relative_decrease(state.f0, fx), vec.max_abs(move) / jnp.maximum(vec.max_abs(x), 1) / _COARSE
    return Cycle(decrease, largest, complete, move, spread)


def _directions_after(state, line, largest, begins, x):
    """The directions of the next cycle: the line beyond the last one replaces the direction of largest decrease."""
    n, at_x0 = state.d.size, state.nit < 0
    along = x - state.origin
    extended = begins & ~at_x0 & (line.worth | ~line.beyond) & jnp.any(along != 0)
    directions = vec.write_row(state.directions, largest, _row(state.directions, n - 1), when=extended)
    return vec.write_row(directions, n - 1, along, when=extended)


def _as_array(direc, params):
    direc = jnp.asarray(direc, params.dtype)
    if len(direc) != params.size:
        raise ValueError(f"direc: {len(direc)} directions, for {params.size} variables in x0; give one per variable")
    return direc


def _row(directions, i):
    """A row of the directions, as a masked sum: under vmap it does not become a gather."""
    hot = jnp.arange(len(directions)) == i
    return jnp.sum(jnp.where(hot[:, None], directions, 0), axis=0)


def _worth(f0, f, f_beyond, decrease):
    """Powell's test: whether the line through the point beyond the cycle is worth a search [2, eq. (10.7.7)].

    It is not if f there is no lower than at the start of the cycle, if one direction gave most of the decrease, or if f
    curves upwards so much that little is left to gain. All is in units of the cycle's decrease, to avoid overflow.
    """
    whole = f0 - f
    in_units = lambda change: jnp.where(whole > 0, change / jnp.where(whole > 0, whole, 1), jnp.inf)
    curved = in_units(f0 - f + (f_beyond - f))
    others = 1 - in_units(decrease)
    return (f_beyond < f0) & (2 * curved * others**2 < in_units(decrease) * in_units(f0 - f_beyond) ** 2)


def _relative_decrease(before, after):
    decrease, mean = before - after, jnp.abs(before) / 2 + jnp.abs(after) / 2
    some = decrease > _ZERO_CHANGE / 2
    return jnp.where(some, decrease / jnp.where(some, mean, 1), 0)


def _extent(x, d, box, dtype):
    """How far the line x + t d, bent along the bounds, extends to either side, and the least distance that moves x.

    If the line ended where it leaves the box, one coordinate at its bound would stop the search along all others.
    """
    moves = d != 0
    any_moves = jnp.any(moves)
    safe = jnp.where(moves, d, 1)
    resolved = jnp.finfo(x.dtype).eps * jnp.min(jnp.where(moves, jnp.abs(x / safe), jnp.inf), initial=jnp.inf)
    least = jnp.where(any_moves, resolved, 0).astype(dtype) + _LEAST
    if not box.bounded:
        upper = jnp.where(any_moves, jnp.inf, 0).astype(dtype)
        return -upper, upper, least
    up, down = (jnp.where(moves, jnp.abs((_ahead(box, s * d) - x) / safe), 0) for s in (1, -1))
    return -jnp.max(down, initial=0).astype(dtype), jnp.max(up, initial=0).astype(dtype), least


def _ahead(box, d):
    """The bounds that lie in the direction d."""
    return jnp.where(d > 0, box.upper, box.lower)


def _point(x, d, t, box):
    """x + t d; a coordinate that reaches its bound stays there, exactly."""
    point = vec.axpy(t, d, x)
    if not box.bounded:
        return point
    moves = d != 0
    bound = _ahead(box, t.astype(d.dtype) * d)
    reached = moves & (jnp.abs(t) >= jnp.abs((bound - x) / jnp.where(moves, d, 1)))
    return box.clip(jnp.where(reached & (t != 0), bound, point))
