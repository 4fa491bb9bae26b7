"""The protocol of methods holds for problems that are not offered yet: residuals and constraints, without a branch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import jaxmin
from jaxmin import Status
from jaxmin._cache.registry import entries
from jaxmin._core.kkt import Kkt, Rows
from jaxmin._driver import stopping
from jaxmin._driver.evaluation import PROVIDERS, SETTINGS, Evaluation, Found
from jaxmin._driver.loop import Loop, begin, run
from jaxmin._driver.stopping import Limits
from jaxmin.extend import Iterate, Method
from jaxmin.extend import vector as vec

LIMITS = Limits(gtol=1e-9, ftol=-1.0, xtol=-1.0, maxiter=100, maxfun=100, ctol=1e-9, barrier_tol=1e-9)


class ToyState(NamedTuple):
    """What the toy for constraints carries."""

    trial: Any
    stays: Any  # [] bool: the matrix at the iterate is wanted
    iterate: Iterate
    accepted: Any
    nit: Any
    status: Any
    multipliers: Any = None  # of the toy for constraints
    kkt: Any = None


def before_x0(x, **more):
    zero, no = jnp.zeros((), x.dtype), jnp.zeros((), bool)
    nit, status = jnp.full((), -1, jnp.int32), jnp.full((), Status.RUNNING, jnp.int32)
    return ToyState(x, no, Iterate(x, zero, vec.zeros(x)), no, nit, status, **more)


class ToyFit(NamedTuple):
    """What the toy for residuals carries."""

    trial: Any
    iterate: Iterate
    accepted: Any
    nit: Any
    status: Any
    JJ: Any  # [n, n] J^T J at the iterate
    damping: Any

    def takes(self, value):
        return (self.nit < 0) | (value < self.iterate.f)


def toy_levenberg_marquardt():
    """(J^T J + damping I) s = -J^T r."""

    def init(x):
        plain, eye = before_x0(x), jnp.eye(x.size)
        return ToyFit(x, plain.iterate, plain.accepted, plain.nit, plain.status, eye, jnp.ones((), x.dtype))

    def update(grad, state, x, /, *, value, residual, jacobian, **_):
        np.testing.assert_equal(residual.shape[0], jacobian.shape[0])
        accepted = state.takes(value)
        iterate = vec.where(accepted, Iterate(x, value, grad), state.iterate)
        damping = state.damping * jnp.where(accepted, 0.1, 10)
        JJ = jnp.where(accepted, jacobian.T @ jacobian, state.JJ)
        trial = iterate.x - jnp.linalg.solve(JJ + damping * jnp.eye(x.size), iterate.g)
        nit = (state.nit + accepted).astype(jnp.int32)
        return trial - x, ToyFit(trial, iterate, accepted, nit, state.status, JJ, damping)

    return Method(init, update, wants=frozenset({"grad", "residual", "jacobian"}))


def least_squares(residual):
    """The ``Evaluation`` of half a sum of squares."""

    def first(x):
        r, pull = jax.vjp(residual, x)
        return Found(r @ r / 2, pull(r)[0], [], {"residual": r})

    return Evaluation(first, jacobian=jax.jacobian(residual))


def toy_newton_kkt(k):
    """Newton's method for the conditions of Karush, Kuhn and Tucker with c(x) = 0; every trial is an iterate."""

    def init(x, *, constraints, box):
        assert constraints.c.shape == (k,) and not box.bounded
        kkt = Kkt(constraints, constraints.c, vec.zeros(x), vec.zeros(x), constraints.c + 1)
        return before_x0(x, multipliers=constraints.c, kkt=kkt)

    def update(grad, state, x, /, *, value, constraints, constraint_jacobian, lagrangian_hessian, **_):
        J, H, v = constraint_jacobian, lagrangian_hessian, state.multipliers
        K = jnp.block([[H, J.T], [J, jnp.zeros((k, k))]])
        solved = jnp.linalg.solve(K, -jnp.concatenate([grad, constraints.c - constraints.lower]))
        kkt = Kkt(constraints, v, vec.zeros(x), grad + J.T @ v, jnp.max(jnp.abs(J), axis=1))
        yes = jnp.ones((), bool)
        new = state._replace(
            trial=x + solved[: x.size], iterate=Iterate(x, value, grad), accepted=yes, nit=state.nit + 1,
            multipliers=solved[x.size :], kkt=kkt,
        )  # fmt: skip
        return new.trial - x, new

    wants = frozenset({"grad", "constraints", "constraint_jacobian", "lagrangian_hessian"})
    return Method(init, update, wants=wants)


def constrained(fun, c):
    """The ``Evaluation`` of f with c(x) = 0 in the same trace."""
    zeros = jnp.zeros(1)

    def first(x):
        value, grad = jax.value_and_grad(fun)(x)
        extras = {"constraints": Rows(c(x), zeros, zeros), "constraint_jacobian": jax.jacobian(c)(x)}
        return Found(value, grad, [], extras)

    hessian = lambda x, v: jax.hessian(lambda x: fun(x) + v @ c(x))(x)
    return Evaluation(first, lagrangian=hessian, rows=Rows(zeros, zeros, zeros))


def solve(evaluation, method, x0, tests):
    @jax.jit
    def solved(x0):
        loop = Loop(evaluation, lambda x: x, method, tests, LIMITS)
        return run(loop, begin(evaluation, method, x0, []))

    return solved(jnp.asarray(x0))


def test_a_method_may_want_residuals():
    t, b = jnp.linspace(0, 2, 20), jnp.array([1.5, -0.7])
    y = b[0] * jnp.exp(b[1] * t)
    evaluation = least_squares(lambda x: x[0] * jnp.exp(x[1] * t) - y)
    end = solve(evaluation, toy_levenberg_marquardt(), [1.0, 0.0], stopping.WITH_GRADIENT)
    assert end.status == Status.CONVERGED
    np.testing.assert_allclose(end.state.iterate.x, b, rtol=1e-8)
    # Jacobians are counted apart from f: one for each iterate.
    assert end.njev == end.state.nit + 1 <= end.nfev and end.nhev is None


def test_minimize_offers_residuals_and_their_gradient():
    t = jnp.linspace(0, 2, 20)
    residuals = lambda x: x[0] * jnp.exp(x[1] * t) - 1.5 * jnp.exp(-0.7 * t)
    for jac in (None, jax.jacobian(residuals)):
        res = jaxmin.minimize(residuals, [1.0, 0.0], method=toy_levenberg_marquardt(), jac=jac)
        np.testing.assert_allclose(res.x, [1.5, -0.7], rtol=1e-4)


def test_every_method_minimises_a_sum_of_squares():
    t = jnp.linspace(0, 2, 20)
    evaluation = least_squares(lambda x: x[0] * jnp.exp(x[1] * t) - 1.5 * jnp.exp(-0.7 * t))
    for method in (jaxmin.lbfgs(), jaxmin.trust_ncg(), jaxmin.trust_exact()):
        end = solve(evaluation, method, [1.0, 0.0], stopping.WITH_GRADIENT)
        np.testing.assert_allclose(end.state.iterate.x, [1.5, -0.7], rtol=1e-6)


def test_a_method_may_want_constraints():
    """Rosenbrock's function on the unit circle (Betts, 1977)."""
    evaluation = constrained(rosenbrock, lambda x: jnp.array([x @ x - 1]))
    end = solve(evaluation, toy_newton_kkt(1), [0.8, 0.6], stopping.CONSTRAINED)
    assert end.status == Status.CONVERGED
    np.testing.assert_allclose(end.state.iterate.x, [0.78641515, 0.61769831], rtol=1e-6)
    x, v = end.state.iterate.x, end.state.kkt.v
    np.testing.assert_allclose(jax.grad(rosenbrock)(x) + v * 2 * x, 0, atol=1e-8)
    assert end.nhev == end.nfev  # one in every step


def test_a_violation_is_no_solution():
    """Without its own row the same solve would end at once: the row is what makes it feasible."""
    evaluation = constrained(lambda x: jnp.sum((x - 2) ** 2), lambda x: jnp.array([x @ x - 1]))
    free = solve(evaluation, toy_newton_kkt(1), [2.0, 2.0], stopping.WITH_GRADIENT)
    assert free.status == Status.CONVERGED and abs(float(free.state.kkt.rows.c[0])) > 1
    end = solve(evaluation, toy_newton_kkt(1), [2.0, 2.0], stopping.CONSTRAINED)
    np.testing.assert_allclose(end.state.iterate.x, np.sqrt([0.5, 0.5]), rtol=1e-8)


def test_what_a_problem_does_not_offer_is_refused_by_name():
    method = jaxmin.lbfgs()._replace(wants=frozenset({"grad", "hessian"}))
    with pytest.raises(ValueError, match=r"method: it wants 'hessian'.*offers 'H', 'box'|'grad', 'hessian'"):
        jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=method)


def test_a_state_without_a_field_is_refused_by_name():
    class Short(NamedTuple):
        trial: Any
        iterate: Any
        nit: Any
        status: Any

    zero = jnp.zeros((), jnp.int32)
    method = Method(lambda x: Short(x, Iterate(x, zero, x), zero, zero), lambda *args, **_: None)
    with pytest.raises(TypeError, match="has no 'accepted'"):
        jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=method)


@pytest.mark.parametrize("wants", ({"grad"}, "grad", frozenset({1})), ids=str)
def test_wants_that_are_no_frozenset_of_names_are_refused(wants):
    with pytest.raises(TypeError, match=r"method: its wants are .*frozenset"):
        jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=jaxmin.lbfgs()._replace(wants=wants))


@pytest.mark.parametrize(
    ("wants", "field"), [({"grad", "hv"}, "'stays' and no 'along'"), ({"grad", "H"}, "'stays'"), (set(), "'spread'")]
)
def test_a_state_without_what_its_wants_need_is_refused_by_name(wants, field):
    plain = jaxmin.bfgs()
    short = plain._replace(wants=frozenset(wants), init=lambda x: Short(x, *plain.init(x)[2:6]))
    with pytest.raises(TypeError, match=f"has no {field}"):
        jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=short)


class Short(NamedTuple):
    """A state with what every method has, and no more."""

    trial: Any
    iterate: Any
    accepted: Any
    nit: Any
    status: Any


@pytest.mark.parametrize("by_hand", ({}, {"hess": jax.hessian(rosenbrock)}), ids=("automatic", "hess"))
def test_a_method_may_want_products_and_the_matrix(by_hand):
    """The two agree, whoever gives them."""
    plain = jaxmin.trust_ncg()

    def update(grad, state, params, /, *, value, hv, H, **_):
        return plain.update(grad, state, params, value=value, hv=(hv + H @ state.along) / 2)

    both = plain._replace(update=update, wants=frozenset({"grad", "hv", "H"}))
    res = jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=both, **by_hand)
    assert res.success and res.nhev == jaxmin.minimize(rosenbrock, [-1.2, 1.0], method=plain, **by_hand).nhev


def test_every_wanted_name_is_in_the_table():
    for name, entry in entries("methods").items():
        assert entry.build().wants <= PROVIDERS.keys() | SETTINGS, name
