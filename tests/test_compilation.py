"""The compiler's view of a solve: how often fun is traced, compiled and evaluated, and what the program holds."""

import functools

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import DTYPES, START, Traced, compilations, mostly, unlike, valley
from problems import PAIRS, rosenbrock

import jaxmin
from jaxmin import minimize
from jaxmin._cache.registry import entries

# ---- traces


@pytest.mark.parametrize(("method", "search"), PAIRS)
def test_fun_is_traced_once(method, search):
    fun = Traced()
    jax.make_jaxpr(lambda x: minimize(fun, x, method=method, linesearch=search).x)(jnp.array(START))
    assert fun.count == 1


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_fun_is_traced_once_by_a_whole_solve(transform):
    fun = Traced()
    transform(lambda x: minimize(fun, x).x)(jnp.array([START, START]))
    assert fun.count == 1


def test_fun_and_jac_of_the_users_own_are_traced_once():
    fun, jac = Traced(lambda x: (valley(x), x)), Traced(jax.grad(valley))
    minimize(fun, START, jac=jac, has_aux=True)
    assert (fun.count, jac.count) == (1, 1)


def test_fun_with_its_gradient_is_traced_once():
    fun = Traced(jax.value_and_grad(valley))
    minimize(fun, START, jac=True)
    assert fun.count == 1


def test_fun_of_a_pytree_and_arguments_is_traced_once():
    fun = Traced(lambda x, a, k: valley(x["a"], a) + k * x["b"] ** 2)
    minimize(fun, {"a": np.array(START), "b": 1}, (1.0, 2))
    assert fun.count == 1


def test_fun_is_traced_twice_where_an_integer_steers_control_flow():
    fun = Traced(lambda x, k: sum(valley(x) for _ in range(k)))
    minimize(fun, START, (2,))
    assert fun.count == 2


# ---- compilations

ANEW = {
    "x0": {"x0": (2.0, 3.0)},
    "args": {"args": (2.0,)},
    "gtol": {"gtol": 1e-2},
    "gtol off": {"gtol": -1.0},
    "ftol": {"ftol": 1e-3},
    "xtol": {"xtol": 1e-3},
    "maxiter": {"maxiter": 7},
    "maxfun": {"maxfun": 7},
    "all": {"x0": (2.0, 3.0), "args": (2.0,), "gtol": 1e-2, "ftol": 1e-3, "xtol": 1e-3, "maxiter": 7, "maxfun": 7},
    # The same numbers, of another kind.
    "int gtol": {"gtol": 0},
    "float maxiter": {"maxiter": 1e3},
    "float maxfun": {"maxfun": float("inf")},
    "gtol of NumPy": {"gtol": np.float64(1e-2)},
    "gtol of NumPy in float32": {"gtol": np.float32(1e-2)},
    "gtol of JAX": {"gtol": jnp.asarray(1e-2, jnp.float32)},
    "maxiter of NumPy": {"maxiter": np.int64(7)},
    "maxiter of JAX": {"maxiter": jnp.asarray(7, jnp.int32)},
}


def solve(fun, x0=START, args=(1.0,), method="lbfgs", **options):
    return minimize(fun, x0, args, method, options=options)


@pytest.mark.parametrize("name", ANEW)
def test_new_values_compile_nothing(name):
    shift = unlike()
    fun = lambda x, a: valley(x, a) + shift
    first = solve(fun, method="cg")
    with compilations() as programs:
        second = solve(fun, method="cg", **ANEW[name])
    assert programs == []
    if name not in ("int gtol", "float maxiter", "float maxfun"):
        assert second.nfev != first.nfev  # the value was used


def test_new_tol_compiles_nothing():
    shift = unlike()
    fun = lambda x: valley(x) + shift
    minimize(fun, START, tol=1e-3)
    with compilations() as programs:
        minimize(fun, START, tol=1e-6)
        minimize(fun, START, tol=0)
    assert programs == []


def test_first_call_compiles_one_program():
    solve(valley)  # what converts x0 and the limits is compiled
    shift = unlike()
    fun = lambda x, a: valley(x, a) + shift
    with compilations() as programs:
        solve(fun)
    assert len(programs) == 1
    with compilations() as programs:
        solve(fun, x0=(2.0, 3.0), args=(2.0,), gtol=1e-3)
        solve(fun, maxiter=3)
    assert programs == []


def over(data):
    """Functions with the same body over other data, made anew each time."""

    class Model(eqx.Module):
        data: jax.Array

        def loss(self, x):
            return jnp.sum((x - self.data) ** 2)

    class Plain:
        def loss(self, x):
            return jnp.sum((x - data) ** 2)

    def loss(data, x):
        return jnp.sum((x - data) ** 2)

    return {
        "lambda": lambda x: jnp.sum((x - data) ** 2),
        "partial": functools.partial(loss, data),
        "Partial": jax.tree_util.Partial(loss, data),
        "module's method": Model(data).loss,
        "bound method": Plain().loss,
        "scan": lambda x: jax.lax.scan(lambda total, d: (total + jnp.sum((x - d) ** 2), None), 0.0, data)[0],
        "jit": jax.jit(lambda x: jnp.sum((x - data) ** 2)),
        "checkpoint": jax.checkpoint(lambda x: jnp.sum((x - data) ** 2)),
        "relu": lambda x: jnp.sum(jax.nn.relu(x - data) + jax.nn.relu(data - x)),
    }


@pytest.mark.parametrize("name", over(jnp.ones(2)))
def test_fresh_function_with_the_same_body_compiles_nothing(name):
    one, two = np.array([1.0, -1.0]), np.array([2.0, 5.0])
    minimize(over(one)[name], START)
    with compilations() as programs:
        x = minimize(over(two)[name], START).x
    assert programs == []
    if name != "scan":  # over the rows: every number to both
        np.testing.assert_allclose(x, two, atol=1e-4)


@pytest.mark.parametrize(
    "name", mostly([*entries("methods"), *entries("linesearches")], "lbfgs", "trust_exact", "nelder_mead", "wolfe")
)
@pytest.mark.filterwarnings("ignore:fun returns one number")
def test_building_anew_compiles_nothing(name):
    def run():
        built = getattr(jaxmin, name)()
        given = {"method": built} if name in entries("methods") else {"method": jaxmin.lbfgs(linesearch=built)}
        return minimize(valley, START, **given, options={"maxiter": 3})

    run()
    with compilations() as programs:
        run()
    assert programs == []


def test_building_anew_with_constants_compiles_nothing():
    def run():
        search = jaxmin.wolfe(curvature=0.3, max_trials=9)
        return minimize(valley, START, method=jaxmin.bfgs(initial_scale=False, linesearch=search))

    run()
    with compilations() as programs:
        run()
    assert programs == []


def test_batch_of_new_values_compiles_nothing():
    def solves(x, a):
        return jax.vmap(lambda x, a: minimize(valley, x, (a,)).x)(np.array(x), np.array(a))

    first = solves([START, (2.0, 3.0)], [1.0, 1.0])
    with compilations() as programs:
        second = solves([(2.0, 3.0), START], [0.0, 1.0])
    assert programs == []
    np.testing.assert_array_equal(second[1], first[0])
    assert np.abs(second[0] - first[1]).max() > 0.5  # the values were used


# ---- evaluations


class Counted:
    """A function of which every evaluation by the machine is counted, a lane at a time."""

    def __init__(self, fun=rosenbrock):
        self.fun, self.count = fun, 0

    def _tell(self, _):
        self.count += 1

    def __call__(self, x):
        jax.debug.callback(self._tell, x)
        return self.fun(x)

    def reset(self):
        jax.effects_barrier()
        count, self.count = self.count, 0
        return count


@pytest.mark.parametrize("dtype", DTYPES)
def test_nfev_is_the_number_of_evaluations(dtype):
    fun = Counted()
    solve = jax.jit(lambda x, maxfun: minimize(fun, x, options={"maxfun": maxfun}))
    for start, maxfun in (([-1.2, 1.0], 1000), ([2.0, 3.0], 1000), ([-1.2, 1.0], 7), ([1.0, 1.0], 1000)):
        res = jax.block_until_ready(solve(jnp.array(start, dtype), maxfun))
        assert fun.reset() == res.nfev == res.njev
        assert res.nfev <= maxfun


LANES = np.random.default_rng(0).normal(size=(16, 4)) * 2


def test_lane_of_a_batch_takes_the_evaluations_that_it_takes_alone():
    batch = jax.vmap(functools.partial(minimize, rosenbrock))(jnp.array(LANES))
    alone = [minimize(rosenbrock, x) for x in LANES]
    assert batch.nfev.tolist() == [int(res.nfev) for res in alone]
    assert batch.nit.tolist() == [int(res.nit) for res in alone]
    assert batch.status.tolist() == [int(res.status) for res in alone]
    assert len(set(batch.nfev.tolist())) > 4  # lanes of different length


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_lanes_change_nothing(dtype):
    solves = jax.jit(jax.vmap(functools.partial(minimize, rosenbrock)))
    lanes = jnp.array(LANES, dtype)
    batch = solves(lanes)
    other = solves(lanes.at[1::2].set(jnp.nan).at[3::4].set(1e3))
    for one, two in zip(jax.tree.leaves(batch), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one[::2], two[::2])
    assert not np.array_equal(batch.nfev[1::2], other.nfev[1::2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_evaluates_as_often_as_its_longest_lane(dtype):
    fun = Counted()
    res = jax.block_until_ready(jax.vmap(functools.partial(minimize, fun))(jnp.array(LANES, dtype)))
    assert fun.reset() == len(LANES) * res.nfev.max()  # each evaluation tells of every lane
    assert res.nfev.min() < res.nfev.max()


# ---- the program


def subprograms(eqn):
    return [
        inner.jaxpr if isinstance(inner, jex.ClosedJaxpr) else inner
        for value in eqn.params.values()
        for inner in (value if isinstance(value, (tuple, list)) else (value,))
        if isinstance(inner, (jex.Jaxpr, jex.ClosedJaxpr))
    ]


def walk(jaxpr, path=()):
    """Every operation of a program, with the names of the operations around it."""
    for eqn in jaxpr.eqns:
        yield eqn, path
        for inner in subprograms(eqn):
            yield from walk(inner, (*path, eqn.primitive.name))


def constants(jaxpr):
    """Every constant inside a program, literals and those of its parts."""
    for eqn, _ in walk(jaxpr):
        yield from (v.val for v in eqn.invars if isinstance(v, jex.Literal))
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, jex.ClosedJaxpr):
                    yield from inner.consts


def marked(x):
    """Rosenbrock's function through an operation that is nowhere else, and that the gradient does not repeat."""
    return rosenbrock(x) + 1e-3 * jnp.sum(jax.lax.erf_inv(x / 100))


def program(method="lbfgs", search="backtracking", fun=marked):
    solve = lambda x: minimize(fun, x, method=method, linesearch=search).x
    return jax.make_jaxpr(solve)(jnp.array(START))


@pytest.mark.parametrize(("method", "search"), [pair for pair in PAIRS if pair[0] != "lbfgs_newton"])
def test_one_loop_with_one_evaluation_in_its_body(method, search):
    operations = list(walk(program(method, search).jaxpr))
    loops = [eqn for eqn, _ in operations if eqn.primitive.name == "while"]
    assert len(loops) == 1
    evaluations = [path for eqn, path in operations if eqn.primitive.name == "erf_inv"]
    assert len(evaluations) == 1
    assert set(evaluations[0]) <= {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vmap_call", "while"}
    body = loops[0].params["body_jaxpr"].jaxpr
    assert sum(eqn.primitive.name == "erf_inv" for eqn, _ in walk(body)) == 1


def test_a_method_that_changes_is_two_loops():
    """The first one evaluates f alone, and the second one either f or a product."""
    loops = [eqn for eqn, _ in walk(program("lbfgs_newton").jaxpr) if eqn.primitive.name == "while"]
    assert len(loops) == 2
    evaluations = [
        [path for eqn, path in walk(loop.params["body_jaxpr"].jaxpr) if eqn.primitive.name == "erf_inv"]
        for loop in loops
    ]
    assert list(map(len, evaluations)) == [1, 2]
    assert "cond" not in evaluations[0][0] and all("cond" in path for path in evaluations[1])


@pytest.mark.parametrize(("method", "search"), PAIRS)
def test_nothing_in_the_program_asks_the_host(method, search):
    names = {eqn.primitive.name for eqn, _ in walk(program(method, search).jaxpr)}
    assert not {name for name in names if "callback" in name or "print" in name or "infeed" in name}


def test_a_question_to_the_host_would_be_found():
    names = {eqn.primitive.name for eqn, _ in walk(program(fun=Counted()).jaxpr)}
    assert {name for name in names if "callback" in name}


N = 200
BIG = np.random.default_rng(0).normal(size=(N, N))
LARGE = {
    "NumPy": lambda x: jnp.sum((BIG @ x - 1) ** 2),
    "JAX": (lambda big: lambda x: jnp.sum((big @ x - 1) ** 2))(jnp.array(BIG)),
    "jit": (lambda big: jax.jit(lambda x: jnp.sum((big @ x - 1) ** 2)))(jnp.array(BIG)),
    "scan": (lambda big: lambda x: jax.lax.scan(lambda c, row: (c + (row @ x) ** 2, None), 0.0, big)[0])(
        jnp.array(BIG)
    ),
    "inside scan": (
        lambda big: lambda x: jax.lax.scan(lambda c, _: (c + jnp.sum((big @ x) ** 2), None), 0.0, length=2)[0]
    )(jnp.array(BIG)),
    "cond": (
        lambda big: lambda x: jax.lax.cond(x[0] > 0, lambda x: jnp.sum((big @ x) ** 2), lambda x: jnp.sum(x**2), x)
    )(jnp.array(BIG)),
    "checkpoint": (lambda big: jax.checkpoint(lambda x: jnp.sum((big @ x - 1) ** 2)))(jnp.array(BIG)),
    "partial": functools.partial(lambda big, x: jnp.sum((big @ x - 1) ** 2), BIG),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_are_fed_to_the_program_and_are_no_part_of_it(name):
    closed = jax.make_jaxpr(lambda x: minimize(LARGE[name], x).x)(jnp.ones(N))
    assert max((np.size(c) for c in constants(closed.jaxpr)), default=0) < N
    text = jax.jit(lambda consts, x: jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, consts))(x)).lower(
        closed.consts, jnp.ones(N)
    )
    assert len(text.as_text()) < 8 * N * N
    assert any(np.size(c) == N * N for c in closed.consts)
