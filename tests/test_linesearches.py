"""Every line search, alone on functions of one variable, ends at a step that meets its conditions.

``SEARCHES`` lists them; a test that takes ``name`` runs for all. What a search promises is the
``accepts`` of its row.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype
from scipy.optimize._dcsrch import DCSRCH

from jaxmin import Start
from jaxmin.linesearches.backtracking import backtracking
from jaxmin.linesearches.hager_zhang import hager_zhang
from jaxmin.linesearches.wolfe import wolfe

# ---- what each search promises: f, g at the accepted t, and the slack s that rounding may need


def strong_wolfe(t, f, g, f0, g0, s, noise, sufficient, curvature):
    flat = abs(f - f0) <= noise + s and -sufficient * t * g0 <= noise + s
    approximate = flat and curvature * g0 <= g <= (2 * sufficient - 1) * g0
    return (f <= f0 + sufficient * t * g0 + s and abs(g) <= -curvature * g0) or approximate


def wolfe_or_approximate(t, f, g, f0, g0, s, noise, sufficient, curvature):
    t1 = f <= f0 + sufficient * t * g0 + s
    t2 = f <= f0 + noise + s and g <= (2 * sufficient - 1) * g0
    return g >= curvature * g0 and (t1 or t2)


class Case(NamedTuple):
    build: Callable  # the search
    accepts: Callable  # its conditions
    constants: dict  # that `accepts` needs, with the search's defaults
    bad: tuple  # constants to be refused: (name in the message, keywords)


SEARCHES = {
    "wolfe": Case(
        wolfe,
        strong_wolfe,
        {"sufficient": 1e-4, "curvature": 0.9},
        (
            ("sufficient", {"sufficient": 0.0}),
            ("sufficient", {"sufficient": math.nan}),
            ("sufficient", {"sufficient": 0.9, "curvature": 0.5}),
            ("curvature", {"curvature": 1.0}),
            ("max_trials", {"max_trials": 0}),
        ),
    ),
    "hager_zhang": Case(
        hager_zhang,
        wolfe_or_approximate,
        {"sufficient": 0.1, "curvature": 0.9},
        (
            ("sufficient", {"sufficient": -0.1}),
            ("sufficient", {"sufficient": 0.5}),
            ("curvature", {"curvature": 1.0}),
            ("curvature", {"curvature": math.nan}),
            ("theta", {"theta": 1.0}),
            ("expansion", {"expansion": 1.0}),
            ("expansion", {"expansion": math.inf}),
            ("shrinkage", {"shrinkage": 0.0}),
            ("max_trials", {"max_trials": 0}),
        ),
    ),
}
each_search = pytest.mark.parametrize("name", SEARCHES)


# ---- the two ways to drive a search


def numbers(dtype, *values):
    return tuple(jnp.asarray(v, dtype) for v in values)


@functools.lru_cache(maxsize=8)
def differentiated(phi):
    return jax.jit(jax.value_and_grad(phi))


def start(phi, max_step=math.inf, noise=0.0, dtype="float64"):
    zero, max_step, noise = numbers(dtype, 0, max_step, noise)
    return Start(*differentiated(phi)(zero), noise, max_step)


@functools.lru_cache(maxsize=8)
def compiled(search, phi):
    def body(carry):
        state, _, _, start = carry
        f, g = jax.value_and_grad(phi)(state.step)
        return search.step(state, start, f, g, state.step * start.slope), f, g, start

    def solve(start, first):
        going = lambda carry: ~(carry[0].done | carry[0].failed)
        carry = search.init(start, first), start.f, start.slope, start
        return jax.lax.while_loop(going, body, carry)[:3]

    return jax.jit(solve)


def run(search, phi, first, dtype="float64", **options):
    """The whole search in one compiled loop: its last state, and phi and its slope at the last trial."""
    return compiled(search, phi)(start(phi, dtype=dtype, **options), *numbers(dtype, first))


def trace(search, phi, first, limit=200, dtype="float64", **options):
    """The same, step by step: its last state and all trials."""
    begin, step, trials = start(phi, dtype=dtype, **options), jax.jit(search.step), []
    state = search.init(begin, *numbers(dtype, first))
    while not (state.done or state.failed):
        trials.append(float(state.step))
        state = step(state, begin, *differentiated(phi)(state.step), state.step * begin.slope)
        assert len(trials) <= limit, "the search does not end"
    return state, trials


def told(search, first, answers, max_step=math.inf, noise=0.0, f0=0.0, slope0=-1.0, dtype="float64"):
    """The search told ``answers`` (f, slope) whatever it asks: its last state and all trials."""
    begin, step, trials = Start(*numbers(dtype, f0, slope0, noise, max_step)), jax.jit(search.step), []
    state = search.init(begin, *numbers(dtype, first))
    for f, slope in answers:
        trials.append(float(state.step))
        state = step(state, begin, *numbers(dtype, f, slope), state.step * begin.slope)
        if state.done or state.failed:
            break
    return state, trials


def check_accepted(name, phi, state, f, g, noise=0.0, **constants):
    """The search says done, and the conditions of its row hold at the trial it was told last."""
    case = SEARCHES[name]
    assert bool(state.done) and not bool(state.failed)
    eps = float(jnp.finfo(state.step.dtype).eps)
    f0, g0 = differentiated(phi)(jnp.zeros_like(state.step))
    t, f, g, f0, g0 = (float(v) for v in (state.step, f, g, f0, g0))
    s = 8 * eps * max(abs(f0), abs(f))
    assert case.accepts(t, f, g, f0, g0, s, noise, **{**case.constants, **constants}), (t, f, g)


# ---- functions


def mt1(t, beta=2.0):
    return -t / (t * t + beta)


def mt2(t, beta=0.004):
    return (t + beta) ** 5 - 2 * (t + beta) ** 4


def mt3(t, beta=0.01, l=39):
    rounded = (t - 1) ** 2 / (2 * beta) + beta / 2
    kink = jnp.where(jnp.abs(t - 1) >= beta, jnp.abs(t - 1), rounded)
    return kink + 2 * (1 - beta) / (l * math.pi) * jnp.sin(l * math.pi / 2 * t)


def yanai(beta1, beta2):
    def gamma(beta):
        return math.sqrt(1 + beta * beta) - beta

    def phi(t):
        return gamma(beta1) * jnp.sqrt((1 - t) ** 2 + beta2**2) + gamma(beta2) * jnp.sqrt(t * t + beta1**2)

    return phi


# Moré and Thuente (1994), Tables 1 to 6: function, mu, eta, and for each first step in MT_FIRST the
# number of evaluations and the step that the paper prints. (Table 4 prints 0.08 for what is 0.085.)
MT_FIRST = (1e-3, 1e-1, 1e1, 1e3)
MT_TABLES = {
    "5.1": (mt1, 1e-3, 1e-1, (6, 3, 1, 4), (1.4, 1.4, 10, 37)),
    "5.2": (mt2, 1e-1, 1e-1, (12, 8, 8, 11), (1.6, 1.6, 1.6, 1.6)),
    "5.3": (mt3, 1e-1, 1e-1, (12, 12, 10, 13), (1.0, 1.0, 1.0, 1.0)),
    "5.4": (yanai(1e-3, 1e-3), 1e-3, 1e-3, (4, 1, 3, 4), (0.085, 0.10, 0.35, 0.83)),
    "5.5": (yanai(1e-2, 1e-3), 1e-3, 1e-3, (6, 3, 7, 8), (0.075, 0.078, 0.073, 0.076)),
    "5.6": (yanai(1e-3, 1e-2), 1e-3, 1e-3, (13, 11, 8, 11), (0.93, 0.93, 0.92, 0.92)),
}
each_table = pytest.mark.parametrize("table", MT_TABLES)


def barrier(t):  # its domain ends at 1, its minimiser is 0.8
    return -jnp.log(1 - t) - 5 * t


def random_phi(rng):
    """A falling, then rising function with waves: some trials are too long, too high, beyond a hump."""
    a, b, c, d = rng.uniform(0.1, 3), rng.uniform(0, 1.5), rng.uniform(0.5, 12), rng.uniform(0, 6)
    k = 10 ** rng.uniform(-2, 2)

    def phi(t):
        u = t * k
        return jnp.sqrt(1 + (u - a) ** 2) + b / c * jnp.sin(c * u + d) + 0.01 * u**2

    return phi if float(jax.grad(phi)(0.0)) < -1e-3 else random_phi(rng)


# Each compiles its own program: by default a third of them, the others with `pytest -m slow`.
each_seed = pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed < 20 else pytest.mark.slow) for seed in range(60)]
)


# ---- Moré and Thuente's search against their paper and against SciPy's


@each_table
@pytest.mark.parametrize("k", range(len(MT_FIRST)))
def test_wolfe_repeats_the_tables_of_more_and_thuente(table, k):
    phi, mu, eta, counts, steps = MT_TABLES[table]
    eta = max(eta, math.nextafter(mu, 1))  # the paper's mu = eta, as close as decrease < curvature lets it
    state, f, g = run(wolfe(mu, eta), phi, MT_FIRST[k], max_step=1e10)
    check_accepted("wolfe", phi, state, f, g, sufficient=mu, curvature=eta)
    assert int(state.trials) == counts[k]
    assert float(state.step) == pytest.approx(steps[k], rel=0.5 / 10, abs=0.05 if steps[k] >= 1 else 0.005)


def scipy_trials(phi, first, mu, eta, max_step):
    value_and_grad, trials = differentiated(phi), []

    def f(t):
        trials.append(float(t))
        return float(value_and_grad(jnp.asarray(t, "float64"))[0])

    def g(t):
        return float(value_and_grad(jnp.asarray(t, "float64"))[1])

    search = DCSRCH(f, g, mu, eta, xtol=1e-15, stpmin=0.0, stpmax=max_step)
    *_, task = search(first, *(float(v) for v in value_and_grad(jnp.asarray(0.0, "float64"))), maxiter=41)
    return trials, task


@each_seed
def test_wolfe_makes_the_trials_of_scipys_dcsrch(seed):
    rng = np.random.default_rng(seed)
    phi, first = random_phi(rng), 10 ** rng.uniform(-3, 3)
    max_step = first * 10 ** rng.uniform(0.1, 2) if seed % 3 == 0 else 1e10
    mu = 10 ** rng.uniform(-4, -0.5)
    eta = rng.uniform(mu, 1)
    state, trials = trace(wolfe(mu, eta), phi, first, max_step=max_step)
    expected, task = scipy_trials(phi, first, mu, eta, max_step)
    assert task.startswith((b"CONVERGENCE", b"WARNING: STP = STPMAX")), task
    assert bool(state.done)
    np.testing.assert_allclose(trials, expected, rtol=1e-6)


# ---- Hager and Zhang's search against their paper, written as they write it: loops within loops


def hager_zhang_trials(phi, first, delta, sigma, theta=0.5, rho=5.0, gamma=0.66):
    value_and_grad, trials, known = differentiated(phi), [], {}
    f0, g0 = (float(v) for v in value_and_grad(jnp.asarray(0.0, "float64")))

    class Accepted(Exception):
        pass

    def at(t):  # a new trial; ends everything where T1 or T2 holds
        f, g = known[t] = tuple(float(v) for v in value_and_grad(jnp.asarray(t, "float64")))
        trials.append(t)
        if g >= sigma * g0 and (f <= f0 + delta * t * g0 or (f <= f0 and g <= (2 * delta - 1) * g0)):
            raise Accepted
        return f, g

    def halve(a, b):  # U3
        while True:
            d = (1 - theta) * a + theta * b
            f, g = at(d)
            if g >= 0:
                return a, d
            a, b = (d, b) if f <= f0 else (a, d)

    def update(a, b, c):  # U0 to U3
        if not a < c < b:
            return a, b
        f, g = at(c)
        return (a, c) if g >= 0 else (c, b) if f <= f0 else halve(a, c)

    def secant(a, b):
        (_, ga), (_, gb) = known[a], known[b]
        return (a * gb - b * ga) / (gb - ga) if ga != gb else math.inf

    def secant2(a, b):  # S1 to S4
        c = secant(a, b)
        A, B = update(a, b, c)
        if c == B:
            return update(A, B, secant(b, B))
        return update(A, B, secant(a, A)) if c == A else (A, B)

    def bracket(c):  # B0 to B3, with the last lower end in B2
        a = 0.0
        while True:
            f, g = at(c)
            if g >= 0:
                return a, c
            if f > f0:
                return halve(a, c)
            a, c = c, rho * c

    known[0.0] = f0, g0
    try:
        a, b = bracket(first)
        while True:  # L1 to L3
            A, B = secant2(a, b)
            wide = gamma * (b - a) < B - A
            a, b = update(A, B, (A + B) / 2) if wide else (A, B)
    except Accepted:
        return trials


@each_seed
def test_hager_zhang_makes_the_trials_of_the_paper(seed):
    rng = np.random.default_rng(1000 + seed)
    phi, first = random_phi(rng), 10 ** rng.uniform(-3, 3)
    delta = 10 ** rng.uniform(-4, -0.5)
    sigma = rng.uniform(delta, 0.1 if seed % 2 else 0.9) if delta < 0.1 else 0.9
    others = ((0.5, 5.0, 0.66), (0.3, 2.0, 0.66), (0.7, 9.0, 0.3))[seed % 3]  # theta, rho, gamma
    state, trials = trace(hager_zhang(delta, sigma, *others), phi, first)
    assert bool(state.done)
    np.testing.assert_allclose(trials, hager_zhang_trials(phi, first, delta, sigma, *others), rtol=1e-6)


def test_hager_zhang_is_compared_on_every_part_of_its_paper():
    """The random functions above reach long searches, not only the first trial."""
    counts = []
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        phi, first = random_phi(rng), 10 ** rng.uniform(-3, 3)
        counts.append(len(hager_zhang_trials(phi, first, 1e-3, 0.01)))
    assert max(counts) >= 8 and np.mean(counts) > 3


# ---- all searches


@each_search
@each_dtype
@each_table
def test_what_is_accepted_satisfies_the_conditions(name, dtype, table):
    phi = MT_TABLES[table][0]
    noise = float(4 * jnp.finfo(dtype).eps * abs(phi(jnp.asarray(0.0, dtype))))
    for first in MT_FIRST:
        state, f, g = run(SEARCHES[name].build(), phi, first, noise=noise, dtype=dtype)
        if (table, dtype, name) == ("5.2", "float32", "wolfe"):  # phi' is blurred by 1e-6, phi'(0) is 5e-7:
            assert bool(state.done) and float(state.step) == pytest.approx(1.596, rel=1e-3)  # its best trial
            continue
        check_accepted(name, phi, state, f, g, noise=noise)
        assert int(state.trials) <= 25


@each_search
@each_dtype
def test_the_compiled_loop_and_single_steps_agree(name, dtype):
    for phi, first in itertools.product((mt1, mt3, barrier), (1e-2, 7.0)):
        looped, _, _ = run(SEARCHES[name].build(), phi, first, dtype=dtype)
        stepped, trials = trace(SEARCHES[name].build(), phi, first, dtype=dtype)
        assert int(looped.trials) == len(trials) == int(stepped.trials)
        assert float(looped.step) == pytest.approx(trials[-1], rel=1e3 * float(jnp.finfo(dtype).eps))


@each_search
@each_dtype
@pytest.mark.parametrize("first", (0.3, 1.0, 1.5, 40.0, 1e6))
def test_a_trial_outside_the_domain_shortens_the_search(name, dtype, first):
    search = SEARCHES[name].build()
    state, f, g = run(search, barrier, first, dtype=dtype)
    check_accepted(name, barrier, state, f, g)
    assert 0 < float(state.step) < 1
    _, trials = trace(search, barrier, first, dtype=dtype)
    outside = [t for t in trials if t >= 1]
    assert outside == sorted(outside, reverse=True) and len(set(outside)) == len(outside)


@each_search
@pytest.mark.parametrize(
    "f, slope", [(math.nan, -1.0), (math.inf, -1.0), (math.nan, math.nan), (-1.0, math.nan), (-1.0, math.inf)]
)
def test_forty_trials_outside_the_domain_halve_the_step_and_fail(name, f, slope):
    state, trials = told(SEARCHES[name].build(), 1.0, [(f, slope)] * 100)
    assert bool(state.failed) and not bool(state.done)
    assert len(trials) == 40 == int(state.trials)
    np.testing.assert_allclose(trials, 0.5 ** np.arange(40))


@each_search
def test_the_search_bisects_between_its_lower_end_and_the_edge_of_the_domain(name):
    """Steep at 1, outside at the next trial: all that follow lie between, nearer to 1."""
    steep = (-1.0, -1.0)
    _, trials = told(SEARCHES[name].build(), 1.0, [steep] + [(math.nan, math.nan)] * 5)
    edge = np.array(trials[1:]) - 1
    assert edge[0] > 1
    np.testing.assert_allclose(edge, edge[0] * 0.5 ** np.arange(5))


@each_search
def test_a_hole_inside_the_bracket(name):
    """Too high at 8, not finite at the next trial: the search goes on below, and ends."""

    def phi(t):
        return jnp.where((t > 1.5) & (t < 6), jnp.nan, (t - 1) ** 2)

    state, f, g = run(SEARCHES[name].build(), phi, 8.0)
    check_accepted(name, phi, state, f, g)
    assert float(state.step) <= 1.5


@each_search
@pytest.mark.parametrize("slope", [-1.0, 1.0, -math.inf, math.nan])
def test_minus_infinity_is_accepted_at_once(name, slope):
    state, _ = told(SEARCHES[name].build(), 3.0, [(-math.inf, slope)])
    assert bool(state.done) and not bool(state.failed) and float(state.step) == 3.0


@each_search
@each_dtype
@pytest.mark.parametrize("max_step", [0.7, 1.0, 3.0, 50.0])
def test_a_function_that_falls_for_ever_takes_the_longest_step(name, dtype, max_step):
    state, trials = trace(SEARCHES[name].build(), lambda t: -t, 1.0, max_step=max_step, dtype=dtype)
    assert bool(state.done)
    assert float(state.step) == trials[-1] == float(np.asarray(max_step, dtype))
    assert all(b > a for a, b in itertools.pairwise(trials))


@each_search
@each_dtype
def test_a_function_that_falls_for_ever_without_a_longest_step(name, dtype):
    """The trials grow until they run out or f overflows; what was reached is accepted."""
    state, _ = trace(SEARCHES[name].build(), lambda t: -t, 1.0, dtype=dtype)
    assert bool(state.done) and np.isfinite(float(state.step)) and float(state.step) > 1e10


@each_search
@each_dtype
def test_steps_stay_finite(name, dtype):
    longest = float(jnp.finfo(dtype).max)
    state, trials = trace(SEARCHES[name].build(), lambda t: -1e-8 * t, longest / 1e6, dtype=dtype)
    assert bool(state.done) and np.isfinite(trials).all()
    assert float(state.step) == longest


@each_search
@each_table
def test_no_trial_is_longer_than_max_step(name, table):
    phi = MT_TABLES[table][0]
    for first, max_step in itertools.product(MT_FIRST, (0.05, 0.5, 5.0)):
        state, trials = trace(SEARCHES[name].build(), phi, first, max_step=max_step)
        assert max(trials) <= max_step
        assert bool(state.done)


@each_search
def test_a_longest_step_that_is_too_high_is_not_accepted(name):
    """phi has a dip at 0.3 and is above phi(0), though it falls, at max_step."""

    def phi(t):
        return 0.5 * t - jnp.sin(6 * t)

    state, f, g = run(SEARCHES[name].build(), phi, 2.0, max_step=1.0)
    end = jnp.asarray(1.0)
    assert phi(end) > phi(0.0) and jax.grad(phi)(end) < 0
    check_accepted(name, phi, state, f, g)
    assert float(state.step) < 1.0


def test_hager_zhang_looks_below_a_longest_step_that_falls_too_little():
    """At max_step f is below f(0), but not enough; neither is there anything beyond."""

    def phi(t):
        return 0.5 * t - jnp.sin(6 * t)

    state, f, g = run(hager_zhang(curvature=0.5), phi, 2.0, max_step=1.17)
    check_accepted("hager_zhang", phi, state, f, g, curvature=0.5)
    assert float(state.step) < 1


@each_search
def test_a_slope_that_is_not_downhill_fails_at_once(name):
    for slope0 in (0.0, 1.0, math.nan):
        state, trials = told(SEARCHES[name].build(), 1.0, [(-1.0, 0.5)] * 50, slope0=slope0)
        assert bool(state.failed) and not bool(state.done) and len(trials) == 1


@each_search
def test_the_sufficient_decrease_is_measured_by_predicted(name):
    """On a bent path the step promises less than t slope0; the decrease that it gives is enough."""
    search = SEARCHES[name].build()
    sufficient = SEARCHES[name].constants["sufficient"]
    begin = Start(*numbers("float64", 0, -1, 0, math.inf))
    state = search.init(begin, *numbers("float64", 1))
    f, g = -0.5 * sufficient, -1e-3  # too little for predicted = -1, enough for -0.1
    straight = search.step(state, begin, *numbers("float64", f, g, -1.0))
    bent = search.step(state, begin, *numbers("float64", f, g, -0.1))
    assert bool(bent.done)
    assert name == "hager_zhang" or not bool(straight.done)  # T2 takes it either way


# ---- giving up


@each_search
def test_a_search_out_of_trials_returns_to_its_best_trial(name):
    """The first trial is steep but lower; then nothing good: it is proposed again and accepted."""
    answers = [(-1.0, -1.0)] + [(5.0, 3.0)] * 6 + [(-1.0, -1.0)]
    state, trials = told(SEARCHES[name].build(max_trials=7), 1.0, answers)
    assert bool(state.done) and not bool(state.failed)
    assert trials[-1] == trials[0] == float(state.step) == 1.0
    assert len(trials) == 8 and 1.0 not in trials[1:-1]


@each_search
def test_of_two_trials_with_the_sufficient_decrease_the_lower_one_is_returned_to(name):
    answers = [(-5.0, -1.0), (-3.0, -1.0)] + [(5.0, 3.0)] * 5 + [(-5.0, -1.0)]
    state, trials = told(SEARCHES[name].build(max_trials=7), 1.0, answers)
    assert bool(state.done) and trials[-1] == trials[0] == 1.0 < trials[1]


@each_search
def test_a_search_out_of_trials_accepts_the_trial_that_is_its_best(name):
    """Each trial is lower than the last but as steep: the last one needs no second evaluation."""
    answers = [(-float(k), -1.0) for k in range(1, 20)]
    state, trials = told(SEARCHES[name].build(max_trials=5), 1e-3, answers)
    assert bool(state.done) and len(trials) == 5 and float(state.step) == trials[-1] == max(trials)


@each_search
def test_a_search_out_of_trials_with_nothing_to_return_to_fails(name):
    state, trials = told(SEARCHES[name].build(max_trials=5), 1.0, [(5.0, 3.0)] * 20)
    assert bool(state.failed) and not bool(state.done) and len(trials) == 5


@each_search
@each_dtype
def test_a_bracket_as_narrow_as_rounding_ends_the_search(name, dtype):
    """A slope that jumps from -1 to 1 has no acceptable step; the corner is approached, then returned."""

    def phi(t):
        return jnp.where(t < 0.7, -t, 1e3 * (t - 0.7))

    state, trials = trace(SEARCHES[name].build(max_trials=1000), phi, 2.0, dtype=dtype)
    assert bool(state.done)
    assert float(state.step) == pytest.approx(0.7, rel=8 * float(jnp.finfo(dtype).eps))
    assert len(trials) < 150


# ---- the noise floor


@each_search
@pytest.mark.parametrize("minimiser", [0.03, 0.3, 0.8, 1.0, 3.0, 20.0])
def test_where_rounding_hides_f_the_slopes_decide(name, minimiser):
    """phi = 1e8 + a tiny parabola in float32, where 1e8 + 1 = 1e8: nothing is seen of its decrease."""
    noise = 4 * np.finfo("float32").eps * 1e8

    def f(t):
        return np.float32(1e8 - t + t * t / (2 * minimiser))

    search, step = SEARCHES[name].build(), jax.jit(SEARCHES[name].build().step)
    begin = Start(*numbers("float32", f(0), -1, noise, math.inf))
    state = search.init(begin, *numbers("float32", 1))
    while not (state.done or state.failed):
        t = np.float32(state.step)
        state = step(state, begin, *numbers("float32", f(t), t / minimiser - 1, -t))
    assert bool(state.done) and int(state.trials) <= 4
    assert 0.05 * minimiser < float(state.step) < 2 * minimiser


def test_wolfe_lets_the_slopes_decide_only_where_rounding_may_hide_the_decrease():
    """f has not changed: to be excused where 0.1 of the predicted decrease is noise, and nowhere else."""
    for noise, excused in ((0.2, True), (0.05, False)):
        state, _ = told(wolfe(0.1, 0.2), 1.0, [(0.0, 0.5)], noise=noise)
        assert bool(state.done) == excused


@each_search
def test_a_longest_step_whose_decrease_is_hidden_is_accepted_where_slopes_still_fall(name):
    state, _ = told(SEARCHES[name].build(), 1.0, [(0.5, -1.0)], max_step=1.0, noise=2.0)
    assert bool(state.done) and float(state.step) == 1.0


@each_search
def test_a_decrease_that_may_be_noise_does_not_excuse_a_steep_rise(name):
    """The slope has doubled and turned: a parabola would be higher here than where it began."""
    state, trials = told(SEARCHES[name].build(), 1.0, [(-1.5, 2.0), (0.0, 0.1)], noise=2.0)
    assert bool(state.done) and len(trials) == 2 and 0.2 < trials[1] < 0.8


def test_hager_zhang_forgives_a_rise_within_the_noise():
    """T2: f may rise by the noise, however much was predicted."""
    for rise, accepted in ((0.01, True), (0.03, False)):
        state, _ = told(hager_zhang(), 1.0, [(rise, 0.5)], noise=0.02)
        assert bool(state.done) == accepted


@each_search
@each_dtype
def test_where_f_is_noisier_than_told_the_search_fails_soon(name, dtype):
    eps = float(jnp.finfo(dtype).eps)
    answers = [(1 + 50 * eps, 0.5 * eps)] * 50
    search = SEARCHES[name].build()
    state, trials = told(search, 1.0, answers, f0=1.0, slope0=-eps, noise=4 * eps, dtype=dtype)
    assert bool(state.failed) and len(trials) <= 5


@each_search
def test_where_slopes_are_noise_too_the_search_ends_soon(name):
    rng = np.random.default_rng(7)
    search, counts = SEARCHES[name].build(), []
    for _ in range(50):
        answers = [(1.0, 30e-8 * rng.standard_normal()) for _ in range(60)]
        state, trials = told(search, 1.0, answers, f0=1.0, slope0=-1e-8, noise=5e-7, dtype="float32")
        assert bool(state.done) != bool(state.failed)
        counts.append(len(trials))
    assert np.mean(counts) < 8


@each_search
def test_a_flat_stretch_is_extended_while_the_slopes_are_steep(name):
    """Steps whose decrease is hidden are lengthened, not taken for too long."""
    noise = 1e-3

    def phi(t):
        return round((t * t / 200 - t) / noise) * noise

    search = SEARCHES[name].build()
    begin = Start(*numbers("float64", 0, -1, noise, math.inf))
    state = search.init(begin, *numbers("float64", 1e-6))
    trials = []
    while not (state.done or state.failed):
        t = float(state.step)
        trials.append(t)
        state = search.step(state, begin, *numbers("float64", phi(t), t / 100 - 1, -t))
    assert bool(state.done) and float(state.step) > 5
    assert trials == sorted(trials)


# ---- the compiler's view


@each_search
@each_dtype
def test_steps_keep_structure_and_dtypes(name, dtype):
    search = SEARCHES[name].build()
    begin, first, *values = Start(*numbers(dtype, 1, -1, 1e-7, 10)), *numbers(dtype, 1, 1, -1, -1)
    state = jax.eval_shape(search.init, begin, first)
    after = jax.eval_shape(search.step, state, begin, *values)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert {str(a.dtype) for a in jax.tree.leaves(after)} <= {dtype, "bool", "int32"}
    assert (after.step.dtype, after.trials.dtype) == (jnp.dtype(dtype), jnp.int32)
    assert after.done.dtype == after.failed.dtype == jnp.bool_


@each_search
@each_dtype
def test_steps_hold_no_loop_and_no_branch(name, dtype):
    search = SEARCHES[name].build()
    begin, first, *values = Start(*numbers(dtype, 1, -1, 1e-7, 10)), *numbers(dtype, 1, 1, -1, -1)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        text = str(jax.make_jaxpr(search.step)(search.init(begin, first), begin, *values))
    for primitive in ("while", "cond[", "scan"):
        assert primitive not in text
    assert text.count(" = ") < 260  # it runs once a trip, on scalars


@each_search
def test_a_batch_is_its_searches_one_by_one(name):
    search = SEARCHES[name].build()
    firsts = np.array([1e-3, 0.1, 0.5, 0.99, 1.7, 30.0, 1e4])
    shifts = np.array([0.0, 0.3, -2.0, 1.0, 4.0, -1.0, 0.5])

    def solve(first, shift):
        def phi(t):
            return barrier(t) + shift * t**2

        state, f, _ = run(search, phi, first)
        return state.step, state.trials, state.done, f

    batch = jax.vmap(solve)(firsts, shifts)
    for lane, (first, shift) in enumerate(zip(firsts, shifts, strict=True)):
        step, trials, done, f = solve(first, shift)
        assert (int(trials), bool(done)) == (int(batch[1][lane]), bool(batch[2][lane]))
        np.testing.assert_allclose([step, f], [batch[0][lane], batch[3][lane]], rtol=1e-9)
    assert len(set(np.asarray(batch[1]).tolist())) > 2  # the lanes differ in length


# ---- constants


@pytest.mark.parametrize(
    "name, argument, keywords", [(name, *bad) for name, case in SEARCHES.items() for bad in case.bad]
)
def test_bad_constants_are_refused_by_name(name, argument, keywords):
    with pytest.raises(ValueError, match=argument) as error:
        SEARCHES[name].build(**keywords)
    assert str(keywords[argument]) in str(error.value)


@each_search
def test_equal_constants_give_the_same_search(name):
    case = SEARCHES[name]
    assert case.build() is case.build(**case.constants) is case.build(*case.constants.values())
    assert case.build(sufficient=0.01) is not case.build()


# ---- backtracking: its trials, by hand


def wall(at):
    """-t, and steeply up beyond the wall."""
    return lambda t: (-t + 1e4 * max(t - at, 0) ** 2, -1 + 2e4 * max(t - at, 0))


def beyond(t):
    return (-t, -1.0) if t < 2 else (math.nan, math.nan)


BACKTRACKING = {
    "the minimiser of a parabola, of the cubic too": (lambda t: (t * t - t, 2 * t - 1), {}, [1, 0.5]),
    "at least a hundredth of the way": (lambda t: (-t + 1e6 * t**2, -1 + 2e6 * t), {"max_trials": 3}, [1, 0.01, 1e-4]),
    "not finite: half the way": (lambda t: (-t, -1.0) if t < 0.3 else (math.inf, 1.0), {}, [1, 0.5, 0.25]),
    "steep: ten times as far from the last that was": (lambda t: (-t, -1.0), {"max_trials": 3}, [1, 10, 91]),
    "no longer than allowed": (lambda t: (-t, -1.0), {"max_step": 4}, [1, 4]),
    "by the secant, where the curvature asks for it": (
        lambda t: (t * t / 16 - t, t / 8 - 1), {"curvature": 0.4}, [1, 8]
    ),
    "too long after too short: a quarter of the way": (wall(1.05), {}, [1, 10, 3.25, 1.5625, 1.140625, 1.03515625]),
    "likewise where it is not finite": (beyond, {}, [1, 10, 3.25, 1.5625]),
    "too short after too long: half of that at most": (wall(0.05), {}, [1, 0.01, 0.1, 0.0325]),
}  # fmt: skip


@pytest.mark.parametrize("case", BACKTRACKING)
def test_backtracking_makes_the_trials_worked_out_by_hand(case):
    phi, constants, expected = BACKTRACKING[case]
    longest = constants.get("max_step", jnp.inf)
    search = backtracking(**{name: value for name, value in constants.items() if name != "max_step"})
    start = Start(jnp.zeros(()), -jnp.ones(()), jnp.zeros(()), longest)
    state, trials = search.init(start, jnp.ones(())), []
    while not (state.done or state.failed):
        t = float(state.step)
        trials.append(t)
        f, slope = phi(t)
        state = search.step(state, start, jnp.asarray(f), jnp.asarray(slope), jnp.asarray(-t))
    np.testing.assert_allclose(trials, expected, rtol=1e-6)
    assert state.done == (case != "at least a hundredth of the way")
