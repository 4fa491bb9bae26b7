"""Derivatives of solutions in a set agree with differences and closed forms, and are NaN where there are none.

All sets are parts of one product, so that one program solves in all of them; f couples the parts.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, mostly, mostly_float64

from jaxmin import Bounds, Status, minimize, sets

TOLERANCES = {"float64": {"rtol": 1e-5, "atol": 1e-5}, "float32": {"rtol": 2e-2, "atol": 2e-2}}
N = 4  # variables of each part
INF = np.inf
_rng = np.random.default_rng(3)


class Part(NamedTuple):
    """A set, made from its parameters, and where they are."""

    make: Any
    at: Any = ()


def twice(A, b):
    """Equations of which each is given twice, in other units: their singular values are 0 and otherwise equal."""
    return sets.affine(jnp.concatenate([A, 2 * A]), jnp.concatenate([b, 2 * b]))


def around(center, radius):
    """A ball around a center, as a function of the user's."""
    return sets.projection(lambda x: center + sets.ball(radius).project(x - center))


def ruled(total):
    """A simplex, by a function of Optax's that has a derivative rule."""
    return sets.projection(lambda x: optax.projections.projection_simplex(x, total))


NORMAL = np.array([1.0, -0.5, 2.0, 0.3])
EQUAL = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
PARTS = {
    "simplex": Part(sets.simplex, (1.3,)),
    "ball 1": Part(lambda r: sets.ball(r, norm=1), (0.9,)),
    "ball 1, inside": Part(lambda r: sets.ball(r, norm=1), (90.0,)),
    "ball 2": Part(sets.ball, (0.8,)),
    "ball 2, inside": Part(sets.ball, (50.0,)),
    "ball inf": Part(lambda r: sets.ball(r, norm=INF), (0.35,)),
    "half-space": Part(sets.half_space, (NORMAL, -1.0)),
    "half-space, inside": Part(sets.half_space, (NORMAL, 40.0)),
    "affine": Part(sets.affine, (_rng.normal(size=(2, N)), np.array([0.5, -0.3]))),
    "affine, twice": Part(twice, (EQUAL, np.array([0.4, 0.1]))),
    "nonnegative": Part(sets.nonnegative),
    "function": Part(around, (np.array([0.3, 0.2, -0.1, 0.0]), 0.5)),
    "function with a rule": Part(ruled, (0.7,)),
    "free": Part(lambda: None),
}  # fmt: skip
_C = np.eye(len(PARTS) * N) + 0.1 * _rng.normal(size=(len(PARTS) * N,) * 2)
_T = _rng.normal(size=len(PARTS) * N)
THETA = {name: part.at for name, part in PARTS.items()} | {"args": np.array([1.0, 0.3])}
AT, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, THETA))


def objective(x, p):
    v = jnp.concatenate(list(x.values()))
    return jnp.sum((_C @ v - p[0] * _T) ** 2) / 2 + p[1] * jnp.sum(jnp.log(jnp.cosh(v))), p[0] * v[:2] ** 2


def solved(theta):
    """x, the value and the aux of the solution, and whether it is one."""
    theta = unravel(theta)
    within = sets.product({name: part.make(*theta[name]) for name, part in PARTS.items()})
    x0 = {name: jnp.zeros(N) for name in PARTS}
    # Steps of one length go on where f no longer falls by more than rounding.
    options = {"learning_rate": 0.4, "gtol": 1e-12}
    res = minimize(objective, x0, args=(theta["args"],), has_aux=True, method="sgd", bounds=within, options=options)
    return {"all": {**res.x, "fun": res.fun, "aux": res.aux}}, res.success


H = 1e-4


def both_modes(solution, at):
    """What a function gives, and its Jacobians in forward and in reverse mode, with one solve."""
    value, push, aux = jax.linearize(solution, at, has_aux=True)
    # One entry at a time: in reverse mode 0 times a NaN of another would be NaN.
    reverse = {entry: jax.jacrev(lambda dot, entry=entry: push(dot)[entry])(at) for entry in value}
    return (value, aux), jax.jacfwd(push)(at), reverse


@functools.cache
def compared():
    """The solution, its Jacobians in both modes and by differences."""
    (value, success), *jacobians = jax.jit(functools.partial(both_modes, solved))(AT)
    steps = H * np.eye(AT.size)
    around, successes = jax.jit(lambda at: jax.lax.map(solved, at))(AT[None] + np.concatenate([steps, -steps]))
    by_differences = jax.tree.map(lambda leaf: np.moveaxis(leaf[: AT.size] - leaf[AT.size :], 0, -1) / (2 * H), around)
    return value, jacobians, by_differences, success and successes.all()


ACTIVE = {
    "simplex": lambda x: (x == 0).any() and (x > 0).sum() > 1,
    "ball 1": lambda x: (x == 0).any() and (x != 0).sum() > 1,
    "ball 2": lambda x: np.isclose(np.linalg.norm(x), 0.8),
    "ball inf": lambda x: (np.abs(x) == 0.35).any() and (np.abs(x) < 0.35).any(),
    "half-space": lambda x: np.isclose(NORMAL @ x, -1),
    "nonnegative": lambda x: (x == 0).any() and (x > 0).any(),
    "function": lambda x: np.isclose(np.linalg.norm(x - PARTS["function"].at[0]), 0.5),
}


@pytest.mark.parametrize("name", [*PARTS, "fun", "aux"])
def test_derivatives_agree_with_differences(name):
    """By the arguments, and by the parameters of all sets."""
    solution, (forward, reverse), by_differences, success = compared()
    assert success
    solution, forward, reverse, by_differences = (tree["all"] for tree in (solution, forward, reverse, by_differences))
    assert name not in ACTIVE or ACTIVE[name](np.asarray(solution[name]))
    assert_close(reverse[name], forward[name], rtol=1e-9, atol=1e-9)
    assert_close(forward[name], by_differences[name], rtol=1e-6, atol=1e-6)


# ---- quadratics in a disc, some of which have no derivative


class Lane(NamedTuple):
    """min x.Qx / 2 - t.x in a disc, from x0; and when the solve stops."""

    Q: Any
    t: Any
    radius: float = 1.0
    x0: Any = (0.1, 0.0)
    ftol: float = -1.0
    maxiter: float = 1000


ROUND = ((2.0, 0.5), (0.5, 1.0))
FLAT = ((0.0, 0.0), (0.0, 0.0))
LANES = {
    "at the edge": Lane(ROUND, (4.0, 2.0)),
    "inside": Lane(ROUND, (0.4, 0.2)),
    "f is linear": Lane(FLAT, (3.0, 4.0), 2.0),
    "a hill that the edge bends up": Lane(((-1.0, 0.0), (0.0, -0.5)), (2.0, 0.1)),
    "ended by ftol": Lane(ROUND, (4.0, 2.0), ftol=1e-3),
    "a saddle at the edge": Lane(((0.0, 0.0), (0.0, -3.0)), (2.0, 0.0)),
    "a valley inside": Lane(((1.0, 0.0), (0.0, 0.0)), (0.2, 0.0)),
    "a point": Lane(ROUND, (4.0, 2.0), 0.0),
    "stopped": Lane(ROUND, (4.0, 2.0), x0=(-0.9, 0.1), maxiter=1),
    "no set": Lane(ROUND, (4.0, 2.0), -1.0),
}


def quadratic(lane):
    fun = lambda x: x @ lane.Q @ x / 2 - lane.t @ x
    res = minimize(
        fun, lane.x0, method="gradient_descent", bounds=sets.ball(lane.radius),
        options={"ftol": lane.ftol, "maxiter": lane.maxiter.astype(int)},
    )  # fmt: skip
    return {"x": res.x, "fun": res.fun}, res.status


def answer(lane, x):
    """x and the value near a solution x, by Newton's steps for Q x - t + v x = 0 and |x| = radius."""
    at_edge = jax.lax.stop_gradient(x @ x > 0.999 * lane.radius**2)
    Q = (lane.Q + lane.Q.T) / 2
    v = jnp.where(at_edge, (lane.t - Q @ x) @ x / (x @ x), 0)
    for _ in range(8):
        K = jnp.block([[Q + v * jnp.eye(2), x[:, None]], [jnp.where(at_edge, x, 0)[None], jnp.array([[1.0]])]])
        K = K.at[2, 2].set(jnp.where(at_edge, 0, 1))
        gap = jnp.where(at_edge, (x @ x - lane.radius**2) / 2, v)
        step = jnp.linalg.solve(K, jnp.append(Q @ x - lane.t + v * x, gap))
        x, v = x - step[:2], v - step[2]
    return {"x": x, "fun": x @ Q @ x / 2 - lane.t @ x}


@jax.jit
@jax.vmap
def jacobians(lane):
    """The status of a solve, the Jacobians in both modes, and what they should be."""
    (value, status), *ours = both_modes(quadratic, lane)
    return status, ours, jax.jacfwd(answer)(lane, value["x"])


@functools.cache
def of_lanes(dtype):
    """What ``jacobians`` gives for each lane, by name."""
    lanes = [[np.asarray(leaf, dtype) for leaf in lane] for lane in LANES.values()]
    found = jacobians(Lane(*map(np.stack, zip(*lanes))))
    return {name: jax.tree.map(operator.itemgetter(i), found) for i, name in enumerate(LANES)}


DETERMINED = list(LANES)[:5]


@mostly_float64
@pytest.mark.parametrize("name", DETERMINED)
def test_in_a_disc(name, dtype):
    """By what fun closes over and by the radius; the limits and the start have no influence."""
    status, ours, expected = of_lanes(dtype)[name]
    assert status == (Status.FTOL if name == "ended by ftol" else Status.CONVERGED)
    for J in ours:
        for entry in expected:
            for by in ("Q", "t", "radius"):
                assert_close(getattr(J[entry], by), getattr(expected[entry], by), **TOLERANCES[dtype], err_msg=by)
            assert J[entry].t.dtype == dtype
            assert not any(np.any(part) for part in (J[entry].x0, J[entry].ftol))


@mostly_float64
@pytest.mark.parametrize("name", ["a saddle at the edge", "a valley inside"])
def test_where_the_minimum_is_not_a_strict_one_x_has_no_derivative(name, dtype):
    """The value has: it changes as if x stood still."""
    status, ours, _ = of_lanes(dtype)[name]
    assert status == Status.CONVERGED
    x = np.array([1.0, 0.0]) if "edge" in name else np.array([0.2, 0.0])
    for J in ours:
        assert np.isnan(J["x"].t).all() and np.isnan(J["x"].radius).all()
        assert_close(J["fun"].t, -x, **TOLERANCES[dtype])
        assert_close(J["fun"].radius, -2.0 if "edge" in name else 0, **TOLERANCES[dtype])


@mostly_float64
def test_a_point_stays_where_it_is(dtype):
    status, ours, _ = of_lanes(dtype)["a point"]
    assert status == Status.CONVERGED
    for J in ours:
        assert not np.any(J["x"].t) and not np.any(J["x"].Q) and not np.any(J["fun"].t)
        assert_close(J["fun"].radius, -np.hypot(4, 2), **TOLERANCES[dtype])  # it moves along -g


@mostly_float64
@pytest.mark.parametrize("name", ["stopped", "no set"])
def test_where_the_solve_did_not_end_at_a_minimum_nothing_has_a_derivative(name, dtype):
    status, ours, _ = of_lanes(dtype)[name]
    assert status != Status.CONVERGED
    for J in ours:
        assert all(np.isnan(leaf).all() for leaf in (J["x"].t, J["x"].radius, J["fun"].t, J["fun"].radius))


# ---- other ways to the same derivatives


@pytest.mark.parametrize("name", mostly(("nonnegative", "ball inf"), "ball inf"))
def test_a_box_has_the_derivatives_of_bounds(name):
    def of(make):
        def solution(t, r):
            fun = lambda x: jnp.sum((_C[:N, :N] @ x - t) ** 2)
            res = minimize(fun, jnp.zeros(N), method="gradient_descent", bounds=make(r), options={"gtol": 1e-9})
            return res.x, res.fun

        return jax.jit(jax.jacrev(solution, (0, 1)))(_T[:N], 0.3)

    pairs = {
        "nonnegative": (lambda r: sets.nonnegative(), lambda r: Bounds(0.0)),
        "ball inf": (lambda r: sets.ball(r, norm=INF), lambda r: Bounds(-r, r)),
    }
    ours, theirs = map(of, pairs[name])
    assert np.any(ours[0][0] == 0) and np.any(ours[0][0] != 0)
    assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@jax.custom_jvp
def below(x, high):
    return jax.lax.stop_gradient(jnp.minimum(x, high))


@below.defjvp
def _(primals, tangents):
    (x, high), (x_dot, high_dot) = primals, tangents
    return below(x, high), jnp.where(x < high, x_dot, high_dot)


@pytest.mark.parametrize("transform", [jax.jacfwd, jax.jacrev])
def test_a_projection_is_differentiated_by_its_own_rule(transform):
    """Called from Python, where the program of the solve is one without rules."""

    def solution(t, high):
        bounds = sets.projection(lambda x: below(x, high))
        fun = lambda x: jnp.sum((x - t) ** 2) + x[0] * x[1]
        return minimize(fun, jnp.zeros(2), method="gradient_descent", bounds=bounds, options={"gtol": 1e-9}).x

    by_t, by_high = transform(solution, (0, 1))(np.array([2.0, 1.0]), 0.7)
    assert_close(by_t, np.array([[0.0, 0.0], [0.0, 1.0]]), atol=1e-9)  # x = high, t - high / 2
    assert_close(by_high, np.array([1.0, -0.5]), atol=1e-9)


MANY = 150  # so many variables that conjugate gradients solve the equations
STIFF = 1 + 9 * _rng.uniform(size=MANY)
TARGET = _rng.normal(size=MANY)


def shares(t, total):
    """(expected - found): sums of squares in a simplex, and their Jacobians."""
    x = minimize(weighted, jnp.zeros(MANY), (t,), "gradient_descent", bounds=sets.simplex(total)).x
    held = x > 1e-3
    price = jnp.where(held, 1 / STIFF, 0)
    return x, jnp.diag(held.astype(x.dtype)) - jnp.outer(price, held) / price.sum(), price / price.sum()


def in_ball(t, radius):
    """x = t / (1 + v / stiff)."""
    x = minimize(weighted, jnp.zeros(MANY), (t,), "gradient_descent", bounds=sets.ball(radius)).x
    v = STIFF @ ((t - x) * x) / (x @ x)
    K = jnp.diag(1 / (STIFF + v))
    along = K @ x / (x @ K @ x)
    return x, (K - jnp.outer(along, x @ K)) * STIFF[None], along * radius


def weighted(x, t):
    return jnp.sum(STIFF * (x - t) ** 2) / 2


@pytest.mark.parametrize("solve", [shares, pytest.param(in_ball, marks=pytest.mark.slow)])
def test_many_variables(solve):
    @jax.jit
    def both(at, dot):
        _, push = jax.linearize(lambda at: solve(*at)[0], at)
        return solve(*at)[1:], push(dot), jax.linear_transpose(push, at)(dot[0])[0]

    dot = _rng.normal(size=MANY), 0.7
    (by_t, by_size), forward, reverse = both((TARGET, 3.0), dot)
    assert_close(forward, by_t @ dot[0] + by_size * dot[1], rtol=1e-4, atol=1e-4)
    assert_close(reverse, (by_t.T @ dot[0], by_size @ dot[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_valley_of_many_variables_has_no_derivative():
    def share(t):
        fun = lambda x: (x[0] - t) ** 2 + 0 * jnp.sum(x)
        return minimize(fun, jnp.ones(MANY), method="gradient_descent", bounds=sets.simplex()).x[0]

    assert np.isnan(jax.jit(jax.grad(share))(0.5))


@pytest.mark.slow
def test_second_derivatives():
    def fun(total):
        f = lambda x: jnp.sum(STIFF[:N] * (x - TARGET[:N]) ** 2) + jnp.sum(x**4)
        return minimize(f, jnp.zeros(N), method="gradient_descent", bounds=sets.ball(total), options={"gtol": 1e-9}).fun

    first = jax.jit(jax.grad(fun))
    expected = (first(0.7 + H) - first(0.7 - H)) / (2 * H)
    assert_close(jax.jit(jax.jacfwd(jax.grad(fun)))(0.7), expected, rtol=1e-5)
    assert_close(jax.jit(jax.grad(jax.jacfwd(fun)))(0.7), expected, rtol=1e-5)


@pytest.mark.slow
def test_leaves_keep_their_dtypes():
    def level(total):
        x0 = {"w": jnp.zeros(2, np.float32), "level": jnp.zeros(())}
        fun = lambda x, a: jnp.sum((x["w"] - a) ** 2) + (x["level"] - 2 * a) ** 2
        within = sets.product({"w": sets.simplex(total), "level": None})
        return minimize(fun, x0, (0.4,), method="gradient_descent", bounds=within).x

    x_dot = jax.jit(jax.jacfwd(level))(1.0)
    assert x_dot["w"].dtype == np.float32 and x_dot["level"].dtype == np.float64
    assert_close(x_dot, {"w": np.full(2, 0.5), "level": 0.0}, atol=1e-6)
