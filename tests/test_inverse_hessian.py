"""The forms of the L-BFGS matrix give the same products as the two-loop recursion of the book."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmin import bfgs, lbfgs, minimize
from jaxmin._core import vector as vec
from jaxmin._core.inverse_hessian import Compact, Pair, Unlimited


def two_loops(pairs, v, diagonal=None):
    """H v (Nocedal & Wright, 2nd ed., Algorithm 7.4), with H_0 = s.y / y.y I or a diagonal; of no pairs 0."""
    if not pairs:
        return np.zeros_like(v)
    q, alphas = v, []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = (s @ y) / (y @ y) * q if diagonal is None else diagonal * q
    for (s, y), alpha in zip(pairs, reversed(alphas)):
        r = r + (alpha - y @ r / (s @ y)) * s
    return r


@pytest.mark.parametrize("form", ("compact", "unlimited"))
def test_as_the_recursion_with_pairs_stored_left_out_and_forgotten(form):
    n, m = 6, 4 if form == "compact" else 100
    H = Compact.empty(m, jnp.zeros(n)) if form == "compact" else Unlimited.empty(jnp.zeros(n))
    update = jax.jit(lambda H, pair, store, forget: H.update(pair, store, forget))
    rng = np.random.default_rng(0)
    A = rng.normal(size=(n, n))
    A = A @ A.T + np.eye(n)
    pairs, happened = [], set()
    for _ in range(60):
        s, v = rng.normal(size=(2, n))
        y, store, forget = A @ s, rng.random() < 0.8, rng.random() < 0.15
        H = update(H, Pair(s, y, s @ y, y @ y, np.True_), np.bool_(store), np.bool_(forget))
        pairs = ([] if forget else pairs) + ([(s, y)] if store else [])
        pairs = pairs[-m:]
        happened.add((store, forget, len(pairs) == m))
        np.testing.assert_allclose(H.times(v), two_loops(pairs, v), rtol=1e-8, atol=1e-10)
        if form == "compact":
            S, Y, has = H.pairs()
            kept = list(zip(np.asarray(S)[has], np.asarray(Y)[has]))
            np.testing.assert_array_equal(np.ravel(kept), np.ravel(pairs))
    assert {(True, True), (True, False), (False, True), (False, False)} == {both[:2] for both in happened}


def test_a_diagonal_that_is_that_of_the_updated_matrix():
    """H_0^-1 is the diagonal of the BFGS matrix that a pair makes of the last one, times y.H_0 y / s.y."""
    n, m = 6, 4
    H = Compact.empty(m, jnp.zeros(n), weighted=True)
    rng = np.random.default_rng(0)
    A = np.diag(10.0 ** np.arange(n)) + np.ones((n, n))
    pairs, h = [], None
    for k in range(60):
        s, v = rng.normal(size=(2, n))
        y, forget = A @ s, k % 17 == 16
        H = H.update(Pair(s, y, s @ y, y @ y, np.True_), np.True_, np.bool_(forget))
        if h is None or forget:
            pairs, h = [], np.full(n, s @ y / (y @ y))
        else:
            B = y @ (h * y) / (s @ y) * np.diag(1 / h)
            h = 1 / np.diag(B - np.outer(B @ s, B @ s) / (s @ B @ s) + np.outer(y, y) / (s @ y))
        pairs = [*pairs, (s, y)][-m:]
        np.testing.assert_allclose(H.times(v), two_loops(pairs, v, h), rtol=1e-6, atol=1e-9)
    assert H.weights[0] > 10 * H.weights[-1]  # it has seen that the curvatures differ


def test_a_diagonal_of_pytrees_and_complex_numbers():
    x = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2, complex)}
    drawn = lambda u, k: jax.random.normal(jax.random.key(k), u.shape, u.dtype)
    s, v = (jax.tree.map(lambda u, k=k: drawn(u, k), x) for k in (1, 2))
    y = jax.tree.map(lambda u: 3 * u, s)
    sy, yy = vec.dot(s, y), vec.dot(y, y)
    H = Compact.empty(3, x, weighted=True).update(Pair(s, y, sy, yy, True), jnp.array(True), jnp.array(False))
    again = H.update(Pair(s, y, sy, yy, True), jnp.array(True), jnp.array(False))
    assert jax.tree.structure(again.times(v)) == jax.tree.structure(x)
    for core in (H, again):
        for got, expected in zip(jax.tree.leaves(core.times(y)), jax.tree.leaves(s)):
            np.testing.assert_allclose(got, expected, rtol=1e-12)  # the secant equation


def test_all_pairs_of_few_variables_and_ten_of_more():
    def core(n, **parameters):
        return minimize(lambda x: jnp.sum(jnp.cosh(x)), jnp.ones(n), method=lbfgs(**parameters)).hess_inv.core()

    assert isinstance(core(16), Unlimited)
    assert isinstance(core(17), Compact) and core(17).D.size == 10
    assert isinstance(core(16, memory=3), Compact) and core(16, memory=3).D.size == 3


def test_a_diagonal_by_name_solves_what_a_multiple_of_the_identity_does_not():
    """A chain whose springs differ by six orders of magnitude."""
    stiff = jnp.logspace(0, 6, 100)
    fun = lambda x: jnp.sum(stiff * (jnp.cosh(x) - 1)) + jnp.sum(jnp.diff(x) ** 4)
    solve = lambda **given: minimize(fun, jnp.ones(100), options={"maxiter": 300, **given})
    plain, weighted = solve(), solve(preconditioner="diagonal")
    assert weighted.success and not plain.success
    assert jnp.max(jnp.abs(weighted.x)) < 1e-4
    diagonal = weighted.hess_inv.diagonal()
    assert diagonal[0] / diagonal[-1] > 1e4
    with pytest.raises(ValueError, match="preconditioner='full': give None or 'diagonal'"):
        lbfgs(preconditioner="full")


def test_no_limit_is_a_limit_that_is_not_reached():
    def valley(x):
        return jnp.sum(30 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    start = np.linspace(-1, 1.5, 5)
    one, two = (minimize(valley, start, method=lbfgs(memory=memory)) for memory in (None, 200))
    assert one.success and one.nit < 200
    assert one.nfev == two.nfev
    np.testing.assert_allclose(one.x, two.x, atol=1e-8)
    np.testing.assert_allclose(one.hess_inv.todense(), two.hess_inv.todense(), rtol=1e-4, atol=1e-6)


def test_bfgs_without_a_pair_is_the_identity_whatever_its_matrix_holds():
    method = bfgs()
    state = method.init(jnp.ones(3))
    forgotten = state._replace(direction=state.direction._replace(H=jnp.full((3, 3), jnp.nan)))
    np.testing.assert_array_equal(method.inverse_hessian(forgotten).H, np.eye(3))
