"""Least squares: certified parameters from both official starts, endings, bounds, losses, derivatives, batches."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import compilations, each_dtype, mostly, mostly_float32, mostly_float64

import jaxmin
from jaxmin import Bounds, Status, minimize
from jaxmin.datasets import nist

METHOD = "levenberg_marquardt"
T = np.linspace(0, 10, 60)
RNG = np.random.default_rng(0)
Y = 2 * np.exp(-0.5 * T) + 0.05 * RNG.normal(size=60)
OUTLIERS = Y + np.where(np.arange(60) % 9 == 0, 3 * RNG.normal(size=60), 0)


def decay(b):
    return b[0] * jnp.exp(-b[1] * T) + b[2]


def residuals(b, y=Y):
    return decay(b) - y


def solve(fun=residuals, x0=(1.0, 1.0, 0.0), dtype="float64", **more):
    return minimize(fun, jnp.asarray(x0, dtype), method=METHOD, **more)


# ---- NIST

# By default the hard ones, where rounding, scales, flat valleys or the far start are in the way.
_HARD = ("Bennett5", "BoxBOD", "Hahn1", "Lanczos1", "MGH09", "MGH10", "Thurber")
_MARKS = {name: () if name in _HARD else pytest.mark.slow for name in nist.NAMES}


@pytest.mark.parametrize("name", [pytest.param(name, marks=_MARKS[name]) for name in nist.NAMES])
def test_certified_parameters_from_both_starts(name):
    """Raw parameters, six digits of each, and of their standard deviations."""
    data, model = nist.load(name), nist.model(name)
    for start in data.starts:
        res = minimize(lambda b, x, y: model(b, x) - y, jnp.asarray(start), args=(data.x, data.y), method=METHOD)
        assert res.success, res.message
        np.testing.assert_allclose(res.x, data.certified, rtol=1e-6)
        of_unit = np.asarray(res.standard_errors(absolute_sigma=True))
        np.testing.assert_allclose(of_unit, data.deviation / data.rsd, rtol=1e-6)
        if name != "Lanczos1":  # data without error: the residuals are rounding
            np.testing.assert_allclose(2 * res.fun, data.rss, rtol=1e-6)
            np.testing.assert_allclose(res.standard_errors(), data.deviation, rtol=1e-6)


# ---- what a result says


def test_the_result_is_that_of_minpack():
    res = solve()
    theirs = scipy.optimize.least_squares(
        lambda b: np.asarray(residuals(b)), [1.0, 1.0, 0.0], method="lm", xtol=1e-12, ftol=1e-12, gtol=1e-12
    )
    assert res.success
    np.testing.assert_allclose(res.x, theirs.x, rtol=1e-6)
    np.testing.assert_allclose(res.fun, theirs.cost, rtol=1e-10)
    J = jax.jacobian(residuals)(res.x)
    np.testing.assert_allclose(res.jac, J.T @ residuals(res.x), atol=1e-12)
    np.testing.assert_allclose(res.hess_inv.todense(), np.linalg.inv(J.T @ J), rtol=1e-8)
    r, Q = residuals(res.x), np.linalg.qr(J)[0]
    assert float(res.cosine) == pytest.approx(np.linalg.norm(Q.T @ r) / np.linalg.norm(r), abs=1e-12)


def test_jacobians_are_counted_and_computed_where_f_is_lower():
    seen = []

    def fun(b):
        return residuals(b)

    def jac(b):
        jax.debug.callback(lambda: seen.append(1))
        return jax.jacobian(residuals)(b)

    res = solve(fun, jac=jac, x0=(10.0, 5.0, 3.0))
    jax.effects_barrier()
    assert res.success and res.nit < res.nfev - 1  # some trials were no better
    assert len(seen) == res.njev == res.nit + 1


def test_residuals_may_be_any_tree_and_complex():
    tree = lambda b: {"a": b[0] - 1, "b": [b[1] * (1 + 1j) - 2j, b[0] * jnp.ones((2, 3))]}
    res = solve(tree, (3.0, 4.0))
    flat = lambda b: jnp.stack([b[0] - 1, b[1], b[1] - 2, *[b[0]] * 6])
    np.testing.assert_allclose(res.x, solve(flat, (3.0, 4.0)).x, rtol=1e-6)
    assert float(res.fun) == pytest.approx(float(jnp.sum(flat(res.x) ** 2) / 2))


def test_parameters_may_be_a_tree_and_aux_comes_back():
    fit = lambda b: ((b["a"] * jnp.exp(-b["k"] * T) + b["c"]) - Y, {"level": b["c"]})
    res = minimize(fit, {"a": 1.0, "k": 1.0, "c": 0.0}, method=METHOD, has_aux=True)
    assert res.success and res.aux["level"] == res.x["c"]
    np.testing.assert_allclose([res.x["a"], res.x["k"], res.x["c"]], solve().x, rtol=1e-6)


# ---- trouble


@pytest.mark.parametrize("unit", [1e-20, 1e-30])
def test_residuals_whose_squares_underflow_are_no_solution(unit):
    y = np.asarray(Y, "float32")
    res = solve(lambda b: np.float32(unit) * (decay(b) - y).astype("float32"), dtype="float32")
    assert not res.success
    assert res.status == Status.SEARCH_FAILED
    np.testing.assert_array_equal(res.x, [1, 1, 0])


def test_residuals_whose_squares_overflow_are_no_success_away_from_the_minimum():
    y = np.asarray(Y, "float32")
    res = solve(lambda b: np.float32(3e18) * (decay(b) - y).astype("float32"), dtype="float32")
    assert not res.success or np.allclose(res.x, solve().x, rtol=1e-2)


def test_no_variables():
    res = solve(lambda x: jnp.ones(3) + jnp.sum(x), ())
    assert res.x.shape == (0,) and float(res.fun) == 1.5


@pytest.mark.filterwarnings("ignore:fun returns one number")
def test_fewer_residuals_than_parameters():
    """The shortest step to a solution, in the scales of the columns; what is not determined is infinite."""
    res = solve(lambda b: b[:1] + b[1:2] + b[2:] - 3, (1.0, 1.0, 4.0))
    assert res.success
    np.testing.assert_allclose(res.x, [0.0, 0.0, 3.0], atol=1e-8)
    with pytest.warns(RuntimeWarning, match=r"do not determine x\[0\], x\[1\], x\[2\]"):
        assert np.isinf(np.diag(res.covariance())).all()
    with pytest.warns(RuntimeWarning, match=r"do not determine x\[0\], x\[1\], x\[2\]: variances are infinite"):
        popt, pcov = jaxmin.curve_fit(model, T[:2], Y[:2], absolute_sigma=True)
    np.testing.assert_allclose(model(T[:2], *popt), Y[:2], rtol=1e-6)
    assert np.isinf(np.diag(pcov)).all()


def test_columns_that_depend_on_each_other():
    fit = lambda b: (b["a"] + b["c"]) * jnp.exp(-b["k"] * T) - Y
    res = minimize(fit, {"a": 1.0, "c": 1.0, "k": 1.0}, method=METHOD)
    assert res.success and res.message.startswith("Converged")
    assert float(res.x["a"] + res.x["c"]) == pytest.approx(2, abs=0.2)
    with pytest.warns(RuntimeWarning, match=r"do not determine x\['a'\], x\['c'\]: variances are infinite"):
        C = res.covariance()
    assert C["a"]["a"] == np.inf and C["a"]["c"] == -np.inf and 0 < C["k"]["k"] < 1


def test_a_trial_that_is_nan_is_only_a_trial():
    """log(b) is NaN where the first step leads."""
    seen = []
    fit = lambda b: jnp.log(b) - jnp.log(jnp.asarray([1e-3, 2.0]))

    def watched(b):
        jax.debug.callback(lambda r: seen.append(np.isnan(r).any()), fit(b))
        return fit(b)

    res = solve(watched, (50.0, 50.0))
    jax.effects_barrier()
    assert res.success and any(seen) and res.nfev > res.njev
    np.testing.assert_allclose(res.x, [1e-3, 2.0], rtol=1e-6)


def test_nan_at_x0():
    res = solve(lambda b: jnp.log(b), (-1.0, 1.0))
    assert (res.status, res.nit) == (Status.NAN, 0) and not res.success
    assert "NaN or infinite" in res.message and "No step was made from x0" in res.message
    with pytest.warns(RuntimeWarning, match="curve_fit: Stopped: .* NaN or infinite"):
        popt, pcov = jaxmin.curve_fit(model, T, np.where(T > 9, np.nan, Y))
    assert popt.tolist() == [1, 1, 1] and np.isnan(pcov).all()


def test_no_residual_is_left():
    res = solve(lambda b: jnp.stack([10 * (b[1] - b[0] ** 2), 1 - b[0]]), (-1.2, 1.0))
    assert res.success
    np.testing.assert_allclose(res.x, 1.0, rtol=1e-8)
    exact = solve(lambda b: b - 1, (1.0, 1.0))
    assert exact.success and exact.nfev == 1 and exact.cosine == 0 and "within gtol" in exact.message
    assert not solve(lambda b: jnp.append(b, b[0]) - 1, (1.0, 1.0)).standard_errors().any()


def test_a_solution_at_zero_is_reached():
    res = solve(lambda b: jnp.stack([b[0] + b[1] ** 2, b[1] * (1 + b[0])]), (1.0, 1.0))
    assert res.success and np.max(np.abs(res.x)) <= 1e-8


@each_dtype
def test_a_steep_start_does_not_pass_for_the_minimum(dtype):
    """The first Jacobian has columns of e^10 to e^30. The solve ends at a minimum, or where a column is 0."""
    t = jnp.linspace(0, 10, 20, dtype=dtype)
    y = 2 * jnp.exp(-0.5 * t) + 0.01 * jnp.sin(37 * t)
    for k in (1.0, 2.0, 3.0):
        res = solve(lambda b: b[0] * jnp.exp(b[1] * t) - y, (1.0, k), dtype)
        J = jax.jacobian(lambda b: b[0] * jnp.exp(b[1] * t))(res.x)
        assert not res.success or res.fun < 5e-4 or np.all(np.asarray(J[:, 1]) == 0)


def test_a_radius_holds_where_the_squares_of_the_newton_step_overflow():
    """Brown's almost linear function in float32, from far away: its columns become nearly the same."""
    fit = lambda x: jnp.append(x[:-1] + jnp.sum(x) - 11, jnp.prod(x) - 1)
    res = solve(fit, np.full(10, 50.0), "float32")
    assert res.success and res.nfev < 100 and res.fun < 1e-9


def test_slopes_tell_where_f_shows_no_more_decrease():
    """Penalty function II: Gauss-Newton steps are too long at its minimum, and the radius decides to the end."""
    t = np.arange(1, 11)
    e = lambda v: jnp.exp(v / 10)

    def fit(x):
        first = jnp.concatenate([e(x[1:]) + e(x[:-1]) - e(t[1:]) - e(t[:-1]), e(x[1:]) - e(-1.0)])
        return jnp.concatenate([x[:1] - 0.2, 1e-5**0.5 * first, jnp.sum((11 - t) * x**2, keepdims=True) - 1])

    for factor in (1, 10, 100):
        res = solve(fit, np.full(10, 0.5 * factor))
        assert res.success, res.message
        assert 2 * float(res.fun) == pytest.approx(2.936605374567e-4, rel=1e-11)


@mostly_float64
def test_a_minimum_where_the_jacobian_loses_its_rank(dtype):
    """Of Freudenstein and Roth, and of Jennrich and Sampson: the Gauss-Newton step stays long, the Hessian tells."""
    cubics = lambda x: jnp.stack(
        [x[0] - 13 + ((5 - x[1]) * x[1] - 2) * x[1], x[0] - 29 + ((x[1] + 1) * x[1] - 14) * x[1]]
    )
    i = np.arange(1, 11)
    growth = lambda x: 2 + 2 * i - jnp.exp(i * x[0]) - jnp.exp(i * x[1])
    for fit, x0, least in ((cubics, (0.5, -2.0), 48.98425), (growth, (0.3, 0.4), 124.36218)):
        for res in (solve(fit, x0, dtype), jax.jit(lambda x0: solve(fit, x0, dtype))(jnp.asarray(x0, dtype))):  # noqa: B023
            assert res.success, res.message
            assert 2 * float(res.fun) == pytest.approx(least, rel=1e-6)


def test_a_jacobian_that_is_infinite_is_no_iterate():
    """At its bound the root has the lowest value, and no slope."""
    res = solve(lambda x: jnp.sqrt(x), (0.5,), bounds=[(0, None)])
    assert res.status != Status.MAXFUN and 0 < res.x[0] < 1e-6


@mostly_float32
def test_steps_end_at_bounds_exactly(dtype):
    rng = np.random.default_rng(0)
    for _ in range(12):
        A, b, low = rng.normal(size=(6, 2)), rng.normal(size=6), 0.3 * rng.normal(size=2)
        high = low + rng.uniform(0.1, 0.5, 2)
        A, b, low, high = (u.astype(dtype) for u in (A, b, low, high))
        res = minimize(
            lambda x, A, b: A @ x - b, (low + high) / 2, args=(A, b), method=METHOD, bounds=Bounds(low, high)
        )
        theirs = scipy.optimize.lsq_linear(A.astype(float), b.astype(float), (low.astype(float), high.astype(float)))
        assert res.success
        np.testing.assert_allclose(res.x, theirs.x, atol=1e-3 if dtype == "float32" else 1e-6)


def test_what_is_no_list_of_residuals():
    with pytest.raises(ValueError, match="fun: it returns no residuals; a fit needs at least one"):
        solve(lambda b: b[:0])
    with pytest.raises(ValueError, match="fun: it returns no residuals"):
        jaxmin.curve_fit(model, T[:0], Y[:0])
    with pytest.raises(TypeError, match="residuals are numbers"):
        solve(lambda b: b > 0)
    with pytest.raises(ValueError, match="jac=True: fun returns residuals"):
        solve(lambda b: (b, b), jac=True)
    with pytest.raises(ValueError, match=r"jac: a Jacobian of shapes \[\(3,\)\] for 60 residuals"):
        solve(jac=lambda b: b)
    with pytest.warns(RuntimeWarning, match="one number, which counts as one residual"):
        solve(lambda b: b @ b)
    with pytest.raises(ValueError, match="radius=-1"):
        jaxmin.levenberg_marquardt(radius=-1)
    with pytest.raises(ValueError, match="f_scale=0"):
        solve(options={"loss": "huber", "f_scale": 0})
    with pytest.raises(ValueError, match=r"loss='hubre': one of 'linear', 'soft_l1'"):
        solve(options={"loss": "hubre"})
    with pytest.raises(ValueError, match="this method takes none"):
        solve(constraints={"type": "ineq", "fun": lambda b: b[0]})


def test_a_rule_that_is_wrong_ends_without_success():
    res = solve(jac=lambda b: -jax.jacobian(residuals)(b))
    assert res.status == Status.SEARCH_FAILED and "Is the Jacobian right" in res.message


# ---- float32


@mostly_float32
def test_success_means_near_the_minimum(dtype):
    """Fits of 300 data sets: each that is within 1e-4 of the least cost is a success, and each success is."""
    rng = np.random.default_rng(1)
    truth = rng.uniform([1, 0.2, -0.5], [3, 1, 0.5], (300, 3))
    y = (truth[:, :1] * np.exp(-truth[:, 1:2] * T) + truth[:, 2:] + 0.05 * rng.normal(size=(300, 60))).astype(dtype)
    fit = lambda b, y: b[0] * jnp.exp(-b[1] * T.astype(y.dtype)) + b[2] - y
    start = np.ones(3)
    res = jaxmin.minimize_many(fit, start.astype(dtype), args=(y,), in_axes=(None, 0), method=METHOD)
    exact = jaxmin.minimize_many(fit, start, args=(y.astype("float64"),), in_axes=(None, 0), method=METHOD)
    cost = np.sum(np.asarray(jax.vmap(fit)(np.asarray(res.x, "float64"), y.astype("float64"))) ** 2, axis=1) / 2
    assert res.x.dtype == dtype and exact.success.all()
    excess = cost / np.asarray(exact.fun) - 1
    assert np.mean(res.success[excess <= 1e-4]) >= 0.99
    assert np.max(excess[np.asarray(res.success)]) <= 1e-2


def test_a_large_constant_does_not_end_a_fit_early():
    """A line as high as the noise, on a ground of 100: the residuals have the rounding of 100, of either sign."""
    t, rng = np.linspace(-5, 5, 100), np.random.default_rng(0)
    truth = rng.uniform([0.5, -2, 0.3, 99], [2, 2, 1, 101], (100, 4))
    line = lambda b, t: b[0] * jnp.exp(-0.5 * ((t - b[1]) / b[2]) ** 2) + b[3]
    y = np.stack([line(b, t) for b in truth]) + rng.normal(size=(100, 100))
    y, start = y.astype("float32"), np.tile(np.float32([1, 0, 0.6, 100]), (100, 1))
    fit = lambda b, y: line(b, t.astype(y.dtype)) - y
    res = jaxmin.minimize_many(fit, start, args=(y,), method=METHOD)
    wide = np.asarray(res.x, "float64"), y.astype("float64")
    exact = jaxmin.minimize_many(fit, wide[0], args=wide[1:], method=METHOD)
    excess = np.sum(np.asarray(jax.vmap(fit)(*wide)) ** 2, axis=1) / 2 / np.asarray(exact.fun) - 1
    assert res.x.dtype == "float32" and np.mean(excess[exact.success] <= 1e-4) >= 0.97


# ---- bounds


@pytest.mark.parametrize(
    ("lower", "upper"), [((0, 0, -1), (1.5, 1, 0)), ((0, 0.7, -0.1), (5, 1, 0.2)), ((0, 0.5, 0), (5, 0.5, 1))]
)
def test_bounds_hold_and_the_solution_is_scipys(lower, upper):
    inside = []
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)

    def fun(b, y):
        jax.debug.callback(lambda b: inside.append(np.all((lower <= b) & (b <= upper))), b)
        return residuals(b, y)

    res = solve(fun, (1.0, 0.8, 0.0), args=(OUTLIERS,), bounds=Bounds(lower, upper))
    jax.effects_barrier()
    assert res.success and all(inside)
    fixed = lower == upper
    free = np.flatnonzero(~fixed)
    theirs = scipy.optimize.least_squares(
        lambda v: np.asarray(residuals(np.where(fixed, lower, 0).astype(float) + np.eye(3)[:, free] @ v, OUTLIERS)),
        np.clip([1.0, 0.8, 0.0], lower + 1e-3, upper - 1e-3)[free], bounds=(lower[free], upper[free]),
        xtol=1e-14, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip
    np.testing.assert_allclose(res.x[free], theirs.x, atol=2e-6)
    np.testing.assert_array_equal(np.diag(res.covariance())[np.asarray(res.active_mask) != 0], 0)


# ---- losses


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_losses_are_scipys(loss):
    fun, jac = jax.jit(residuals), jax.jit(jax.jacobian(residuals))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = Y + np.where(rng.random(60) < 0.15, 3 * rng.normal(size=60), 0)
        ours = solve(args=(y,), options={"loss": loss, "f_scale": 0.1, "gtol": 1e-10, "xtol": 1e-10})
        theirs = scipy.optimize.least_squares(
            lambda b, y=y: np.asarray(fun(b, y)), ours.x, loss=loss, f_scale=0.1, xtol=1e-15, ftol=1e-15,
            gtol=1e-15, jac=lambda b, y=y: np.asarray(jac(b, y)), max_nfev=1000,
        )  # fmt: skip
        assert ours.success
        np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(ours.fun, theirs.cost, rtol=1e-9)


@pytest.mark.parametrize("name", mostly(("Chwirut2", "Gauss1", "Kirby2", "Rat42", "Roszman1"), "Chwirut2", "Rat42"))
def test_losses_are_scipys_on_spoiled_data(name):
    """Every seventh number is 15 standard deviations off."""
    data, model = nist.load(name), nist.model(name)
    odd = np.where(np.arange(data.y.size) % 14 == 3, 1, -1)
    spoiled = data.y + np.where(np.arange(data.y.size) % 7 == 3, 15 * data.rsd * odd, 0)
    fit = lambda b, x, y: model(b, x) - y
    fun, jac = jax.jit(fit), jax.jit(jax.jacobian(fit))
    for loss in ("soft_l1", "huber", "cauchy", "arctan"):
        options = {"loss": loss, "f_scale": data.rsd, "gtol": 1e-10, "xtol": 1e-10}
        ours = solve(fit, data.certified, args=(data.x, spoiled), options=options)
        theirs = scipy.optimize.least_squares(
            lambda b: np.asarray(fun(b, data.x, spoiled)), data.certified,
            jac=lambda b: np.asarray(jac(b, data.x, spoiled)), loss=loss, f_scale=data.rsd, x_scale="jac",
            xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=1000,
        )  # fmt: skip
        assert ours.success, (loss, ours.message)
        np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-6, err_msg=loss)
        np.testing.assert_allclose(ours.fun, theirs.cost, rtol=1e-9, err_msg=loss)


@pytest.mark.parametrize("loss", mostly(("huber", "cauchy"), "huber"))
def test_a_step_that_rounding_hides_is_no_failure(loss):
    """Where the model promises several times what there is to gain, and rounding hides both."""
    data, model = nist.load("Thurber"), nist.model("Thurber")
    spoiled = data.y.copy()
    spoiled[3::7] += 15 * data.rsd * (-1) ** np.arange(spoiled[3::7].size)
    fit = lambda b, y: model(b, data.x) - y
    res = solve(fit, data.starts[1], args=(spoiled,), options={"loss": loss, "f_scale": data.rsd})
    assert res.success, res.message
    in_units = jaxmin.sum_of_squares(lambda u, y: fit(u * res.x, y), loss, data.rsd)
    least = minimize(in_units, jnp.ones(7), args=(spoiled,), method="trust_exact", options={"gtol": 1e-6})
    assert float(least.fun) == pytest.approx(float(res.fun), rel=1e-12)


def test_the_same_sum_for_any_method():
    for loss in ("linear", "huber", lambda z: jnp.log1p(z)):
        fun = jaxmin.sum_of_squares(residuals, loss, 0.1)
        ours = solve(args=(OUTLIERS,), options={"loss": loss, "f_scale": 0.1})
        plain = minimize(fun, jnp.array([1.0, 1.0, 0.0]), args=(OUTLIERS,), options={"gtol": 1e-9})
        np.testing.assert_allclose(ours.x, plain.x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.fun, plain.fun, rtol=1e-9)
        np.testing.assert_allclose(ours.jac, plain.jac, atol=1e-6)
    with pytest.raises(TypeError, match="residuals=3"):
        jaxmin.sum_of_squares(3)
    with pytest.raises(ValueError, match="scale=-1"):
        jaxmin.sum_of_squares(residuals, "huber", -1)


def test_a_loss_of_the_users_own_is_never_out_of_date():
    """Its function is keyed by what it does, and its scale is an input."""
    spread = 1.0
    rho = lambda z: 2 * spread * (jnp.sqrt(1 + z / spread) - 1)
    call = lambda scale: solve(args=(OUTLIERS,), options={"loss": rho, "f_scale": scale})
    wide = call(0.1)
    spread = 0.01
    narrow = call(0.1)
    expected = minimize(jaxmin.sum_of_squares(residuals, rho, 0.1), jnp.array([1.0, 1.0, 0.0]), args=(OUTLIERS,))
    assert narrow.success and narrow.fun < wide.fun / 2
    assert float(narrow.fun) == pytest.approx(float(expected.fun), rel=1e-6)
    with compilations() as compiled:
        solve(args=(OUTLIERS,), options={"loss": lambda z: 2 * spread * (jnp.sqrt(1 + z / spread) - 1), "f_scale": 0.2})
    assert not compiled
    slope = jax.jit(jax.grad(lambda scale: call(scale).fun))(0.1)
    assert slope == pytest.approx(float(call(0.101).fun - call(0.099).fun) / 2e-3, rel=1e-3)


# ---- derivatives, batches


@pytest.mark.parametrize("loss", mostly(("linear", "cauchy"), "cauchy"))
def test_derivatives_of_a_fit(loss):
    options = {"loss": loss, "f_scale": 0.1, "gtol": 1e-12, "xtol": 1e-12}

    def fitted(weight, y):
        return solve(lambda b, y: weight * residuals(b, y), args=(y,), options=options).x

    at, dots = (1.5, jnp.asarray(OUTLIERS)), (1.0, jnp.asarray(RNG.normal(size=60)))
    forward = jax.jvp(fitted, at, dots)[1]
    h = 1e-3
    moved = [fitted(*(a + s * h * d for a, d in zip(at, dots))) for s in (1, -1)]
    np.testing.assert_allclose(forward, (moved[0] - moved[1]) / (2 * h), atol=5e-4)

    def plainly(weight, y):
        fun = jaxmin.sum_of_squares(lambda b: weight * residuals(b, y), loss, 0.1)
        return minimize(fun, jnp.array([1.0, 1.0, 0.0]), options={"gtol": 1e-10}).x

    np.testing.assert_allclose(forward, jax.jit(lambda: jax.jvp(plainly, at, dots)[1])(), rtol=1e-5)
    reverse = jax.vjp(fitted, *at)[1](jnp.array([1.0, -2.0, 3.0]))
    along = reverse[0] * dots[0] + reverse[1] @ dots[1]
    np.testing.assert_allclose(along, forward @ jnp.array([1.0, -2.0, 3.0]), rtol=1e-6)


@pytest.mark.parametrize("highest", mostly((np.inf, 0.5), 0.5))
def test_derivatives_by_data_and_arguments(highest):
    """Both modes, beside central differences of minima; by default with a parameter at its bound."""

    def fit(b, data, bend, highest):
        return b[0] * jnp.exp(-b[1] * data["t"]) + b[2] + bend * jnp.sin(data["t"]) - data["y"]

    def fitted(*args):
        bounds = Bounds(-jnp.inf, jnp.stack([args[2], jnp.inf, jnp.inf]))
        return solve(fit, args=args, bounds=bounds).x

    @jax.jit
    def minimum(*args):
        """By Newton's steps from there, to the last digits."""
        cost = jaxmin.sum_of_squares(lambda v: fit(jnp.concatenate([args[2][None], v])[-3:], *args))
        b = fitted(*args)
        v = b[1:] if np.isfinite(highest) else b
        for _ in range(3):
            v = v - jnp.linalg.solve(jax.hessian(cost)(v), jax.grad(cost)(v))
        return jnp.concatenate([args[2][None], v])[-3:]

    at = ({"t": jnp.asarray(T), "y": jnp.asarray(OUTLIERS)}, 0.1, jnp.asarray(highest))
    forward, reverse = (jax.jit(jacobian(fitted, (0, 1, 2)))(*at) for jacobian in (jax.jacfwd, jax.jacrev))
    rng, h = np.random.default_rng(4), 2e-5
    dots = jax.tree.map(lambda u: rng.normal(size=np.shape(u)), at)
    moved = [minimum(*jax.tree.map(lambda u, d, h=h: u + h * d, at, dots)) for h in (h, -h)]
    along = sum(jax.tree.leaves(jax.tree.map(lambda J, d: jnp.tensordot(J, d, np.ndim(d)), forward, dots)))
    np.testing.assert_allclose(along, (moved[0] - moved[1]) / (2 * h), rtol=1e-5)
    for one, other in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse)):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_a_batch_and_jit_are_single_fits():
    ys = jnp.stack([jnp.asarray(Y), 2 * jnp.asarray(Y), jnp.asarray(OUTLIERS), jnp.full(60, jnp.nan)])
    fit = lambda y: solve(args=(y,))
    batch = jax.vmap(fit)(ys)
    assert batch.success.tolist() == [True, True, True, False]
    for y, lane in zip(ys[:3], range(3)):
        one = jax.jit(fit)(y)
        np.testing.assert_allclose(batch.x[lane], one.x, rtol=1e-9)
        assert batch.nfev[lane] == one.nfev and batch.njev[lane] == one.njev
    np.testing.assert_allclose(
        batch.standard_errors()[1], jax.jit(lambda y: fit(y).standard_errors())(ys[1]), rtol=1e-9
    )


def test_a_saved_solve_and_a_history():
    solver = jaxmin.Solver(residuals, method=METHOD)
    state = solver.init(jnp.array([1.0, 1.0, 0.0]))
    for _ in range(3):
        state = solver.step(state)
    res = solver.result(solver.run(state))
    np.testing.assert_allclose(res.x, solve().x, rtol=1e-12)
    history = solve(options={"history": 20}).history
    assert history.nit.tolist()[: int(res.nit) + 1] == list(range(int(res.nit) + 1))


# ---- covariance


def test_covariance_of_a_likelihood_is_its_inverse_hessian():
    """Of a Gaussian process: the curvature of its negative log-likelihood, which the profile shows too."""
    x = np.linspace(0, 3, 25)
    rng = np.random.default_rng(3)
    y = np.sin(2 * x) + 0.1 * rng.normal(size=25)

    def nll(p):
        K = jnp.exp(2 * p[0] - 0.5 * ((x[:, None] - x) / jnp.exp(p[1])) ** 2) + jnp.exp(2 * p[2]) * jnp.eye(25)
        L = jnp.linalg.cholesky(K)
        a = jax.scipy.linalg.solve_triangular(L, y, lower=True)
        return a @ a / 2 + jnp.sum(jnp.log(jnp.diagonal(L)))

    res = minimize(nll, jnp.array([0.0, 0.0, -1.0]), options={"gtol": 1e-8})
    C = res.covariance()
    h, slope = 1e-4, jax.jit(jax.grad(nll))
    differences = np.stack([(slope(res.x + h * e) - slope(res.x - h * e)) / (2 * h) for e in np.eye(3)])
    np.testing.assert_allclose(C, np.linalg.inv(jax.jit(jax.hessian(nll))(res.x)), rtol=1e-7)
    np.testing.assert_allclose(C, np.linalg.inv(differences), rtol=1e-5)
    # f of the profile rises by t^2 / 2 where one parameter is t standard errors off.
    t = 0.01
    with_one_fixed = lambda p, i, at: nll(p.at[i].set(at))
    for i in range(3):
        at = res.x[i] + t * res.standard_errors()[i]
        profile = minimize(with_one_fixed, res.x, args=(jnp.asarray(i), at), options={"gtol": 1e-8})
        assert (profile.fun - res.fun) / (t * t / 2) == pytest.approx(1, abs=0.02)


def test_derivatives_of_a_covariance():
    """Of residuals they are not known: NaN, and never a wrong number. Of a likelihood they are exact."""
    scale = lambda a: solve(lambda b: a * residuals(b)).covariance()[0, 0]
    for derivative in (jax.jacfwd(scale), jax.grad(scale)):
        assert np.isnan(jax.jit(derivative)(1.0))
    of_hessian = lambda a: minimize(lambda b: a * jnp.sum((b - a) ** 2) + b[0] ** 4, jnp.ones(2)).covariance()[0, 0]
    assert jax.jit(jax.grad(of_hessian))(1.5) == pytest.approx(
        float(of_hessian(1.501) - of_hessian(1.499)) / 2e-3, rel=1e-3
    )


def test_a_covariance_of_many_and_of_a_method_without_a_gradient():
    ys = np.stack([Y, 2 * Y])
    many = jaxmin.minimize_many(residuals, np.ones((2, 3)), args=(ys,), method=METHOD, hess_inv=True)
    one = solve(args=(ys[1],), x0=np.ones(3))
    np.testing.assert_allclose(many.covariance()[1], one.covariance(), rtol=1e-5)
    with pytest.raises(ValueError, match="hess_inv=True"):
        jaxmin.minimize_many(residuals, np.ones((2, 3)), args=(ys,), method=METHOD).covariance()
    simplex = minimize(lambda b: b @ b, jnp.ones(2), method="nelder_mead")
    np.testing.assert_allclose(simplex.covariance(), np.eye(2) / 2, atol=1e-10)


def test_as_many_parameters_as_residuals():
    """Nothing is left over to say how large the errors are: infinite variances as of SciPy, and a warning."""
    line, t, y = (lambda t, a, b: a + b * t), np.array([1.0, 2.0]), np.array([3.0, 5.0])
    with pytest.warns(scipy.optimize.OptimizeWarning):
        theirs = scipy.optimize.curve_fit(line, t, y)
    with pytest.warns(RuntimeWarning, match="as many parameters as residuals.*absolute_sigma=True"):
        popt, pcov = jaxmin.curve_fit(line, t, y)
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-9)
    np.testing.assert_array_equal(pcov, theirs[1])
    theirs = scipy.optimize.curve_fit(line, t, y, sigma=[0.1, 0.2], absolute_sigma=True)
    popt, pcov = jaxmin.curve_fit(line, t, y, sigma=np.array([0.1, 0.2]), absolute_sigma=True)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-9)


def test_a_result_can_be_pickled():
    res = pickle.loads(pickle.dumps(solve()))
    np.testing.assert_array_equal(res.covariance(), solve().covariance())


def test_covariance_where_it_is_not_to_be_had():
    outside = jax.jit(lambda: minimize(lambda b: b @ b, jnp.ones(2)))()
    with pytest.raises(ValueError, match="has left jit or vmap"):
        outside.covariance()
    inside = jax.jit(lambda: minimize(lambda b: b @ b, jnp.ones(2)).covariance())()
    np.testing.assert_allclose(inside, np.eye(2) / 2, atol=1e-12)
    constrained = minimize(lambda b: b @ b, jnp.ones(2), constraints={"type": "eq", "fun": lambda b: b[0] - 1})
    with pytest.raises(NotImplementedError, match="within constraints"):
        constrained.covariance()
    z = minimize(lambda z: jnp.abs(z) ** 2, 1.0 + 1.0j)
    with pytest.raises(NotImplementedError, match="complex"):
        z.covariance()
    saddle = minimize(lambda b: b[0] ** 2 - b[1] ** 2, jnp.zeros(2), method="lbfgs")
    assert np.isnan(saddle.covariance()).all()
    flat = minimize(lambda b: (b[0] + b[1] - 1) ** 2, jnp.ones(2))
    with pytest.warns(RuntimeWarning, match=r"x\[0\], x\[1\]"):
        flat.covariance()


# ---- curve_fit


def model(t, a, k, c):
    return a * jnp.exp(-k * t) + c


SIGMA = np.random.default_rng(2).uniform(0.03, 0.08, 60)
CALLS = {
    "plain": {},
    "sigma": {"sigma": SIGMA},
    "absolute": {"sigma": SIGMA, "absolute_sigma": True},
    "a number": {"sigma": 0.05 * np.ones(60), "absolute_sigma": True},
    "a matrix": {"sigma": np.diag(SIGMA**2) + 5e-4, "absolute_sigma": True},
    "bounds": {"bounds": (0, [3, 2, 1])},
    "one side": {"bounds": ([0, 0, -1], np.inf)},
}


@pytest.mark.parametrize("name", CALLS)
def test_curve_fit_is_scipys(name):
    numpys = lambda t, a, k, c: a * np.exp(-k * t) + c
    theirs = scipy.optimize.curve_fit(numpys, T, Y, [1.0, 1.0, 0.1], **CALLS[name])
    popt, pcov = jaxmin.curve_fit(model, T, Y, [1.0, 1.0, 0.1], **CALLS[name])
    np.testing.assert_allclose(popt, theirs[0], rtol=1e-5)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-4)


def test_curve_fit_in_a_batch_with_a_jacobian_and_a_loss():
    ys = jnp.stack([jnp.asarray(Y), 2 * jnp.asarray(Y)])
    popt, pcov = jax.vmap(lambda y: jaxmin.curve_fit(model, T, y))(ys)
    assert popt.shape == (2, 3) and pcov.shape == (2, 3, 3)
    jac = lambda t, a, k, c: jnp.stack([jnp.exp(-k * t), -a * t * jnp.exp(-k * t), jnp.ones_like(t)], axis=1)
    by_hand, _ = jaxmin.curve_fit(model, T, Y, jac=jac, sigma=SIGMA)
    np.testing.assert_allclose(by_hand, jaxmin.curve_fit(model, T, Y, sigma=SIGMA)[0], rtol=1e-7)
    robust, _, res = jaxmin.curve_fit(model, T, OUTLIERS, loss="huber", f_scale=0.1, full_output=True)
    assert res.success and np.max(np.abs(robust - popt[0])) < 0.1


def test_bounds_of_two_parameters_and_a_narrow_start():
    line = lambda t, a, b: a + b * t
    pairs, _ = jaxmin.curve_fit(line, T, 1 + 2 * T, bounds=[(0, 5), (0, None)])
    arrays, _ = jaxmin.curve_fit(line, T, 1 + 2 * T, bounds=((0, 0), (5, 5)))
    np.testing.assert_allclose(pairs, [1, 2], rtol=1e-6)
    np.testing.assert_allclose(arrays, [1, 2], rtol=1e-6)
    listed, _ = jaxmin.curve_fit(lambda t, a: a * t, [1.0, 2.0], [2.0, 4.0])
    np.testing.assert_allclose(listed, 2, rtol=1e-12)
    narrow, _ = jaxmin.curve_fit(model, T, Y, np.ones(3, np.float32))
    np.testing.assert_allclose(narrow, solve().x, rtol=1e-6)


def test_curve_fit_says_what_is_wrong():
    with pytest.raises(ValueError, match="p0: the number of parameters cannot be seen"):
        jaxmin.curve_fit(lambda t, *b: b[0] * t, T, Y)
    with pytest.raises(ValueError, match=r"f: it returns an array of shape \(\) for an ydata of shape \(60,\)"):
        jaxmin.curve_fit(lambda t, a: a, T, Y)
    with pytest.raises(ValueError, match=r"sigma: an array of shape \(3,\)"):
        jaxmin.curve_fit(model, T, Y, sigma=np.ones(3))
    with pytest.raises(ValueError, match=r"p0: an array of shape \(1, 3\)"):
        jaxmin.curve_fit(model, T, Y, np.ones((1, 3)))
    with pytest.raises(TypeError, match="f=3"):
        jaxmin.curve_fit(3, T, Y)
    with pytest.warns(RuntimeWarning, match="curve_fit: Stopped: maxiter"):
        jaxmin.curve_fit(model, T, Y, maxiter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxmin.curve_fit(model, T, Y)


def test_residuals_smaller_than_their_rounding_are_no_success_by_rounding():
    """In float32 the sum of squares of Lanczos1 is rounding, and so is a claim about its decrease."""
    data, model = nist.load("Lanczos1"), nist.model("Lanczos1")
    x, y = data.x.astype("float32"), data.y.astype("float32")
    for start in data.starts:
        res = solve(lambda b: model(b, x) - y, start, "float32")
        assert res.status != Status.PRECISION and res.fun < 1e-7, res.message
