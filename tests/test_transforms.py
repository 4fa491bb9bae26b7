"""The building blocks in hand-written loops take the steps of jax.example_libraries and of Optax.

``OPTIMIZERS`` lists the optimizers with the constants of their runs; a test that takes ``name`` runs for all.
"""

import functools
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.example_libraries.optimizers as library
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, mostly_float64
from problems import OPTIMIZERS

import jaxmin
from jaxmin import transforms
from jaxmin.transforms import apply_updates, chain, clip_by_global_norm, clip_grads, l2_norm, partition

optax = pytest.importorskip("optax")

ALL = OPTIMIZERS | {"extra_gradient": (0.1,)}
# In units of the last place of x. A last place of beta^t is magnified by 1 / (1 - beta^t) < 1000 in Adam.
ROUNDING = dict.fromkeys(OPTIMIZERS, 4) | {"adam": 64}

# Optax's optimizer of the same definition. AdaGrad there starts from 0.1 and has no average, AdaMax's eps stands
# elsewhere, and SM3's is added to the sum: the definitions agree without them. Adam's constants are numbers that
# float32 holds exactly: Optax takes their powers in double.
SAME_IN_OPTAX = {
    "sgd": (transforms.sgd(0.1), optax.sgd(0.1)),
    "momentum": (transforms.momentum(0.05, 0.9), optax.sgd(0.05, momentum=0.9)),
    "nesterov": (transforms.nesterov(0.05, 0.9), optax.sgd(0.05, momentum=0.9, nesterov=True)),
    "adagrad": (transforms.adagrad(0.5, momentum=0.0), optax.adagrad(0.5, 0.0, eps=0.0)),
    "rmsprop": (transforms.rmsprop(0.05), optax.rmsprop(0.05)),
    "rmsprop_momentum": (transforms.rmsprop_momentum(0.01), optax.rmsprop(0.01, momentum=0.9)),
    "adam": (transforms.adam(0.1, 0.875, 0.9375), optax.adam(0.1, 0.875, 0.9375)),
    "adamax": (transforms.adamax(0.1, eps=0.0), optax.adamax(0.1, eps=0.0)),
    "sm3": (transforms.sm3(0.5), optax.chain(optax.scale_by_sm3(0.9, eps=0.0), optax.scale(-0.5))),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
each_of_all = pytest.mark.parametrize("name", ALL)


# ---- the problem, and the two loops


def start(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    return {"w": draw(2, 2), "b": ((draw(2), draw()),)}


def start_for_optax(name, dtype="float64"):
    params = start(dtype)
    return params | {"b": params["b"][0][:1]} if name == "sm3" else params  # its SM3 fails on scalars


def loss(params):
    """A quadratic with its minimum at -0.7, of another curvature in each leaf: 1, 2, …"""
    leaves = jax.tree.leaves(params)
    return sum(curvature / 2 * jnp.sum(abs(leaf + 0.7) ** 2) for curvature, leaf in enumerate(leaves, 1))


def descent(params):
    """The gradient that descends: JAX's, conjugated."""
    return jax.tree.map(jnp.conj, jax.grad(loss)(params))


def build(name):
    return getattr(transforms, name)(*ALL[name])


def trip(tx, carry, gradient=descent):
    params, state = carry
    updates, state = tx.update(gradient(params), state, params)
    return apply_updates(params, updates), state


def run(tx, params, steps=20, gradient=descent, state=None):
    """The compiled loop: where it ends, and every iterate."""

    def body(carry, _):
        carry = trip(tx, carry, gradient)
        return carry, carry[0]

    def loop(params, state):
        return jax.lax.scan(body, (params, state), None, length=steps)

    return jax.jit(loop)(params, jax.jit(tx.init)(params) if state is None else state)


def library_run(name, dtype, steps=20):
    """The eager loop of jax.example_libraries: every iterate."""
    init, update, get_params = getattr(library, name)(*OPTIMIZERS[name])
    state, gradient, iterates = init(start(dtype)), jax.jit(jax.grad(loss)), []
    for i in range(steps):
        state = update(i, gradient(get_params(state)), state)
        iterates.append(get_params(state))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *iterates)


def units(count, dtype):
    eps = count * float(jnp.finfo(dtype).eps)
    return {"rtol": eps, "atol": eps}


def saved(tree):
    """The tree through numpy arrays in a list and back, as a file would give it."""
    leaves, structure = jax.tree.flatten(tree)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    return structure.unflatten([jnp.asarray(np.array(leaf)) for leaf in leaves])


# ---- iterates


@each_optimizer
@mostly_float64
def test_iterates_under_jit_are_those_of_the_eager_library(name, dtype):
    _, iterates = run(build(name), start(dtype))
    assert_trees_close(iterates, library_run(name, dtype), **units(ROUNDING[name], dtype))


@each_optimizer
@mostly_float64
def test_iterates_are_those_of_optax(name, dtype):
    ours, theirs = SAME_IN_OPTAX[name]
    params = start_for_optax(name, dtype)
    _, iterates = run(ours, params)
    _, wanted = run(theirs, params)
    assert_trees_close(iterates, wanted, **units(ROUNDING[name], dtype))


def test_schedule_is_told_the_iteration_index_from_zero():
    rate = lambda i: 0.1 / (1 + i)
    (_, state), iterates = run(transforms.sgd(rate), start())
    wanted, params = [], start()
    for i in range(20):
        params = jax.tree.map(lambda p, g: p - 0.1 / (1 + i) * g, params, descent(params))  # noqa: B023
        wanted.append(params)
    assert_trees_close(iterates, jax.tree.map(lambda *leaves: jnp.stack(leaves), *wanted), **units(4, "float64"))
    assert state.k == 20 and state.k.dtype == jnp.int32


@each_of_all
def test_every_dtype_of_a_mixed_tree_is_kept(name):
    """Two decimal digits in half precision: an optimizer that lost its state there would not arrive."""
    params = {dtype: jnp.full(3, 1, dtype) for dtype in ("bfloat16", "float16", "float32", "float64", "complex64")}
    tx = build(name)
    before = tx.init(params)
    (after, state), _ = run(tx, params, steps=300)
    kinds = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
    assert kinds(before) == kinds(state) and kinds(after) == kinds(params)
    for leaf in jax.tree.leaves(after):
        np.testing.assert_allclose(np.asarray(leaf, complex), -0.7, atol=0.1)


@pytest.mark.parametrize(("name", "moment"), [("adam", "v"), ("adamax", "u"), ("adagrad", "G"), ("rmsprop", "n")])
def test_second_moments_of_complex_leaves_are_real_and_iterates_optaxs(name, moment):
    params = jnp.asarray([1 + 2j, -3j, 0.5])
    ours, theirs = SAME_IN_OPTAX[name]
    (_, state), iterates = run(ours, params)
    _, wanted = run(theirs, params)
    assert_trees_close(iterates, wanted, **units(ROUNDING[name], "float64"))
    second = getattr(state, moment)
    assert second.dtype == jnp.float64 and (second > 0).all()


@each_of_all
def test_zero_gradients_move_nothing(name):
    params = {"w": jnp.ones((2, 3)), "h": jnp.ones(2, "float16"), "b": jnp.ones(())}
    (after, _), _ = run(build(name), params, steps=3, gradient=lambda p: jax.tree.map(jnp.zeros_like, p))
    assert_trees_close(after, params, rtol=0)


@each_of_all
def test_nan_in_the_gradient_is_not_hidden(name):
    (after, _), _ = run(build(name), jnp.ones(2), steps=2, gradient=lambda p: p * jnp.array([1, jnp.nan]))
    assert np.isnan(after).tolist() == [False, True]


@each_of_all
def test_a_batch_of_starts_and_rates_is_its_runs_one_by_one(name):
    rate, *rest = ALL[name]
    of = jax.jit(lambda params, rate: run(getattr(transforms, name)(rate, *rest), params)[0][0])
    lanes, rates = [start(seed=0), start(seed=1)], jnp.array([rate, rate / 2])
    batch = jax.vmap(of)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes), rates)
    for lane, alone in enumerate([run(build(name), lanes[0])[0][0], of(lanes[1], rates[1])]):
        assert_trees_close(jax.tree.map(lambda leaf: leaf[lane], batch), alone, rtol=1e-12)  # noqa: B023


@each_of_all
def test_a_run_saved_after_seven_updates_goes_on_as_if_nothing_had_been(name):
    """Seven is odd: the middle of an extra-gradient pair."""
    tx = build(name)
    (_, whole_state), whole = run(tx, start())
    (params, state), _ = run(tx, start(), steps=7)
    (_, resumed_state), resumed = run(tx, saved(params), steps=13, state=saved(state))
    assert_trees_close(resumed, jax.tree.map(lambda leaf: leaf[7:], whole), rtol=1e-14)
    assert_trees_close(resumed_state, whole_state, rtol=1e-13)


# ---- the rate


@each_of_all
@pytest.mark.parametrize("rate", ["0.1", None, [0.1], True, 1j, np.ones(1), jnp.ones(2)])
def test_rate_of_another_kind_is_named_with_the_choices(name, rate):
    with pytest.raises(TypeError) as caught:
        getattr(transforms, name)(rate, *ALL[name][1:])
    for word in ("learning_rate", repr(rate), "number", "traced scalar", "schedule"):
        assert word in str(caught.value)


CONSTANTS = [
    ("momentum", {"mass": np.inf}, ValueError),
    ("nesterov", {"mass": None}, TypeError),
    ("adagrad", {"momentum": 1.0}, ValueError),
    ("rmsprop", {"gamma": -0.1}, ValueError),
    ("rmsprop", {"eps": -1e-8}, ValueError),
    ("rmsprop_momentum", {"momentum": np.nan}, ValueError),
    ("adam", {"b1": 1.0}, ValueError),
    ("adam", {"b2": "0.999"}, TypeError),
    ("adamax", {"eps": np.inf}, ValueError),
    ("sm3", {"momentum": np.nan}, ValueError),
    ("sgd", {"learning_rate": np.nan}, ValueError),
]


@pytest.mark.parametrize(("name", "given", "kind"), CONSTANTS)
def test_constant_that_cannot_be_right_is_named(name, given, kind):
    ((constant, value),) = given.items()
    with pytest.raises(kind, match=constant) as caught:
        getattr(transforms, name)(**({"learning_rate": 0.1} | given))
    assert repr(value) in str(caught.value)


@each_of_all
def test_equal_constants_give_the_same_transformation(name):
    optimizer, (rate, *rest) = getattr(transforms, name), ALL[name]
    schedule = lambda: transforms.exponential_decay(rate, 10, 0.5)
    assert optimizer(rate, *rest) is optimizer(jnp.float64(rate), *rest)
    assert optimizer(schedule(), *rest) is optimizer(schedule(), *rest) is not optimizer(rate, *rest)


def test_a_member_may_call_what_it_is_given_by_position_as_it_likes():
    member = transforms.Transformation(lambda params: (), lambda grad, state, value=None: (-grad, state))
    x = jnp.ones(2)
    for tx in (chain(member), partition({"a": member}, "a")):
        updates, _ = tx.update(x, tx.init(x), x, value=1.0, grad=x)
        np.testing.assert_array_equal(updates, -x)


def test_no_traced_rate_outlives_its_trace():
    x = jnp.ones(2)

    def update(rate):
        tx = chain(transforms.sgd(rate), partition({"a": transforms.adam(rate)}, "a"))
        return tx.update(x, tx.init(x), x)[0]

    with jax.checking_leaks():
        jax.jit(update)(0.1)


def test_traced_rates_and_rates_that_may_change_are_not_kept():
    class Rate:
        value = 0.1

        def __call__(self, i):
            return self.value

    built = []
    for _ in range(2):
        jax.jit(lambda rate: built.append(transforms.sgd(rate)))(0.1)
    assert built[0] is not built[1]
    rate = Rate()
    assert transforms.sgd(rate) is not transforms.sgd(rate)


# ---- schedules

AT = (0, 1, 5, 6, 10, 11, 15, 20)
SCHEDULES = {
    "constant": ((0.3,), {}, [0.3] * 8),
    "exponential_decay": ((1, 10, 0.5), {}, [1, 0.933033, 0.707107, 0.659754, 0.5, 0.466516, 0.353553, 0.25]),
    "inverse_time_decay": ((1, 10, 0.5), {}, [1, 0.952381, 0.8, 0.769231, 0.666667, 0.645161, 0.571429, 0.5]),
    "inverse_time_decay, staircase": ((1, 10, 0.5), {"staircase": True}, [1] * 4 + [0.666667] * 3 + [0.5]),
    "polynomial_decay": ((1, 10, 0.1), {"power": 2}, [1, 0.829, 0.325, 0.244] + [0.1] * 4),
    "piecewise_constant": (((5, 10), (1, 0.5, 0.1)), {}, [1, 1, 1, 0.5, 0.5, 0.1, 0.1, 0.1]),
}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


@each_schedule
@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_schedule_has_the_known_values(name, compile):
    args, keywords, wanted = SCHEDULES[name]
    schedule = getattr(transforms, name.split(",")[0])(*args, **keywords)
    theirs = getattr(library, name.split(",")[0])(*args, **keywords)
    values = [compile(schedule)(i) for i in AT]
    np.testing.assert_allclose(values, wanted, atol=5e-7)
    np.testing.assert_allclose(values, [theirs(i) for i in AT], rtol=1e-15)


@each_schedule
def test_equal_schedules_are_the_same_and_can_be_keys(name):
    args, keywords, _ = SCHEDULES[name]
    make = getattr(transforms, name.split(",")[0])
    assert make(*args, **keywords) is make(*args, **keywords)
    assert len({make(*args, **keywords), make(*args, **keywords)}) == 1


def test_make_schedule_keeps_a_schedule_and_wraps_a_number():
    schedule = lambda i: i
    assert transforms.make_schedule(schedule) is schedule
    assert transforms.make_schedule(0.5) is transforms.constant(0.5)


BAD_SCHEDULES = {
    "make_schedule list": (TypeError, "learning_rate", lambda: transforms.make_schedule([0.1])),
    "constant callable": (TypeError, "step_size", lambda: transforms.constant(lambda i: i)),
    "exponential steps": (ValueError, "decay_steps", lambda: transforms.exponential_decay(1, 0, 0.5)),
    "exponential rate": (ValueError, "decay_rate", lambda: transforms.exponential_decay(1, 10, 0)),
    "inverse rate": (ValueError, "decay_rate", lambda: transforms.inverse_time_decay(1, 10, -1)),
    "inverse staircase": (TypeError, "staircase", lambda: transforms.inverse_time_decay(1, 10, 1, staircase=2)),
    "polynomial power": (ValueError, "power", lambda: transforms.polynomial_decay(1, 10, 0, power=-1)),
    "piecewise length": (ValueError, "boundaries", lambda: transforms.piecewise_constant([5, 10], [1, 0.5])),
    "piecewise scalar": (ValueError, "boundaries", lambda: transforms.piecewise_constant(5, 1)),
    "piecewise matrix": (ValueError, "values", lambda: transforms.piecewise_constant([5], [[1], [2]])),
    "piecewise text": (TypeError, "values", lambda: transforms.piecewise_constant([5], ["a", "b"])),
}


@pytest.mark.parametrize("name", BAD_SCHEDULES)
def test_schedule_that_cannot_be_right_is_refused_by_name(name):
    kind, word, make = BAD_SCHEDULES[name]
    with pytest.raises(kind, match=word):
        make()


# ---- clipping

THIRTEEN = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([12.0])}


def test_norm_is_exact_where_squares_overflow_or_vanish():
    for scale in (1.0, 1e-30, 1e30, 0.0):
        tree = jax.tree.map(lambda leaf: (scale * leaf).astype(jnp.float32), THIRTEEN)  # noqa: B023
        np.testing.assert_allclose(l2_norm(tree), 13 * scale, rtol=1e-6)
    assert l2_norm(jnp.array([3 + 4j, 12])) == 13


def test_norm_has_a_derivative_and_at_zero_it_is_zero():
    assert_trees_close(jax.grad(l2_norm)(THIRTEEN), jax.tree.map(lambda leaf: leaf / 13, THIRTEEN), rtol=1e-15)
    assert jax.grad(l2_norm)(jnp.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize(("max_norm", "factor"), [(6.5, 0.5), (13, 1), (20, 1), (0, 0)])
def test_clipping_shortens_what_is_too_long(max_norm, factor):
    wanted = jax.tree.map(lambda leaf: factor * leaf, THIRTEEN)
    tx = clip_by_global_norm(max_norm)
    updates, _ = tx.update(THIRTEEN, tx.init(THIRTEEN))
    for clipped in (clip_grads(THIRTEEN, max_norm), jax.jit(clip_grads)(THIRTEEN, max_norm), updates):
        assert_trees_close(clipped, wanted, rtol=1e-15)


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_clipping_leaves_zero_gradients_zero(max_norm):
    zero = jax.tree.map(jnp.zeros_like, THIRTEEN)
    assert_trees_close(clip_grads(zero, max_norm), zero, rtol=0)


def test_clipping_keeps_each_dtype_and_gradients_that_explode():
    mixed = {"h": jnp.full(2, 3e4, "float16"), "s": jnp.full(2, 1e38, "float32"), "c": jnp.full(2, 1e38j, "complex64")}
    clipped = clip_grads(mixed, 1.0)
    assert jax.tree.map(jnp.result_type, clipped) == jax.tree.map(jnp.result_type, mixed)
    np.testing.assert_allclose(l2_norm(clipped), 1, rtol=1e-6)


@pytest.mark.parametrize(("max_norm", "kind"), [(-1, ValueError), (np.nan, ValueError), ("1", TypeError)])
def test_norm_that_cannot_be_right_is_refused(max_norm, kind):
    with pytest.raises(kind, match="max_norm"):
        clip_by_global_norm(max_norm)


# ---- chains


def test_clipping_before_an_optimizer_is_optaxs_chain():
    ours = chain(clip_by_global_norm(0.5), transforms.adam(0.1))
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
    _, wanted = run(theirs, start())
    for tx in (ours, chain(optax.clip_by_global_norm(0.5), transforms.adam(0.1))):
        assert_trees_close(run(tx, start())[1], wanted, **units(ROUNDING["adam"], "float64"))


def test_extra_arguments_go_to_the_members_that_take_them():
    told = {}

    def member(name, update):
        def note(**given):
            told[name] = sorted(given)

        return transforms.Transformation(lambda params: (), update(note))

    def takes_none(note):
        return lambda grads, state, params=None: (grads, note() or state)

    def takes_value(note):
        return lambda grads, state, params=None, *, value: (grads, note(value=value) or state)

    def takes_all(note):
        return lambda grads, state, params=None, **extra: (grads, note(**extra) or state)

    members = {make.__name__: member(make.__name__, make) for make in (takes_none, takes_value, takes_all)}
    wanted = {"takes_none": [], "takes_value": ["value"], "takes_all": ["scale", "value"]}
    for tx in (chain(*members.values()), partition(members, dict(zip(members, members, strict=True)))):
        told.clear()
        params = dict.fromkeys(members, 1.0)
        updates, _ = tx.update(params, tx.init(params), params, value=1.0, scale=2.0)
        assert told == wanted and updates == params


def test_a_member_that_needs_the_value_gets_it():
    """Optax's Polyak steps, and a method of jaxmin as the last member."""
    params = jnp.array([2.0, -1.0])
    value, grad = jax.value_and_grad(loss)(params)
    tx = chain(optax.identity(), optax.polyak_sgd(max_learning_rate=1e3))
    updates, _ = tx.update(grad, tx.init(params), params, value=value)
    np.testing.assert_allclose(updates, -grad * value / jnp.sum(grad**2), rtol=1e-12)
    method = jaxmin.lbfgs()
    wanted, _ = method.update(grad, method.init(params), params, value=value)
    tx = chain(optax.identity(), method)
    updates, _ = tx.update(grad, tx.init(params), params, value=value)
    np.testing.assert_array_equal(updates, wanted)


def test_updates_keep_the_dtypes_of_params_and_skip_what_is_none():
    params = {"h": jnp.ones(2, "float16"), "b": 1.0, "static": "relu"}
    moved = apply_updates(params, {"h": jnp.full(2, 0.5, "float32"), "b": jnp.ones(()), "static": None})
    assert moved["h"].dtype == jnp.float16 and moved["h"].tolist() == [1.5, 1.5]
    assert moved["b"] == 2 and moved["static"] == "relu"


# ---- partitions and saddle points


def game(params):
    return jax.grad(lambda p: p["x"] * p["y"])(params)


LABELS = {"x": "x_opt", "y": "y_opt"}
ONES = {"x": jnp.ones(()), "y": jnp.ones(())}
WAYS = {"jaxmin": partition, "optax": optax.partition, "multi_transform": transforms.multi_transform}


def radii(tx, count):
    _, iterates = run(tx, ONES, steps=count, gradient=game)
    return np.hypot(iterates["x"], iterates["y"])


@pytest.mark.parametrize("way", WAYS)
def test_extra_gradient_finds_the_saddle_point_that_descent_circles_away_from(way):
    pair = {"x_opt": transforms.extra_gradient(0.1), "y_opt": transforms.extra_gradient(-0.1)}
    after = dict(zip(range(1, 2001), radii(WAYS[way](pair, LABELS), 2000), strict=True))
    for calls, r in {2: 1.40720, 4: 1.40021, 100: 1.10279, 1000: 0.117566, 2000: 0.0097734}.items():
        assert after[calls] == pytest.approx(r, rel=1e-5)
        assert after[calls] == pytest.approx(2**0.5 * (1 - 0.1**2 + 0.1**4) ** (calls / 4), rel=1e-10)
    pair = {"x_opt": transforms.sgd(0.1), "y_opt": transforms.sgd(-0.1)}
    assert radii(WAYS[way](pair, LABELS), 2000)[-1] > 2e4


def test_extra_gradient_goes_back_to_the_point_where_the_pair_began():
    """Wherever the half-way point was put, say by a projection."""
    tx, x = transforms.extra_gradient(0.1), jnp.array([1.0, 2.0])
    _, state = tx.update(jnp.ones(2), tx.init(x), x)
    half, g = jnp.array([7.0, -5.0]), jnp.array([3.0, 4.0])
    updates, _ = tx.update(g, state, half)
    np.testing.assert_allclose(half + updates, x - 0.1 * g, rtol=1e-14)


def test_extra_gradient_takes_both_steps_of_a_pair_at_one_rate():
    told = []
    tx = transforms.extra_gradient(lambda i: told.append(int(i)) or 0.1)
    carry = jnp.ones(2), tx.init(jnp.ones(2))
    for _ in range(4):
        carry = trip(tx, carry)
    assert told == [0, 0, 1, 1]


def test_extra_gradient_without_params_says_why():
    tx = transforms.extra_gradient(0.1)
    with pytest.raises(TypeError, match="params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_a_group_knows_nothing_of_the_others():
    """Its state has its own leaves only, and stays the same whatever the other group's gradients are."""
    make = lambda: {"x_opt": transforms.extra_gradient(0.1), "y_opt": transforms.adam(0.1)}
    params = {"x": jnp.ones(2), "y": jnp.ones(3)}
    states, tx = [], partition(make(), LABELS)
    for other in (1.0, -5.0):
        carry = params, tx.init(params)
        for _ in range(3):
            carry = trip(tx, carry, lambda p: {"x": p["x"], "y": other * p["y"]})  # noqa: B023
        states.append(carry[1].inner_states)
    assert [leaf.shape for leaf in jax.tree.leaves(states[0]["x_opt"])] == [(), (2,)]
    assert_trees_close(states[0]["x_opt"], states[1]["x_opt"], rtol=0)
    assert not np.allclose(states[0]["y_opt"].m["y"], states[1]["y_opt"].m["y"])


@each_optimizer
def test_a_partition_of_one_optimizer_is_that_optimizer(name):
    """Members of both libraries, a label for a whole subtree, and labels made of params."""
    ours, theirs = SAME_IN_OPTAX[name]
    params = start_for_optax(name)
    _, wanted = run(ours, params)
    for labels in ({"w": "ours", "b": "theirs"}, lambda params: jax.tree.map(lambda p: "ours", params)):
        _, iterates = run(partition({"ours": ours, "theirs": theirs}, labels), params)
        assert_trees_close(iterates, wanted, **units(ROUNDING[name], "float64"))


def test_a_partition_needs_no_params():
    tx = partition({"a": transforms.sgd(0.5), "b": transforms.sgd(0.25)}, ("a", "b"))
    params = jnp.ones(2), jnp.ones(())
    updates, _ = tx.update(params, tx.init(params))
    assert_trees_close(updates, (jnp.full(2, -0.5), jnp.asarray(-0.25)), rtol=0)


# ---- errors

WHOLE = {
    "chain": chain(clip_by_global_norm(1.0), transforms.adam(0.1)),
    "partition": partition({"a": transforms.adam(0.1), "b": transforms.sgd(0.1)}, {"w": "a", "b": "b"}),
} | {name: build(name) for name in ALL}


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_built_otherwise_than_params_name_both_trees(name):
    tx, params = WHOLE[name], start()
    grads = {"w": params["w"], "bias": params["b"]}
    with pytest.raises(TypeError) as caught:
        tx.update(grads, tx.init(params), params)
    for tree in (grads, params):
        assert str(jax.tree.structure(tree)) in str(caught.value)


SGD = transforms.sgd(0.1)
BAD_COMBINATIONS = {
    "chain builder": (TypeError, r"transformations\[1\].*sgd", lambda: chain(SGD, transforms.sgd)),
    "partition list": (TypeError, "transformations.*dictionary", lambda: partition([SGD], "a")),
    "partition member": (TypeError, r"transformations\['a'\]", lambda: partition({"a": 0.1}, "a")),
    "partition label": (ValueError, "'c'.*'a', 'b'", lambda: partition({"a": SGD, "b": SGD}, ["a", "c"]).init([1, 2])),
    "partition tree": (TypeError, "labels", lambda: partition({"a": SGD}, {"x": "a"}).init({"y": 1.0})),
}


@pytest.mark.parametrize("name", BAD_COMBINATIONS)
def test_combination_that_cannot_be_right_is_refused_by_name(name):
    kind, words, make = BAD_COMBINATIONS[name]
    with pytest.raises(kind, match=words):
        make()


# ---- value and gradient from the state


class Stored(NamedTuple):
    value: Any
    grad: Any


def test_value_and_gradient_are_those_of_the_state_where_it_has_them():
    params, other = jnp.array([2.0, -1.0]), jnp.array([9.0, 9.0])
    from_state = transforms.value_and_grad_from_state(loss)
    fresh = jax.value_and_grad(loss)(params)
    for missing in (jnp.inf, -jnp.inf, jnp.nan):
        assert_trees_close(from_state(params, state=((), Stored(jnp.asarray(missing), other))), fresh, rtol=1e-15)
    assert_trees_close(
        from_state(params, state=((), Stored(jnp.asarray(3.0), other))), (jnp.asarray(3.0), other), rtol=0
    )
    with pytest.raises(ValueError, match=r"value.*grad"):
        from_state(params, state=transforms.adam(0.1).init(params))


def test_optaxs_backtracking_loop_reads_what_its_search_stored():
    """The first evaluation is made, later ones are found: all equal fresh ones. Steps of 0.8 leave 0.36 of f."""
    fun, params = lambda x: jnp.sum((x + 0.7) ** 2), jnp.array([2.0, -1.0])
    tx = chain(transforms.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True))
    from_state, state = jax.jit(transforms.value_and_grad_from_state(fun)), tx.init(params)
    fresh, values = jax.jit(jax.value_and_grad(fun)), []
    for _ in range(5):
        value, grad = from_state(params, state=state)
        assert_trees_close((value, grad), fresh(params), rtol=1e-15)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=fun)
        params = apply_updates(params, updates)
        values.append(float(value))
    np.testing.assert_allclose(values, values[0] * 0.36 ** np.arange(5), rtol=1e-12)
    np.testing.assert_array_equal(from_state(params, state=state)[1], state[1].grad)


# ---- the package


def test_import_brings_in_no_other_library():
    code = (
        "import jaxmin.transforms, sys; print([name for name in ('optax', 'flax', 'equinox') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there_and_documented():
    for name in transforms.__all__:
        text = getattr(transforms, name).__doc__
        assert ">>>" in text and ("Returns:" in text or name == "Transformation"), name
