"""Derivatives of constrained solutions agree with differences and closed forms, and are NaN where there are none.

The problems are from W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, each with two
parameters. They are padded to one size, so that one program solves several of them.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import asks_for, assert_close, mostly_float64

from jaxmin import Bounds, LinearConstraint, NonlinearConstraint, minimize
from jaxmin._cache.registry import entries

TOLERANCES = {"float64": {"rtol": 1e-5, "atol": 1e-5}, "float32": {"rtol": 2e-2, "atol": 2e-2}}
TIGHT = {"gtol": 1e-10, "ctol": 1e-11, "barrier_tol": 1e-11}
N, M = 4, 3
INF = np.inf


class Problem(NamedTuple):
    """min f(x, p) for lower <= x <= upper and lb <= c(x, p) <= ub, near p = (1, 0)."""

    f: Any
    c: Any
    x0: Any
    lb: Any
    ub: Any
    lower: Any = -INF
    upper: Any = INF


def hs71_f(x, p):
    return p[0] * x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2] + p[1] * x[1]


def hs71_c(x, p):
    return jnp.prod(x) + p[1], x @ x * p[0]


def hs76_f(x, p):
    squares = x[0] ** 2 + 0.5 * x[1] ** 2 + x[2] ** 2 + 0.5 * x[3] ** 2
    return squares - x[0] * x[2] + x[2] * x[3] - p[0] * x[0] - 3 * x[1] + (1 + p[1]) * x[2] - x[3]


def hs76_c(x, p):
    return p[0] * x[0] + 2 * x[1] + x[2] + x[3], 3 * x[0] + x[1] + 2 * x[2] - x[3], x[1] + 4 * x[2] + p[1]


PROBLEMS = {
    "HS6, an equality": Problem(
        lambda x, p: (p[0] - x[0]) ** 2 + p[1] * x[1],
        lambda x, p: (10 * (x[1] - p[0] * x[0] ** 2),),
        (-1.2, 1.0), 0.0, 0.0,
    ),
    "HS7, an equality that bends": Problem(
        lambda x, p: jnp.log(p[0] + x[0] ** 2) - x[1] + p[1] * x[0],
        lambda x, p: ((1 + x[0] ** 2) ** 2 + p[0] * x[1] ** 2,),
        (2.0, 2.0), 4.0, 4.0,
    ),
    "HS12, at the upper one of two limits": Problem(
        lambda x, p: 0.5 * x[0] ** 2 + x[1] ** 2 - p[0] * x[0] * x[1] - 7 * x[0] - (7 + p[1]) * x[1],
        lambda x, p: (4 * p[0] * x[0] ** 2 + x[1] ** 2,),
        (0.5, 0.5), 10.0, 25.0,
    ),
    "HS12 turned over, at the lower one of two limits": Problem(
        lambda x, p: 0.5 * x[0] ** 2 + x[1] ** 2 - p[0] * x[0] * x[1] - 7 * x[0] - (7 + p[1]) * x[1],
        lambda x, p: (-4 * p[0] * x[0] ** 2 - x[1] ** 2,),
        (0.5, 0.5), -25.0, 3.0,
    ),
    "HS14, an equality and an inequality": Problem(
        lambda x, p: (x[0] - 2 * p[0]) ** 2 + (x[1] - 1 - p[1]) ** 2,
        lambda x, p: (x[0] - 2 * x[1], -0.25 * p[0] * x[0] ** 2 - x[1] ** 2),
        (2.0, 2.0), (-1.0, -1.0), (-1.0, INF),
    ),
    "HS21, a bound and a row that holds nothing": Problem(
        lambda x, p: 0.01 * x[0] ** 2 + (x[1] - p[1]) ** 2 * p[0] - 100,
        lambda x, p: (10 * p[0] * x[0] - x[1],),
        (3.0, -1.0), 10.0, 90.0, (2.0, -50.0), 50.0,
    ),
    "HS35, a row and bounds that hold nothing": Problem(
        lambda x, p: 9 - 8 * x[0] - 6 * x[1] - 4 * x[2] + 2 * x[0] ** 2 + 2 * x[1] ** 2 + x[2] ** 2
        + 2 * p[0] * x[0] * x[1] + (2 + p[1]) * x[0] * x[2],
        lambda x, p: (x[0] + x[1] + 2 * p[0] * x[2],),
        (0.5, 0.5, 0.5), -INF, 3.0, 0.0, INF,
    ),
    "HS43, rows of both kinds": Problem(
        lambda x, p: x @ x + x[2] ** 2 - 5 * p[0] * x[0] - 5 * x[1] - 21 * x[2] + (7 + p[1]) * x[3],
        lambda x, p: (
            x @ x + x[0] - x[1] + x[2] - x[3],
            x @ x + x[1] ** 2 + x[3] ** 2 - x[0] - p[0] * x[3],
            x @ x + x[0] ** 2 - x[3] ** 2 + 2 * x[0] - x[1] - (1 + p[1]) * x[3],
        ),
        (0.1, 0.2, 0.3, 0.4), -INF, (8.0, 10.0, 5.0),
    ),
    "HS71, a bound, an equality and an inequality": Problem(
        hs71_f, hs71_c, (1.0, 5.0, 5.0, 1.0), (25.0, 40.0), (INF, 40.0), 1.0, 5.0
    ),
    "HS76, rows and a bound": Problem(
        hs76_f, hs76_c, (0.5, 0.5, 0.5, 0.5), (-INF, -INF, 1.5), (5.0, 4.0, INF), 0.0, INF
    ),
    "HS76, a fixed variable": Problem(
        hs76_f, hs76_c, (0.5, 0.5, 0.5, 0.5), (-INF, -INF, 1.5), (5.0, 4.0, INF), (0.0, 0.0, 0.3, 0.0),
        (9.0, 9.0, 0.3, 9.0),
    ),
}  # fmt: skip


def padded(values, size, rest):
    """A vector of that size, for a number or the first of its elements."""
    values = np.atleast_1d(np.asarray(values, float))
    return np.concatenate([values, np.full(size - values.size, rest)])


def data(problem):
    """x0, lower, upper, lb, ub of a problem. What is added is fixed, or has no limits."""
    n, m = len(problem.x0), len(problem.c(jnp.zeros(len(problem.x0)), jnp.zeros(2)))
    spread = lambda values, size: np.broadcast_to(values, size)
    return (
        padded(problem.x0, N, 0), padded(spread(problem.lower, n), N, 0), padded(spread(problem.upper, n), N, 0),
        padded(spread(problem.lb, m), M, -INF), padded(spread(problem.ub, m), M, INF),
    )  # fmt: skip


def branch(problem, part):
    """f or c of a problem as a function of (x, p) of the common size."""

    def function(x, p):
        x = x[: len(problem.x0)]
        if part == "f":
            return problem.f(x, p)
        c = jnp.stack(problem.c(x, p))
        return jnp.concatenate([c, jnp.zeros(M - c.size, c.dtype)])

    return function


# A program for each third of the problems. The first third is solved by default, the others with `pytest -m slow`.
GROUPS = 3
F, C = (
    [[branch(problem, part) for problem in list(PROBLEMS.values())[group::GROUPS]] for group in range(GROUPS)]
    for part in "fc"
)
THETA = {"p": 2, "lower": N, "upper": N, "lb": M, "ub": M}


def moved(low, high, low_dot, high_dot):
    """Both limits, each with its change; equal ones move together."""
    return low + low_dot, high + jnp.where(low == high, low_dot, high_dot)


def solved(group, number, x0, lower, upper, lb, ub, theta, **options):
    """All that has derivatives of a problem's solution, for changes theta of its parameters and limits, end to end."""
    p, *changes = jnp.split(theta, np.cumsum(list(THETA.values()))[:-1])
    p = p + jnp.array([1, 0], p.dtype)
    lower, upper = moved(lower, upper, *changes[:2])
    lb, ub = moved(lb, ub, *changes[2:])
    res = minimize(
        lambda x, p, number: jax.lax.switch(number, F[group], x, p), x0, args=(p, number), bounds=Bounds(lower, upper),
        constraints=NonlinearConstraint(lambda x: jax.lax.switch(number, C[group], x, p), lb, ub), options=options,
    )  # fmt: skip
    return {"x": res.x, "fun": res.fun, "constr": res.constr[0], "v": res.v[0], "w": res.v[1]}, res.success


def both_modes(solution, at):
    """What a function gives, and its Jacobians in forward and in reverse mode, with one solve."""
    value, push, aux = jax.linearize(solution, at, has_aux=True)
    # One entry at a time: in reverse mode 0 times a NaN of another would be NaN.
    reverse = {entry: jax.jacrev(lambda dot, entry=entry: push(dot)[entry])(at) for entry in value}
    return (value, aux), jax.jacfwd(push)(at), reverse


H = 1e-4


@functools.partial(jax.jit, static_argnums=0)
def compared(group, number, *given):
    """The solution, its Jacobians in both modes and by differences, and whether all solves were successes."""
    of = functools.partial(solved, group, number, *given, **TIGHT)
    size = sum(THETA.values())
    steps = H * jnp.eye(size)
    # One loop for all that is solved, so that it is compiled once.
    at = jnp.concatenate([jnp.zeros((1, size)), steps, -steps])
    (around, successes), *jacobians = jax.lax.map(functools.partial(both_modes, of), at)
    by_differences = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf[1 : 1 + size] - leaf[1 + size :], 0, -1) / (2 * H), around
    )
    solution, jacobians = jax.tree.map(lambda leaf: leaf[0], (around, jacobians))
    return solution, jacobians, by_differences, jnp.all(successes)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if i % GROUPS else ()) for i, name in enumerate(PROBLEMS)]
)
def test_derivatives_agree_with_differences(name):
    """By the parameters, the bounds and the limits of the rows; of x, the value, the rows and all multipliers."""
    number, group = divmod(list(PROBLEMS).index(name), GROUPS)
    solution, (forward, reverse), by_differences, success = compared(group, number, *data(PROBLEMS[name]))
    assert success
    assert_close(reverse, forward, rtol=1e-8, atol=1e-8)
    for entry in forward:
        assert_close(forward[entry], by_differences[entry], rtol=1e-5, atol=1e-5, err_msg=entry)
    # A multiplier is a price: what the value loses for one unit more of its limit.
    _, lower, upper, lb, ub = jnp.split(forward["fun"], np.cumsum(list(THETA.values()))[:-1])
    assert_close((lower + upper, lb + ub), (-solution["w"], -solution["v"]), rtol=1e-5, atol=1e-5)


# ---- quadratic programs with answers of their own, some of which have no derivative


class Quadratic(NamedTuple):
    """min x.Qx / 2 - t.x for lb <= A x <= ub, from x0."""

    Q: Any
    t: Any
    A: Any
    lb: Any
    ub: Any
    x0: Any = (0.1, 0.2)


class Lane(NamedTuple):
    """A quadratic program, the rows that hold its solution, and when the solve stops."""

    of: Quadratic
    active: Any = (0, 0)  # -1 at the lower limit, 1 at the upper one
    ftol: float = -1.0
    maxiter: int = 100


ROUND = ((2.0, 0.5), (0.5, 1.0))
TWO = ((1.0, 1.0), (1.0, -1.0))
UP = (-INF, -INF)
LANES = {
    "a row": Lane(Quadratic(ROUND, (4.0, 2.0), TWO, UP, (1.0, 5.0)), (1, 0)),
    "the lower one of two limits": Lane(Quadratic(ROUND, (4.0, 2.0), TWO, (-9.0, 2.0), (9.0, 3.0)), (0, -1)),
    "no row": Lane(Quadratic(ROUND, (0.1, 0.2), TWO, (-9.0, -9.0), (9.0, 9.0))),
    "a vertex of a linear program": Lane(Quadratic(np.zeros((2, 2)), (4.0, 2.0), TWO, UP, (1.0, 0.5)), (1, 1)),
    "a valley across a row": Lane(Quadratic(np.ones((2, 2)), (1.0, 1.0), TWO, (-9.0, 0.3), (9.0, 0.3)), (0, 1)),
    "a hill across a row": Lane(Quadratic(((-1.0, 0), (0, 3.0)), (1.0, 0.1), TWO, (1.0, -9.0), (1.0, 9.0)), (1, 0)),
    "two rows that are one": Lane(Quadratic(ROUND, (4.0, 2.0), ((1.0, 1.0), (2.0, 2.0)), UP, (1.0, 2.0)), (1, 0)),
    "two equalities that are one": Lane(Quadratic(ROUND, (4.0, 2.0), np.ones((2, 2)), (1.0, 1.0), (1.0, 1.0)), (1, 0)),
    "a valley along a row": Lane(Quadratic(np.ones((2, 2)), (2.0, 2.0), np.ones((2, 2)), UP, (1.0, 9.0)), (1, 0)),
    "a saddle": Lane(
        Quadratic(((1.0, 0), (0, -1.0)), (1.0, 0.0), np.eye(2), (-9.0, -9.0), (0.5, 9.0), (0.1, 0.0)), (1, 0)
    ),
    "ended by ftol": Lane(Quadratic(ROUND, (4.0, 2.0), TWO, UP, (1.0, 5.0)), (1, 0), ftol=1e-3),
    "stopped": Lane(Quadratic(ROUND, (4.0, 2.0), TWO, UP, (1.0, 5.0)), (1, 0), maxiter=1),
    "ended early by ftol": Lane(Quadratic(ROUND, (4.0, 2.0), TWO, UP, (1.0, 5.0)), (1, 0), ftol=1e9),
    "infeasible": Lane(Quadratic(ROUND, (4.0, 2.0), np.ones((2, 2)), (1.0, -9.0), (9.0, 0.0))),
    "a kink": Lane(Quadratic(np.eye(2), (1.0, 0.0), TWO, UP, (1.0, 5.0)), (1, 0)),
}  # fmt: skip


def quadratic(program, ftol, maxiter):
    """What of the solution of a ``Quadratic`` has derivatives, and the status."""
    fun = lambda x: x @ program.Q @ x / 2 - program.t @ x
    rows = LinearConstraint(program.A, program.lb, program.ub)
    res = minimize(fun, program.x0, constraints=rows, options={"ftol": ftol, "maxiter": maxiter})
    return {"x": res.x, "fun": res.fun, "v": res.v[0], "constr": res.constr[0]}, res.status


def answer(program, active):
    """The same, by the equations for the rows that are active."""
    Q, t, A, lb, ub, _ = program
    Q, held = (Q + Q.T) / 2, active != 0
    K = jnp.block([[Q, A.T], [held[:, None] * A, -jnp.diag(~held * 1.0)]])
    limit = jnp.where(active > 0, ub, lb)
    x, v = jnp.split(jnp.linalg.solve(K, jnp.concatenate([t, jnp.where(held, limit, 0)])), 2)
    return {"x": x, "fun": x @ Q @ x / 2 - t @ x, "v": v, "constr": A @ x}


@jax.jit
@jax.vmap
def jacobians(program, active, ftol, maxiter):
    """The status of a solve, the Jacobians in both modes, and what they should be."""
    (_, status), *ours = both_modes(lambda program: quadratic(program, ftol, maxiter), program)
    return status, [together(J) for J in ours], together(jax.jacfwd(answer)(program, active))


def together(J):
    """A Jacobian with both limits of a row moving together: an equality has one."""
    move = lambda by: by._replace(lb=by.lb + by.ub, ub=0 * by.ub)
    return jax.tree.map(move, J, is_leaf=lambda node: isinstance(node, Quadratic))


@functools.cache
def of_lanes(dtype):
    """What ``jacobians`` gives for each lane, by name."""
    programs = [Quadratic(*(np.asarray(leaf, dtype) for leaf in lane.of)) for lane in LANES.values()]
    rest = zip(*[(np.array(lane.active), np.asarray(lane.ftol, dtype), lane.maxiter) for lane in LANES.values()])
    found = jacobians(jax.tree.map(lambda *leaves: np.stack(leaves), *programs), *map(np.stack, rest))
    return {name: jax.tree.map(operator.itemgetter(i), found) for i, name in enumerate(LANES)}


REGULAR = list(LANES)[:6]


@mostly_float64
@pytest.mark.parametrize("name", REGULAR)
def test_quadratic_programs(name, dtype):
    """By the matrix of a ``LinearConstraint``, what fun closes over, and the limits; not by the start."""
    status, ours, expected = of_lanes(dtype)[name]
    assert status == 0
    for J in ours:
        assert J["x"].A.dtype == dtype
        for entry in expected:
            assert_close(J[entry], expected[entry], **TOLERANCES[dtype], err_msg=entry)


@mostly_float64
@pytest.mark.parametrize("name", ["two rows that are one", "two equalities that are one"])
def test_where_rows_depend_on_each_other_multipliers_have_no_derivative_and_x_has(name, dtype):
    """By the objective. By the rows: where a change of both keeps them one."""
    status, ours, expected = of_lanes(dtype)[name]
    assert status == 0
    for J in ours:
        assert np.isnan(J["v"].t).all()
        for entry in ("x", "fun"):
            for by in ("Q", "t", "x0"):
                assert_close(getattr(J[entry], by), getattr(expected[entry], by), **TOLERANCES[dtype])
            scale = np.array(LANES[name].of.ub)
            assert_close(J[entry].lb @ scale, expected[entry].lb[..., 0], **TOLERANCES[dtype])


@mostly_float64
@pytest.mark.parametrize("name", ["a valley along a row", "a saddle"])
def test_a_hessian_that_is_not_positive_definite_along_the_rows_gives_nan(name, dtype):
    """The value has its derivative."""
    status, ours, _ = of_lanes(dtype)[name]
    assert status == 0
    for J in ours:
        assert all(np.isnan(leaf).all() for entry in ("x", "v", "constr") for leaf in J[entry][:-1])
        assert all(np.isfinite(leaf).all() for leaf in J["fun"])


@mostly_float64
@pytest.mark.parametrize(
    ("name", "ended"), [("stopped", 1), ("ended early by ftol", 4), ("infeasible", 12)]
)  # fmt: skip
def test_what_is_no_solution_has_no_derivative(name, ended, dtype):
    status, ours, _ = of_lanes(dtype)[name]
    assert status == ended
    for J in ours:
        assert all(np.isnan(leaf).all() for entry in J.values() for leaf in entry[:-1])


def test_near_a_solution_ftol_may_end_the_solve():
    status, ours, expected = of_lanes("float64")["ended by ftol"]
    assert status == 4
    for J in ours:
        assert_close(J, expected, atol=1e-2)


@mostly_float64
def test_at_a_kink_the_derivative_is_between_those_on_both_sides(dtype):
    """The free solution reaches a row: x = t on one side, the nearest point of the row on the other."""
    status, ours, _ = of_lanes(dtype)["a kink"]
    assert status == 0
    free, held = np.eye(2), np.array([[0.5, -0.5], [-0.5, 0.5]])
    for J in ours:
        share = (J["x"].t - held)[0, 0] / (free - held)[0, 0]
        assert 0 <= share <= 1
        assert_close(J["x"].t, share * free + (1 - share) * held, atol=1e-2)


# ---- a disk: min -t.x for x.x <= r, where x = sqrt(r) t / |t|


def on_disk(t, r, method=None):
    res = minimize(
        lambda x: (-(t @ x), {"product": r * x}), jnp.zeros(2), method=method, has_aux=True,
        constraints=[NonlinearConstraint(lambda x: x @ x, ub=r)], options=TIGHT,
    )  # fmt: skip
    return {"x": res.x, "fun": res.fun, "v": res.v[0], "aux": res.aux["product"]}


def disk(t, r):
    length = jnp.sqrt(t @ t)
    x = jnp.sqrt(r) * t / length
    return {"x": x, "fun": -jnp.sqrt(r) * length, "v": length / (2 * jnp.sqrt(r)), "aux": r * x}


AT = jnp.array([3.0, 4.0]), 2.0


def test_second_derivatives():
    ours, expected = (jax.jit(jax.jacfwd(jax.jacrev(f, (0, 1)), (0, 1)))(*AT) for f in (on_disk, disk))
    assert_close(ours, expected, atol=1e-6)


METHODS = [name for name in entries("methods") if "constraints" in asks_for(name)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_same_derivatives(method):
    """Outside of jit, too."""
    dots = jnp.array([1.0, -2.0]), 0.5
    along = jax.jvp(lambda *at: on_disk(*at, method), AT, dots)[1]
    assert_close(along, jax.jvp(disk, AT, dots)[1], atol=1e-6)


def test_derivatives_where_no_jacobian_is_formed():
    """120 variables in 60 disks, of which some hold and some do not; bounds beside. By the radii and by t."""
    rng = np.random.default_rng(0)
    t, radius = jnp.asarray(rng.normal(size=(60, 2))), jnp.full(60, 1.1)

    def solved(t, radius, method="augmented_lagrangian"):
        rows = NonlinearConstraint(lambda x: jnp.sum(x**2, axis=1), ub=radius**2)
        res = minimize(
            lambda x: jnp.sum((x - t) ** 2), jnp.zeros((60, 2)), method=method, bounds=Bounds(-1.5, 0.7),
            constraints=rows, options={"gtol": 1e-9, "ctol": 1e-10, "barrier_tol": 1e-10},
        )  # fmt: skip
        return res.x, res.fun

    other = functools.partial(solved, method="interior_point")
    dots = jnp.asarray(rng.normal(size=(60, 2))), jnp.asarray(rng.normal(size=60))
    ours, theirs = (jax.jit(lambda f=f: jax.jvp(f, (t, radius), dots)[1])() for f in (solved, other))
    assert_close(ours, theirs, atol=1e-5)
    weights = jnp.asarray(rng.normal(size=(60, 2)))
    slope = jax.jit(jax.grad(lambda *at: jnp.sum(weights * solved(*at)[0]), (0, 1)))(t, radius)
    along = sum(jnp.vdot(a, b) for a, b in zip(slope, dots))
    assert_close(along, jnp.sum(weights * ours[0]), rtol=1e-8)
