"""Newton's method in a trust region finds minima, counts its products, and forms no Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import START, mostly_float64
from problems import ALL, one_in, recorded

from jaxmin import Status, minimize, trust_ncg
from jaxmin.methods._scale import ROUND, Scale


@pytest.mark.parametrize("name", one_in(3))
@mostly_float64
def test_every_problem_ends_at_a_minimum(name, dtype):
    problem = ALL[name]
    res = minimize(problem.fun, jnp.asarray(problem.x0, dtype), method="trust-ncg")
    assert res.success or (dtype == "float32" and res.status == Status.PRECISION_LOSS)
    f = float(problem.fun(jnp.asarray(res.x, jnp.float64)))
    assert min(abs(f - least) for least in problem.minima) <= 1e-5 * max(1, abs(f))


def test_nfev_counts_points_and_nhev_products():
    fun, points = recorded(ALL["rosen2"].fun)
    res = minimize(fun, START, method="trust_ncg")
    jax.effects_barrier()
    trips = len(points)
    assert trips == int(res.nfev) + int(res.nhev)
    assert len(np.unique(np.asarray(points), axis=0)) == int(res.nfev)


@pytest.mark.parametrize("n", [2, 10])
def test_it_needs_no_more_evaluations_than_scipys(n):
    problem = ALL["rosen2" if n == 2 else "rosen10"]
    fun = jax.jit(jax.value_and_grad(problem.fun))
    product = jax.jit(lambda x, v: jax.jvp(jax.grad(problem.fun), (x,), (v,))[1])
    other = scipy.optimize.minimize(
        lambda x: tuple(map(np.asarray, fun(x))), np.asarray(problem.x0, float), jac=True, method="trust-ncg",
        hessp=lambda x, v: np.asarray(product(x, v)), options={"gtol": 1e-5},
    )  # fmt: skip
    res = minimize(problem.fun, np.asarray(problem.x0, float), method="trust-ncg")
    assert res.success and res.nfev <= 1.1 * other.nfev


def test_negative_curvature_leaves_a_saddle_point_behind():
    res = minimize(lambda x: (x[0] ** 2 - 1) ** 2 + x[1] ** 2, jnp.array([1e-3, 1.0]), method="trust-ncg")
    assert res.success
    np.testing.assert_allclose(jnp.abs(res.x), [1, 0], atol=1e-5)


@pytest.mark.parametrize(("least", "leaves"), [(0.0, False), (-1e-3, True)])
def test_at_a_start_without_a_gradient_some_products_look_for_negative_curvature(least, leaves):
    """Where conjugate gradients would take 10,000 products to the end."""
    curvatures = np.r_[least, np.logspace(-10, 0, 499)]
    fun = lambda x: jnp.sum(curvatures * x**2) + jnp.sum(x**4)
    res = minimize(fun, np.zeros(500), method="trust_ncg")
    assert res.success and (res.fun < 0) == leaves
    assert leaves or (res.nit, res.nhev) == (0, 200)


def test_a_quadratic_takes_as_many_products_as_it_has_curvatures():
    curvatures = jnp.array([1.0, 1.0, 10.0, 10.0, 100.0])
    res = minimize(lambda x: jnp.sum(curvatures * (x - 1) ** 2), np.zeros(5), method=trust_ncg(radius=100.0))
    assert res.success and res.nhev <= 2 * 3  # three curvatures; a loose first step, and an exact second


def test_lanes_are_what_they_are_alone():
    starts = jnp.array([START, [2.0, 2.0], [jnp.nan, 0.0]])
    batch = jax.vmap(lambda x0: minimize(ALL["rosen2"].fun, x0, method="trust-ncg"))(starts)
    alone = [minimize(ALL["rosen2"].fun, x0, method="trust-ncg") for x0 in starts]
    for name in ("status", "nit", "nfev", "nhev"):
        assert getattr(batch, name).tolist() == [int(getattr(res, name)) for res in alone]


@pytest.mark.rounding
@pytest.mark.parametrize("blur", [1e-10, 1e-5])
def test_where_f_is_blurred_the_slopes_decide(blur):
    """Noise of f far above its last place; the gradient knows nothing of it."""

    @jax.custom_jvp
    def blurred(x):
        f = ALL["rosen2"].fun(x)
        return 1 + f + blur * jnp.sin(1e15 * x[0])

    blurred.defjvp(lambda xs, ds: (blurred(*xs), jax.jvp(ALL["rosen2"].fun, xs, ds)[1]))
    res = minimize(blurred, START, method="trust-ncg", options={"gtol": 1e-9})
    assert res.success and res.nfev <= 150
    np.testing.assert_allclose(res.x, [1, 1], atol=1e-8)


def test_a_solve_that_gains_nothing_ends():
    """A gradient that does not vanish at the minimum."""
    res = minimize(lambda x: 1 + jnp.sum(jnp.abs(x - 1 / 3)), np.ones(2), method="trust-ncg")
    assert not res.success and res.nfev <= 200


def test_a_function_without_a_minimum_is_followed_down():
    """Steps as long as numbers go, and no overflow of their squares on the way."""
    res = minimize(lambda x: 1e-12 * jnp.sum(x), np.zeros(2), method="trust-ncg", options={"maxiter": 600, "gtol": 0})
    assert (res.nit, res.status) == (600, Status.MAXITER)
    assert res.fun < -1e140


def test_no_hessian_is_formed():
    n = 4000
    program = jax.make_jaxpr(lambda x: minimize(lambda x: jnp.sum((x - 1) ** 4), x, method="trust-ncg").x)(jnp.zeros(n))
    assert f"{n},{n}" not in str(program)


def test_searches_are_refused_by_name():
    with pytest.raises(ValueError, match="linesearch='wolfe'"):
        minimize(ALL["rosen2"].fun, START, method="trust-ncg", linesearch="wolfe")


def springs(z):
    """Strictly convex: a chain of springs that grow stiffer."""
    return jnp.sum(jnp.diff(z) ** 2) + jnp.sum(z**4 / 4 + z**2 / 20 - jnp.sin(jnp.arange(z.size)) * z)


def in_units(unit):
    """The chain in variables of very different units: x = unit * z."""
    return lambda x: springs(x / unit)


N = 200
UNITS = 10 ** np.random.default_rng(0).uniform(-3, 3, N)
DIAGONAL = trust_ncg(preconditioner="diagonal")


def test_variables_in_very_different_units():
    options = {"maxiter": 500, "gtol": 1e-5 / UNITS.max()}
    plain = minimize(in_units(UNITS), 3 * UNITS, method="trust_ncg", options=options)
    scaled = minimize(in_units(UNITS), 3 * UNITS, method=DIAGONAL, options=options)
    assert not plain.success and plain.nhev > 10_000
    assert scaled.success and scaled.nhev < 1000
    known = minimize(springs, np.full(N, 3.0), method="trust_ncg", options={"gtol": 1e-9})
    np.testing.assert_allclose(scaled.x / UNITS, known.x, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preconditioner", ["diagonal", "banded"])
def test_variables_in_very_different_units_in_float32(preconditioner):
    unit = jnp.asarray(UNITS, "float32")
    options = {"maxiter": 500, "preconditioner": preconditioner}
    scaled = minimize(in_units(unit), 3 * unit, method="trust_ncg", options=options)
    assert scaled.success and scaled.nhev < 1000
    known = minimize(springs, np.full(N, 3.0), method="trust_ncg")
    np.testing.assert_allclose(springs(jnp.asarray(scaled.x / UNITS, "float64")), known.fun, rtol=1e-5)


def test_units_that_differ_little_change_no_step():
    fun = in_units(np.linspace(0.5, 2, N))
    solve = lambda **constants: minimize(
        fun, np.full(N, 9.0), method=trust_ncg(radius=0.1, **constants), options={"gtol": 1e-9}
    )
    plain, scaled = solve(), solve(preconditioner="diagonal")
    assert plain.nhev > 100 and abs(plain.nfev - scaled.nfev) <= 1  # two programs round differently
    np.testing.assert_allclose(plain.x, scaled.x, rtol=1e-9, atol=1e-9)
    assert plain.nhev < scaled.nhev <= 1.15 * plain.nhev  # ten products to learn after each hundred


def test_lanes_with_units_of_their_own_are_what_they_are_alone():
    exponents = jnp.array([0.0, 1.0])  # one lane uses its scale, the other does not
    solve = lambda e: minimize(in_units(UNITS**e), 3 * UNITS**e, method=DIAGONAL)
    batch = jax.vmap(solve)(exponents)
    assert batch.success.all()
    for i, e in enumerate(exponents):
        alone = solve(e)
        assert abs(batch.nhev[i] - alone.nhev) <= 0.15 * alone.nhev  # rounding decides about the last steps
        np.testing.assert_allclose(batch.fun[i], alone.fun, rtol=1e-12)


def test_units_with_bounds():
    upper = np.where(np.arange(N) % 10 == 0, 0.1, np.inf)
    within = lambda unit: scipy.optimize.Bounds(-np.inf, upper * unit)
    start = np.minimum(3, upper)
    options = {"gtol": 1e-5 / UNITS.max()}
    res = minimize(in_units(UNITS), start * UNITS, method=DIAGONAL, bounds=within(UNITS), options=options)
    known = minimize(springs, start, method="trust_ncg", bounds=within(1.0))
    assert res.success and (res.x <= upper * UNITS).all() and (res.x == upper * UNITS).any()
    np.testing.assert_allclose(res.fun, known.fun, rtol=1e-9)


def test_a_round_finds_the_units_of_a_diagonal_hessian():
    """In one product, since each row has one number; the others change nothing."""
    h = jnp.asarray(UNITS)
    always = jnp.ones((), bool)
    scale = Scale.unknown(h).counted(False, always)
    for _ in range(ROUND):
        assert scale.goes_on
        scale = scale.learnt(None, h * scale.apply(h), always)
    assert not scale.goes_on and scale.used
    product = scale.S**2 * h
    np.testing.assert_allclose(product, product[0], rtol=1e-10)
