"""Sequential quadratic programming: each step is the solution of a quadratic model with linear rows."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.protocol import Defaults, Iterate, Method
from jaxmin._core.status import Status
from jaxmin.methods import _elastic, _quadratic_program
from jaxmin.methods._elastic import Change
from jaxmin.methods._fallback import or_else
from jaxmin.methods._quadratic_program import Program
from jaxmin.methods.interior_point import interior_point

# The constant of sufficient decrease.
_ARMIJO = 1e-4
_BACKTRACKS = 30
# A solve that takes more steps gets nowhere: so many, and so many for each variable.
_PATIENCE, _PER_VARIABLE = 200, 2
# The longest first step, relative to x.
_CAP = 10.0
# A violation that counts as none, in the scaled units of the rows.
_TINY = 1e-8
# How often nu may rise in one iteration.
_RISES = 4


class SlsqpState(NamedTuple):
    # changes with every step
    trial: Any  # [n]
    t: Any  # [] the step along d to the trial
    tries: Any  # [] int32: trials on this path before
    corrected: Any  # [] bool: the trial is a second-order correction
    # changes with every iterate
    iterate: Iterate
    rows: Any  # Rows
    J: Any  # [m, n]
    y: Any  # [2, m] multipliers of the last program
    z: Any  # [2, n]
    d: Any  # [n] its solution
    falls: Any  # [] how much the model of the merit function falls along d
    model: Any  # the ``Model`` at the iterate
    accepted: Any  # [] bool
    nit: Any  # [] int32
    steps: Any  # [] int32
    status: Any  # [] int32
    nu: Any  # []: the price of violation
    blocked: Any  # [] bool: no step lowers the violation of the linear rows much, at ten times the price neither
    cap: Any  # []: the longest step relative to x
    B: Any  # [n, n] the learnt Hessian of the Lagrangian at the iterate; None where it is exact
    # known after x0
    scale: Any  # [] of f
    unit: Any  # [m]

    @property
    def multipliers(self):
        """[m] v at the trial, if it becomes the iterate."""
        return -_elastic.net(self.y)

    @property
    def kkt(self):
        """What the tests read."""
        return _elastic.kkt(self)


@builder(aliases=("sqp",), spellings={"initial_constr_penalty": "nu"})
def slsqp(nu: float = 1.0, hessian: str = "exact") -> Method:
    r"""Sequential quadratic programming: few evaluations, for functions that cost much.

    Each iteration solves a quadratic program: the model of the Lagrangian, with the Hessian made convex where the
    active rows do not do that, and the rows linearised, each violation at a price :math:`\nu`. The step is the way to
    its solution. A step is accepted where :math:`f + \nu \sum` violations falls enough; else it is corrected to second
    order once, then shortened. The program is solved by an interior-point method of its own, whose iterations evaluate
    nothing. So a step of the loop costs more than one of :func:`~jaxmin.interior_point`, and there are fewer. Every
    point evaluated is within the bounds. The method is for n up to a few hundred.

    Args:
      nu: the first price of a violation, in units of f over those of the rows, both scaled to derivatives of at most
        100 at x0, > 0; 1 by default. It rises as needed.
      hessian: "exact" (default), or "bfgs": the Hessian of the Lagrangian is learnt from gradients, as SciPy's SLSQP
        does; ``hess="bfgs"`` in ``minimize`` sets it.

    Returns:
      A ``Method``. ``res.nfev`` counts its points, ``res.nhev`` its Hessians. The tolerances are those of
      ``interior_point``; ``ftol`` is off, unlike in SciPy.

    Raises:
      ValueError: for an argument out of its range.

    >>> import jax.numpy as jnp, jaxmin
    >>> circle = {"type": "ineq", "fun": lambda x: 1 - x @ x}
    >>> res = jaxmin.minimize(lambda x: x[0] + 2 * x[1], [1.0, 1.0], method="SLSQP", constraints=circle)
    >>> res.x.round(3).tolist(), int(res.status)
    ([-0.447, -0.894], 0)

    References:
      [1] J. Nocedal and S. J. Wright, Numerical Optimization, 2nd ed., 2006, Chapter 18.
      [2] R. H. Byrd, J. Nocedal and R. A. Waltz, Steering exact penalty methods for nonlinear programming, Optim.
      Methods Softw. 23 (2008), 197-213.
    """
    _elastic.check(nu=nu, hessian=hessian)

    def init(x, /, *, constraints, box):
        B = None if hessian == "exact" else jnp.eye(x.size, dtype=x.dtype)
        return _start(box.clip(x), constraints, nu)._replace(B=B)

    def update(grad, state, params, /, *, value, constraints, constraint_jacobian, box, lagrangian_hessian=None, **_):
        at = Iterate(params, jnp.asarray(value, state.iterate.f.dtype), grad)
        s = _elastic.sides(constraints, box, params)
        first, J, H = state.nit < 0, constraint_jacobian, lagrangian_hessian
        if H is None:
            H = _elastic.learnt_at(state, at, J, state.y)
        state = _elastic.scaled(state, grad, J, constraints)
        state = state._replace(nu=jnp.where(first, _elastic.above_multipliers(state), state.nu))
        lower, corrects = _judge(state, at, constraints, J, H)
        accepted = first | lower
        state = _moved(state, at, constraints, J, accepted)
        state = _continued(s, state, at, constraints, H, accepted, corrects)
        if hessian == "bfgs":
            state = state._replace(B=jnp.where(accepted, H, state.B))
        return vec.sub(state.trial, params), state

    quadratic = Method(
        init,
        update,
        wants=_elastic.WANTS[hessian],
        warm_start=lambda state, multipliers, **_: _elastic.warm(state, multipliers, state.rows.equal),
        defaults=Defaults(limits=_elastic.TOLERANCES),
    )
    interior = interior_point(hessian=hessian)

    def begin(state, constraints, box):
        return interior.init(state.iterate.x, constraints=constraints, box=box)._replace(B=state.B)

    return or_else(quadratic, interior, begin)


def _start(x, rows, nu):
    """The state before x0."""
    m, n = rows.c.size, x.size
    dtype = vec.scalar_dtype(x)
    zero, one, count, no = jnp.zeros((), dtype), jnp.ones((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    y, z, J, d = jnp.zeros((2, m), dtype), jnp.zeros((2, n), dtype), jnp.zeros((m, n), dtype), jnp.zeros(n, dtype)
    return SlsqpState(
        trial=x, t=one, tries=count, corrected=no, iterate=Iterate(x, zero, d), rows=rows, J=J, y=y, z=z, d=d,
        falls=zero, model=Model(jnp.eye(n, dtype=dtype), d, y, z), accepted=no, blocked=no, nit=count - 1, steps=count,
        status=jnp.full((), Status.RUNNING, jnp.int32), nu=zero + nu, cap=zero + _CAP, scale=one,
        unit=jnp.ones(m, dtype), B=None,
    )  # fmt: skip


def _violation(state, rows):
    """The sum of all violations, each in the unit of its row."""
    return jnp.sum(rows.violations * state.unit)


def _judge(state, at, rows, J, H):
    """(lower, corrects): whether the merit function f + nu * violation is low enough, else whether to correct once."""
    here = state.iterate.f + state.nu * _violation(state, state.rows)
    there = at.f + state.nu * _violation(state, rows)
    finite = jnp.isfinite(there)
    for part in (at.g, J, H):
        finite &= jnp.all(jnp.isfinite(part))
    noise = 10 * jnp.finfo(here.dtype).eps * jnp.abs(here)
    lower = (state.nit >= 0) & finite & (there <= here - _ARMIJO * state.t * state.falls + noise)
    violated = _violation(state, rows) > 1e-12 / state.scale
    corrects = (state.nit >= 0) & finite & ~lower & (state.tries == 0) & ~state.corrected & violated
    return lower, corrects


def _moved(state, at, rows, J, accepted):
    """The state at its next iterate."""
    x = state.iterate.x
    moved = _elastic.relative(at.x - x, x)
    searched = state.nit >= 0
    cap = jnp.where(state.t < 1, jnp.maximum(2 * moved, 1e-6), jnp.where(moved >= 0.9 * state.cap, 4, 1) * state.cap)
    cap = jnp.where(state.t < 1, cap, jnp.maximum(cap, jnp.minimum(_CAP, 4 * moved)))
    return state._replace(
        iterate=vec.where(accepted, at, state.iterate),
        rows=state.rows._replace(c=jnp.where(accepted, rows.c, state.rows.c)),
        J=jnp.where(accepted, J, state.J),
        accepted=accepted,
        nit=state.nit + accepted.astype(jnp.int32),
        cap=jnp.where(accepted & searched, cap, state.cap),
    )


class Model(NamedTuple):
    """The objective of a program, g.d + d.M d / 2, with a term rho (h + J d)^2 / 2 for what is predicted to be active.

    The term is 0 where the row holds; what is left of it is a part of the row's multiplier.
    """

    M: Any  # [n, n]
    g: Any  # [n]
    of_rows: Any  # [2, m] rho of each row; 0 without the term
    of_bounds: Any  # [2, n]

    def multipliers(self, s, y, z, h, gap):
        """(y, z) with the parts of the terms, at the program's solution with the distances h and gap."""
        y = y - self.of_rows * jnp.where(s.on, h, 0)
        z = z - self.of_bounds * jnp.where(s.bounded, gap, 0)
        return jnp.where(s.equal, y, jnp.maximum(y, 0)), jnp.maximum(z, 0)


def _convex(s, state, H):
    """The ``Model`` with the curvature that the active rows allow, made convex [1, Section 18.2].

    Negative eigenvalues of the sum change their sign.
    """
    x, g, J = state.iterate.x, state.iterate.g, state.J
    tiny = jnp.finfo(g.dtype).tiny
    rho = 10 * jnp.maximum(vec.max_abs(H), 1e-8 / state.scale)
    h, gap = _elastic.heights(s, state.rows.c), _elastic.gaps(s, x)
    per_row = jnp.broadcast_to(rho / jnp.maximum(jnp.sum(J * J, axis=1), tiny), h.shape)
    # What an augmented Lagrangian with this rho predicts.
    per_row = jnp.where(s.equal | (s.on & (state.y > per_row * h)), per_row, 0)
    per_variable = jnp.where(s.bounded & (state.z > rho * gap), rho, 0)
    W = _elastic.condensed(s, _elastic.Barriers(None, None, per_row, per_variable), H, J)
    lam, V = jnp.linalg.eigh(W)
    lam = jnp.maximum(jnp.abs(lam), 1e-8 * jnp.maximum(vec.max_abs(H), 1 / state.scale))
    g = g + J.T @ _elastic.net(per_row * h) + _elastic.net(per_variable * gap)
    return Model((V * lam) @ V.T, g, per_row, per_variable)


def _linear_violation(s, state, program, d):
    """The sum of all violations of the linear rows at d, each in the unit of its row."""
    h = program.h + _elastic.signed(program.J @ d)
    return jnp.sum(state.unit * jnp.where(s.on, jnp.where(s.equal, jnp.abs(h), jnp.maximum(-h, 0)), 0))


class Solved(NamedTuple):
    """The solution of a program."""

    step: Change
    nu: Any  # [] the price that it has needed
    left: Any  # [] the violation that is left
    enough: Any  # [] bool: a larger nu would hardly lower it
    rises: Any  # [] int32


def _solved(s, state, program, nu):
    """The solution of a program for the least nu tried of those that lower the linear violation well [2]."""
    before = _linear_violation(s, state, program, jnp.zeros_like(program.g))
    highest = _elastic.highest(nu)

    def goes_on(solved):
        return ~solved.enough & (solved.rises <= _RISES)

    def again(solved):
        first = solved.rises == 0
        nu = jnp.where(first, solved.nu, jnp.minimum(10 * solved.nu, highest))
        w = _elastic.weights(s, 0, nu * state.unit)
        step = _quadratic_program.solve(s, w.p, w.w, program, state.scale)
        left = _linear_violation(s, state, program, step.x)
        # A price that does not help is not raised.
        helps = first | (left < 0.9 * solved.left)
        presses = _elastic.pressure(step.y, state.unit) > 0.9 * nu
        enough = (left <= 0.1 * before) | (left * state.scale <= _TINY) | ~presses | (nu >= highest) | ~helps
        new = Solved(step, nu, left, enough, solved.rises)
        new = vec.where(helps, new, solved._replace(enough=enough))
        return new._replace(rises=solved.rises + 1)

    no = jnp.zeros((), bool)
    begin = Solved(Change(state.d, state.y, state.z), nu, before, no, jnp.zeros((), jnp.int32))
    return lax.while_loop(goes_on, again, begin)


def _program(s, state, model, rows, corrects):
    """(program, own): the next ``Program``, and which of its bounds are those of x, not of the step's length."""
    x, J = state.iterate.x, state.J
    bent = _elastic.heights(s, rows.c) - jnp.where(s.on, _elastic.signed(J @ state.d), 0)
    h = jnp.where(corrects, bent, _elastic.heights(s, state.rows.c))
    reach = state.cap * jnp.maximum(jnp.abs(x), 1)
    bounds = jnp.stack([jnp.maximum(s.bounds[0] - x, -reach), jnp.minimum(s.bounds[1] - x, reach)])
    own = jnp.stack([bounds[0] > -reach, bounds[1] < reach])
    return Program(model.M, model.g, J, h, bounds), own & s.bounded


def _continued(s, state, at, rows, H, accepted, corrects):
    """The state with the next trial: the solution of a new program, of a corrected one, or a shorter step."""
    model = lax.cond(accepted, lambda: _convex(s, state, H), lambda: state.model)
    program, own = _program(s, state, model, rows, corrects)
    known = Solved(Change(state.d, state.y, state.z), state.nu, state.falls, accepted, state.tries)
    new = lax.cond(accepted | corrects, lambda: _solved(s, state, program, state.nu), lambda: known)
    new_path = _path(s, state, program, model, new._replace(step=new.step._replace(z=new.step.z * own)), H)
    state = vec.where(accepted, new_path, state)._replace(model=model)
    d = state.d
    shortens = ~accepted & ~corrects
    t = jnp.where(shortens, _shorter(state, at, rows), 1)
    little = _elastic.relative(t * d, state.iterate.x) < jnp.finfo(d.dtype).eps
    fails = shortens & (little | (state.tries > _BACKTRACKS))
    still = accepted & ~(_elastic.relative(d, state.iterate.x) > 10 * jnp.finfo(d.dtype).eps)
    stuck = accepted & state.blocked & (new.nu >= _elastic.highest(d))
    creeps = state.steps > _PATIENCE + _PER_VARIABLE * d.size
    return state._replace(
        trial=state.iterate.x + jnp.where(corrects, new.step.x, t * d),
        t=t,
        tries=jnp.where(accepted, 0, state.tries + shortens.astype(jnp.int32)),
        corrected=corrects,
        steps=state.steps + 1,
        status=jnp.where(stuck | fails | still | creeps, _elastic.failure(state, state.blocked), Status.RUNNING),
    )


def _path(s, state, program, model, solved, H):
    """The state with the step to the solution of a program, its multipliers and the price of violation."""
    (d, y, z), g = solved.step, state.iterate.g
    y, z = model.multipliers(s, y, z, program.h + _elastic.signed(program.J @ d), _elastic.gaps(s, state.iterate.x + d))
    before = _linear_violation(s, state, program, jnp.zeros_like(d))
    gain = before - solved.left
    # The price for which the merit function falls along d [1, (18.36)].
    bend = vec.dot(d, jnp.nan_to_num(H) @ d)
    needed = 1.5 * (vec.dot(g, d) + jnp.maximum(bend, 0) / 2) / jnp.maximum(gain, jnp.finfo(d.dtype).tiny)
    raised = jnp.maximum(solved.nu, jnp.minimum(needed, _elastic.highest(d)))
    nu = jnp.where(gain * state.scale > 1e-10, raised, solved.nu)
    return state._replace(
        d=d,
        y=y,
        z=z,
        nu=nu,
        falls=jnp.maximum(nu * gain - vec.dot(g, d), 0),
        blocked=(solved.left > 0.9 * before) & (before * state.scale > 100 * _TINY),
    )


def _shorter(state, at, rows):
    """The next t of a search: where the parabola through the values and the slope is least."""
    rise = at.f - state.iterate.f + state.nu * (_violation(state, rows) - _violation(state, state.rows))
    t = state.t
    t_q = t**2 * state.falls / (2 * (rise + t * state.falls))
    t_q = jnp.where(jnp.isfinite(t_q) & (state.falls > 0) & ~state.corrected, t_q, t / 2)
    return jnp.clip(t_q, t / 10, t / 2)
