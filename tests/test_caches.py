"""What is cached between calls: never an answer of yesterday, never an array out of use, nothing compiled twice."""

import builtins
import gc
import os
import pathlib
import random
import secrets
import sys
import threading
import time
import weakref
from os import urandom

import jax
import jax.numpy as jnp
import numpy as np
import numpy.random as npr
import pytest
from helpers import ONE_STEP, START, Traced, compilations, unlike, valley
from numpy.random import normal

from jaxmin import minimize
from jaxmin._cache import programs, purity, traces
from jaxmin._cache.lru import LRU

# ---- a function is traced anew wherever it may come to see something else


def _module_of_ones_own():
    module = type(sys)("own")
    module.count = 0

    def step():
        module.count += 1
        return module.count

    module.step = step
    return module


own = _module_of_ones_own()
hidden = {"rng": np.random.default_rng(0)}

RANDOM = {
    "a random module of another name": lambda x: jnp.sum((x - npr.normal(size=2)) ** 2),
    "an attribute of NumPy": lambda x: jnp.sum((x - np.random.normal(size=2)) ** 2),
    "a function of a random module": lambda x: jnp.sum((x - normal(size=2)) ** 2),
    "random": lambda x: jnp.sum((x - random.random()) ** 2),
    "secrets": lambda x: jnp.sum((x - secrets.randbelow(10**9) / 1e9) ** 2),
    "os.urandom": lambda x: jnp.sum((x - os.urandom(1)[0] - os.urandom(1)[0] / 256) ** 2),
    "urandom": lambda x: jnp.sum((x - urandom(1)[0] - urandom(1)[0] / 256) ** 2),
    "time": lambda x: jnp.sum((x - time.perf_counter_ns() % 10**9 / 1e9) ** 2),
    "a module handed on": lambda x: jnp.sum((x - _draw(np)) ** 2),
    "a module with a state": lambda x: jnp.sum((x - own.step()) ** 2),
    "a generator in a dictionary": lambda x: jnp.sum((x - hidden["rng"].normal()) ** 2),
    "an import inside": lambda x: jnp.sum((x - __import__("random").random()) ** 2),
    "globals": lambda x: jnp.sum((x - globals()["hidden"]["rng"].normal()) ** 2),
}


def _draw(module):
    return module.random.normal()


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_drawn_at_every_call(name):
    one, two = (minimize(RANDOM[name], START, method=ONE_STEP) for _ in range(2))
    assert one.x.tolist() != two.x.tolist()


PATH = "unset"
READERS = {
    "loadtxt": lambda x: jnp.sum((x - np.loadtxt(PATH)) ** 2),
    "genfromtxt": lambda x: jnp.sum((x - np.genfromtxt(PATH)) ** 2),
    "fromfile": lambda x: jnp.sum((x - np.fromfile(PATH, sep=" ")) ** 2),
    "load": lambda x: jnp.sum((x - np.load(PATH + ".npy")) ** 2),
    "jnp.load": lambda x: jnp.sum((x - jnp.load(PATH + ".npy")) ** 2),
    "memmap": lambda x: jnp.sum((x - jnp.array(np.memmap(PATH + ".raw", dtype=np.float64))) ** 2),
    "open": lambda x: jnp.sum((x - float(open(PATH).read().split()[0])) ** 2),  # noqa: SIM115
    "pathlib": lambda x: jnp.sum((x - float(pathlib.Path(PATH).read_text().split()[0])) ** 2),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_file_is_read_at_every_call(name, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PATH", str(tmp_path / "data"))
    for value in (3.0, -2.0):
        both = np.full(2, value)
        np.savetxt(PATH, both)
        np.save(PATH + ".npy", both)
        both.tofile(PATH + ".raw")
        np.testing.assert_allclose(minimize(READERS[name], START, method=ONE_STEP).x, both, atol=1e-4)


def test_a_number_of_a_class_of_its_own_is_no_plain_number():
    class Number(float):
        shift = 0.0

    number = Number(1.0)
    fun = lambda x: jnp.sum((x - number.shift) ** 2)
    minimize(fun, START)
    number.shift = 5.0
    np.testing.assert_allclose(minimize(fun, START).x, 5.0, atol=1e-4)
    with_argument = lambda x, a: jnp.sum((x - a.shift) ** 2)
    text = type("Text", (str,), {"shift": 0.0})("name")
    minimize(with_argument, START, (text,))
    text.shift = 5.0
    np.testing.assert_allclose(minimize(with_argument, START, (text,)).x, 5.0, atol=1e-4)


_shift = 0.0


def test_a_function_that_rebinds_what_it_reads_is_traced_anew():
    count = 0

    def fun(x):
        nonlocal count
        count += 1
        return jnp.sum((x - 1) ** 2)

    minimize(fun, START)
    count = 0
    minimize(fun, START)
    assert count == 1


def _helper(x):
    return jnp.sum(jnp.where(x > 0, jax.nn.softplus(x), np.pi) ** 2 + np.array([1.0, 2.0]) @ x + max(1, 2) * x**2)


FROZEN = {
    "jnp": lambda x: jnp.sum(x**2) + jnp.linalg.norm(x - 1) ** 2 + jnp.float32(1) + jnp.maximum(x, 1).sum(),
    "jax": lambda x: jax.lax.fori_loop(0, 2, lambda i, s: s + jnp.sum((x - i) ** 2), 0.0) + jax.nn.relu(x).sum(),
    "scipy": lambda x: jnp.sum(x**2) - jax.scipy.special.gammaln(3 + x**2).sum() * 1e-3,
    "random": lambda x: jnp.sum((x - jax.random.normal(jax.random.key(0), (2,))) ** 2),
    "numpy": lambda x: jnp.sum((x - np.sqrt(np.arange(2.0)) * np.float32(2)) ** 2) + np.sum([1.0, 2.0]),
    "builtins": lambda x: sum(abs(float(k)) * (xi - k) ** 2 for k, xi in enumerate(x, start=1)),
    "a helper": lambda x: _helper(x),
    "a closure": (lambda c: lambda x: jnp.sum((x - c) ** 2))(jnp.ones(2)),
    "jit": jax.jit(lambda x: jnp.sum((x - 1) ** 2)),
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_function_that_cannot_change_is_not_traced_again(name, monkeypatch):
    minimize(FROZEN[name], START)
    traced = []
    monkeypatch.setattr("jaxmin._problem.objective._trace", lambda *args: traced.append(args))
    minimize(FROZEN[name], START)
    assert not traced


def test_a_builtin_that_was_replaced_is_seen(monkeypatch):
    fun = lambda x: jnp.sum((x - abs(-1.0)) ** 2)
    np.testing.assert_allclose(minimize(fun, START).x, 1, atol=1e-4)
    monkeypatch.setattr(builtins, "abs", lambda value: 2.0)
    x = minimize(fun, START).x
    monkeypatch.undo()
    np.testing.assert_allclose(x, 2, atol=1e-4)


def test_an_operation_of_python_that_is_not_listed_may_change_anything(monkeypatch):
    fun = FROZEN["jnp"]
    assert purity.key(fun)
    monkeypatch.setattr(purity, "_OPERATIONS", purity._OPERATIONS - {"BINARY_OP"})
    purity._names.cache_clear()
    with pytest.raises(purity.Mutable):
        purity.key(fun)


def test_objects_that_cannot_be_held_weakly():
    for _ in range(2):
        res = minimize(lambda x, op: jnp.sum((x - op(2, 1)) ** 2), [1.0, 1.0], args=(np.add,))
        np.testing.assert_allclose(res.x, 3, atol=1e-4)
        res = minimize(lambda x, op: op(jnp.sum((x - 2) ** 2)), [1.0, 1.0], args=(abs,))
        np.testing.assert_allclose(res.x, 2, atol=1e-4)


# ---- settings of JAX


def test_how_random_bits_are_made_is_part_of_the_computation():
    def drawn():
        return minimize(lambda x: jnp.sum((x - jax.random.normal(jax.random.key(0), (8,))) ** 2), np.zeros(8)).x

    def kept(x):
        return jnp.sum((x - jax.random.normal(jax.random.key(1), (8,))) ** 2)

    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            np.testing.assert_allclose(drawn(), jax.random.normal(jax.random.key(0), (8,)), atol=1e-4)
            expected = jax.random.normal(jax.random.key(1), (8,))
            np.testing.assert_allclose(minimize(kept, np.zeros(8)).x, expected, atol=1e-4)


# ---- derivative rules


def jvp_rule(c):
    @jax.custom_jvp
    def g(a):
        return a

    g.defjvp(lambda primals, tangents: (g(*primals), c * tangents[0]))
    return g


def vjp_rule(c):
    @jax.custom_vjp
    def g(a):
        return a

    g.defvjp(lambda a: (g(a), None), lambda _, cotangent: (c * cotangent,))
    return g


def jvps_rule(c):
    @jax.custom_jvp
    def g(a):
        return a

    g.defjvps(lambda tangent, _, a: c * tangent)
    return g


class Holder:
    pass


def read_by_rule(c):
    """A rule that reads c through everything that a function can read through."""
    holder = Holder()
    holder.inner = {"c": [c]}

    def scale(value, *, by=1.0):
        return value * holder.inner["c"][0] * by

    return _rule_of(scale)


def _rule_of(scale):
    @jax.custom_jvp
    def g(a):
        return a

    g.defjvp(lambda primals, tangents: (g(*primals), scale(tangents[0])))
    return g


RULES = {
    "jvp": jvp_rule,
    "jvps": jvps_rule,
    "through objects": read_by_rule,
    "array": lambda c: jvp_rule(jnp.asarray(c)),
    "NumPy array": lambda c: jvp_rule(np.asarray(c)),
    "vmap": lambda c: lambda a: jax.vmap(jvp_rule(c))(a[None])[0],
    "jit": lambda c: jax.jit(jvp_rule(c)),
    "inside a loop": lambda c: lambda a: jax.lax.fori_loop(0, 1, lambda _, a: jvp_rule(c)(a), a),
    "vjp": vjp_rule,
    "vjp under vmap": lambda c: lambda a: jax.vmap(vjp_rule(c))(a[None])[0],
    "inside checkpoint": lambda c: jax.checkpoint(jvp_rule(c)),
}


def bowl(g):
    return lambda x, a: jnp.sum((x - g(a)) ** 2 + 0.1 * x**4)


def slope(g):
    return jax.jacfwd(lambda a: minimize(bowl(g), START, (a,)).x)(1.0)


@pytest.mark.parametrize("rule", [jvp_rule, read_by_rule])
def test_functions_that_differ_in_a_rule_only_have_their_own_derivatives(rule):
    one = slope(rule(1.0))
    assert np.abs(one).max() > 0.1
    np.testing.assert_allclose(slope(rule(7.0)), 7 * one, rtol=1e-4, equal_nan=False)


@pytest.mark.parametrize("name", RULES)
def test_the_program_of_a_solve_knows_no_rules(name):
    if name == "inside a loop" and jax.__version_info__ < (0, 7):
        pytest.skip("it keeps no rule inside a loop of which it has taken a derivative")
    one, seven = (_trace(bowl(RULES[name](c)), 1.0) for c in (1.0, 7.0))
    assert one.signature == seven.signature
    assert one.with_rules is not None


def _trace(fun, *args, x0=START):
    from jaxmin._problem.objective import build

    return build(fun, x0, args, None, False).trace


def _signature(fun, *args):
    return _trace(fun, *args).signature


def test_an_array_of_a_rule_that_was_written_to_is_seen():
    c = np.ones(())
    g = jvp_rule(c)
    one = slope(g)
    c[()] = 7.0
    np.testing.assert_allclose(slope(g), 7 * one, rtol=1e-4, equal_nan=False)


_scale = 1.0


class Scale:
    value = 1.0


def _of_scale():
    @jax.custom_jvp
    def line(x):
        return x

    @jax.custom_jvp
    def parabola(x):
        return x**2 / 2

    line.defjvp(lambda primals, tangents: (primals[0], Scale.value * _scale * tangents[0]))
    parabola.defjvp(lambda primals, tangents: (parabola(*primals), line(primals[0]) * tangents[0]))
    return lambda x, a: jnp.sum(parabola(x) - a * x)


METHODS = ("lbfgs", "trust_ncg", "trust_exact")


@pytest.mark.parametrize("method", METHODS)
def test_a_class_attribute_and_a_global_of_a_rule_are_seen(method, monkeypatch):
    fun = _of_scale()

    def solve(a):
        return minimize(fun, 0.1, (a,), method, options={"gtol": 1e-9}).x

    expected = 1.0
    for change in (lambda: None, lambda: monkeypatch.setattr(Scale, "value", 2.0)):
        change()
        np.testing.assert_allclose(jax.grad(solve)(1.0), expected / Scale.value, rtol=1e-6)
    monkeypatch.setitem(globals(), "_scale", 2.0)
    np.testing.assert_allclose(jax.grad(solve)(1.0), 0.25, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(solve))(1.0), 0.25, rtol=1e-6)


@jax.custom_jvp
def quartic(x):
    """x^4/4 + x^2/2, whose rule is another function with a rule."""
    return x**4 / 4 + x**2 / 2


@jax.custom_jvp
def cubic(x):
    return x**3 + x


quartic.defjvp(lambda primals, tangents: (quartic(*primals), cubic(*primals) * tangents[0]))
cubic.defjvp(lambda primals, tangents: (cubic(*primals), (3 * primals[0] ** 2 + 1) * tangents[0]))


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=() if m == "trust_ncg" else pytest.mark.slow) for m in METHODS]
)
def test_derivatives_of_any_order_through_rules(method):
    def solve(by_rules):
        f = quartic if by_rules else lambda x: x**4 / 4 + x**2 / 2
        fun = lambda x, a: jnp.sum(f(x) - a * x)
        return lambda a: minimize(fun, np.full(2, 0.1), (a,), method, options={"gtol": 1e-11}).x.sum()

    third = lambda f: jax.jit(jax.grad(jax.grad(jax.grad(f))))
    for of in (jax.grad, lambda f: jax.jit(jax.hessian(f)), *((jax.hessian, third) if method == "lbfgs" else ())):
        np.testing.assert_allclose(of(solve(True))(1.0), of(solve(False))(1.0), rtol=1e-6)
    lanes = jnp.array([0.5, 1.0, 2.0])
    if method == "lbfgs":
        for of in (lambda f: jax.vmap(jax.grad(f)), lambda f: jax.grad(lambda a: jax.vmap(f)(a).sum())):
            np.testing.assert_allclose(of(solve(True))(lanes), of(solve(False))(lanes), rtol=1e-6)


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd, lambda f: lambda a: jax.vmap(jax.grad(f))(jnp.full(3, a))])
def test_derivatives_through_rules_compile_once(transform):
    shift = unlike()

    def solve(a):
        g = jvp_rule(2.0)
        return minimize(lambda x: jnp.sum((g(x) - a) ** 2 + x**4) + shift, START).x.sum()

    transform(solve)(1.0)
    transform(solve)(2.0)
    with compilations() as programs:
        transform(solve)(3.0)
    assert programs == []


WITH_RULES = {
    "logaddexp": lambda x: jnp.sum(jnp.logaddexp(x, -x)),
    "relu": lambda x: jnp.sum(jax.nn.relu(x) + x**2),
    "softplus": lambda x: jnp.sum(jax.nn.softplus(x) + x**2),
    "silu, gelu, elu, selu, celu": lambda x: jnp.sum(
        jax.nn.silu(x) + jax.nn.gelu(x) + jax.nn.elu(x) + jax.nn.selu(x) + jax.nn.celu(x) + x**2
    ),
    "logsumexp, softmax": lambda x: jax.nn.logsumexp(x) + jnp.sum(jax.nn.softmax(x) ** 2 + x**2),
    "relu6, hard_tanh": lambda x: jnp.sum(jax.nn.relu6(x) + jax.nn.hard_tanh(x) + x**2),
    "xlogy, xlog1py, entr": lambda x: jnp.sum(
        jax.scipy.special.xlogy(x**2 + 1, x**2 + 1)
        + jax.scipy.special.xlog1py(x**2, x**2)
        + x**2
        - jax.scipy.special.entr(x**2 + 1)
    ),
    "log_ndtr": lambda x: jnp.sum(x**2 - jax.scipy.special.log_ndtr(x)),
    "sinc": lambda x: jnp.sum(x**2 + jnp.sinc(x)),
    "odeint-like loop": lambda x: jax.lax.fori_loop(0, 3, lambda _, s: s + jax.nn.softplus(x).sum(), jnp.sum(x**2)),
    "vmap": lambda x: jnp.sum(jax.vmap(jax.nn.relu)(x) + x**2),
    "second order": lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(jax.nn.softplus(x) ** 2))(x) ** 2 + x**2),
    "argument only": lambda x: jnp.sum(x**2) + jax.nn.relu(jnp.ones(2)).sum() + jax.nn.softplus(jnp.ones(2)).sum(),
    "linear solve": lambda x: jnp.sum(jnp.linalg.solve(jnp.eye(2) * 3 + jnp.outer(x, x), x) ** 2),
}


def anew(fun):
    """Another function with the same code."""
    return type(fun)(fun.__code__, fun.__globals__, fun.__name__, fun.__defaults__, fun.__closure__)


@pytest.mark.parametrize("name", WITH_RULES)
def test_functions_with_rules_of_jax_made_anew_are_the_same(name):
    assert _signature(anew(WITH_RULES[name])) == _signature(anew(WITH_RULES[name]))


@pytest.mark.parametrize("name", ["relu", "softplus", "logsumexp, softmax", "relu6, hard_tanh"])
def test_rules_of_jax_are_part_of_the_signature(name):
    assert _trace(WITH_RULES[name]).with_rules is None


def test_a_function_of_jax_with_a_rule_of_the_users_own_is_none_of_jax():
    mine = jax.custom_jvp(jax.nn.relu)
    mine.defjvps(lambda tangent, _, x: tangent * x)
    assert _trace(lambda x, a: jnp.sum(x**2) + mine(a), 1.0).with_rules is not None


@pytest.mark.parametrize("rule", [jvp_rule, vjp_rule])
def test_a_rule_made_anew_compiles_nothing(rule):
    shift = unlike()
    fun = lambda g: lambda x: jnp.sum((x - shift - g(1.5)) ** 2 + g(x) ** 2)
    minimize(fun(rule(2.0)), START)
    with compilations() as programs:
        minimize(fun(rule(2.0)), START)
    assert programs == []


# ---- what is no part of the compiled program


@pytest.mark.parametrize("leaf", ["a function", "a text"])
def test_leaves_of_x0_that_are_no_arrays_compile_nothing(leaf):
    shift = unlike()

    def solve(number):
        other = (lambda x: x * 1.0) if leaf == "a function" else f"run {number}"
        fun = lambda x: valley(x["w"]) + shift
        return minimize(fun, {"w": np.array(START), "other": other}, options={"maxiter": 3})

    solve(0)
    with compilations() as programs:
        assert solve(1).x["other"] is not None
    assert programs == []


# ---- memory

data = None


def live(arrays):
    gc.collect()
    return sum(ref() is not None for ref in arrays)


def over_global(x):
    return jnp.sum((x - data) ** 2)


def test_a_function_over_a_rebound_global_keeps_one_array():
    global data
    seen = []
    for k in range(8):
        data = jnp.full(2, float(k))
        seen.append(weakref.ref(data))
        np.testing.assert_allclose(minimize(over_global, START).x, k, atol=1e-4)
    assert live(seen) == 1


def test_a_function_that_is_gone_keeps_nothing():
    def over(data):
        fun = lambda x: jnp.sum((x - data) ** 2)
        minimize(fun, START)
        return weakref.ref(data), weakref.ref(fun)

    kept = len(traces._traces)
    arrays, functions = zip(*[over(jnp.full(2, float(k))) for k in range(8)])
    assert live(arrays) == live(functions) == 0
    assert len(traces._traces) <= kept


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="its own caches hold compiled functions with custom rules")
@pytest.mark.parametrize("rule", [jvp_rule, vjp_rule])
def test_rules_over_arrays_keep_a_few(rule):
    shift = unlike()

    def over(data):
        g = rule(data)
        minimize(lambda x: jnp.sum((g(x) - shift) ** 2), START, options={"maxiter": 1})
        return weakref.ref(data)

    arrays = [over(jnp.full(2, float(k))) for k in range(7)]
    assert live(arrays) <= 4


def test_functions_with_traces_are_bounded(monkeypatch):
    monkeypatch.setattr(traces, "_FUNCTIONS", 3)
    functions = [lambda x, k=k: jnp.sum((x - k) ** 2) for k in range(6)]
    for fun in functions:
        _trace(fun)
    assert len(traces._traces) == 3
    for size in range(2, 14):
        _trace(over_number, x0=np.zeros(size))
    assert len(traces._traces[over_number]) == 8


def test_the_cache_holds_the_values_used_last():
    cache = LRU(2)
    for key in "aba":
        cache.put(key, key.upper())
    assert (cache.get("b"), cache.get("c")) == ("B", None)
    cache.put("c", "C")
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]
    cache.drop(1)
    assert [cache.get(key) for key in "bc"] == [None, "C"]


def test_two_threads_that_build_the_same_use_one():
    cache = LRU(2)
    assert cache.put("key", "first") == cache.put("key", "second") == "first"


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="the maps of a process are counted on Linux")
def test_programs_go_where_memory_maps_run_short(monkeypatch):
    solve = lambda shift: minimize(lambda x: valley(x) + shift, START, options={"maxiter": 1})
    programs._cache.drop(len(programs._cache))
    gone = weakref.ref(programs._cache.get(_first_key(solve, unlike())))
    monkeypatch.setattr(programs, "_FEW", 1)
    for _ in range(2):
        solve(unlike())
    assert gone() is not None
    used = programs._maps()
    monkeypatch.setattr(programs, "_most", lambda: used - 1)
    solve(unlike())
    assert gone() is None
    assert len(programs._cache) < 4
    assert programs._maps() <= used


def _first_key(solve, shift):
    solve(shift)
    return next(reversed(programs._cache._values))


# ---- threads


def test_threads(monkeypatch):
    errors = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number):
        try:
            for _ in range(60):
                fun = lambda x: jnp.sum((x - 1.0) ** 2)
                for f in (fun, over_number):
                    minimize(f, START, options={"maxiter": 1})
                del fun, f
        except Exception as error:
            errors.append(error)

    minimize(over_number, START, options={"maxiter": 1})
    monkeypatch.setattr(traces, "_FUNCTIONS", 3)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []


def over_number(x):
    return jnp.sum((x - 1.0) ** 2)


def test_a_function_traced_by_each_call_is_counted_so():
    fun = Traced()
    minimize(fun, START)
    minimize(fun, START)
    assert fun.count == 2
