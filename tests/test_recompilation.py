"""Objectives through other libraries, and through derivative rules that are new at each trace: compiled once."""

import jax
import jax.numpy as jnp
import pytest
from helpers import compilations, unlike

from jaxmin import minimize


def custom_jvp():
    @jax.custom_jvp
    def square(x):
        return jnp.sum(x**2)

    square.defjvp(lambda primals, tangents: (jnp.sum(primals[0] ** 2), jnp.sum(2 * primals[0] * tangents[0])))
    return square


def custom_vjp():
    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (jnp.sum(x**2), x), lambda x, g: (2 * x * g,))
    return square


def filter_custom_vjp():
    eqx = pytest.importorskip("equinox")

    @eqx.filter_custom_vjp
    def square(x):
        return jnp.sum(x**2)

    @square.def_fwd
    def forward(perturbed, x):
        return jnp.sum(x**2), x

    @square.def_bwd
    def backward(x, g, perturbed, _):
        return 2 * x * g

    return square


def of_equinox():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
    data = jnp.ones((5, 2))
    return model, lambda model: jnp.mean((jax.vmap(model)(data) - 1) ** 2)


def of_lineax(x):
    lx = pytest.importorskip("lineax")
    return jnp.sum((lx.linear_solve(lx.MatrixLinearOperator(jnp.eye(2) * 2), x).value - 1) ** 2)


def of_optimistix(x):
    optx = pytest.importorskip("optimistix")
    newton = optx.Newton(1e-5, 1e-5)
    root = optx.root_find(lambda z, a: z**3 + z - a, newton, jnp.zeros(2), args=x, throw=False)
    return jnp.sum((root.value - 1) ** 2)


def of_jaxopt(x):
    jaxopt = pytest.importorskip("jaxopt")
    root = jaxopt.Bisection(lambda z, a: z**3 + z - a, lower=-10.0, upper=10.0, check_bracket=False)
    return (root.run(a=jnp.sum(x)).params - 1) ** 2 + jnp.sum(x**2)


def of_diffrax(adjoint):
    def fun(x):
        dfx = pytest.importorskip("diffrax")
        term = dfx.ODETerm(lambda t, y, k: -k * y)
        settings = {} if adjoint is None else {"adjoint": getattr(dfx, adjoint)()}
        solution = dfx.diffeqsolve(
            term, dfx.Euler(), 0.0, 1.0, 0.1, jnp.ones(2), x, max_steps=16, throw=False, **settings
        )
        return jnp.sum((solution.ys - 0.5) ** 2)

    return jnp.ones(2), fun


def of_numpyro():
    numpyro = pytest.importorskip("numpyro")
    dist, util = numpyro.distributions, pytest.importorskip("numpyro.infer.util")

    def model():
        numpyro.sample("scale", dist.Gamma(2.0, 1.0))
        numpyro.sample("weights", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("seen", dist.StudentT(3.0, 0.0, 1.0), obs=0.5)

    info = util.initialize_model(jax.random.key(0), model)
    return info.param_info.z, info.potential_fn


def shifted(square):
    """The rule is there once."""
    return jnp.zeros(2), lambda x: square(x - 1)


def made_inside(square):
    """The rule is made at each trace."""
    return jnp.zeros(2), lambda x: square()(x - 1)


OBJECTIVES = {
    "custom_jvp": lambda: shifted(custom_jvp()),
    "custom_jvp inside": lambda: made_inside(custom_jvp),
    "custom_vjp": lambda: shifted(custom_vjp()),
    "custom_vjp inside": lambda: made_inside(custom_vjp),
    "Equinox": of_equinox,
    "eqx.filter_custom_vjp": lambda: shifted(filter_custom_vjp()),
    "eqx.filter_custom_vjp inside": lambda: made_inside(filter_custom_vjp),
    "lineax": lambda: (jnp.ones(2), of_lineax),
    "optimistix root_find": lambda: (jnp.ones(2), of_optimistix),
    "jaxopt": lambda: (jnp.ones(2), of_jaxopt),
    "diffrax": lambda: of_diffrax(None),
    "diffrax DirectAdjoint": lambda: of_diffrax("DirectAdjoint"),
    "NumPyro": of_numpyro,
}
SECOND_ORDER = ("custom_jvp", "eqx.filter_custom_vjp")


@pytest.mark.parametrize(
    ("name", "method"), [*((name, "lbfgs") for name in OBJECTIVES), *((name, "trust_ncg") for name in SECOND_ORDER)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_first_call_compiles_and_no_other(name, method):
    x0, fun = OBJECTIVES[name]()
    shift = unlike()
    counts = []
    for _ in range(3):
        with compilations() as programs:
            minimize(lambda x: fun(x) + shift, x0, method=method, options={"maxiter": 2})
        counts.append(programs)
    of_solves = [sum("solve" in program for program in programs) for programs in counts]
    assert of_solves == [1, 0, 0]
    assert counts[1:] == [[], []]  # nor what the library compiles while it is traced
