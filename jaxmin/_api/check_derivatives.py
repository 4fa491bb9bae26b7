"""check_derivatives: are the derivatives right, and is the function smooth?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables
from jaxmin._problem import dependence
from jaxmin._problem.constraints import (
    NO_CONSTRAINTS,
    ConstraintsLike,
    Part,
    checked,
    hessian_of_rows,
    shape_of,
    values,
    with_jacobian,
)

# Directions of random signs along which the derivatives are compared.
_DIRECTIONS = 4
# Two derivatives agree if they differ by less than this fraction of the larger one, beside the error of differences.
_AGREE = 1e-2


class DerivativeCheck(NamedTuple):
    """What :func:`check_derivatives` found; printed, it is a line for each comparison.

    - ``ok``: whether all comparisons agree.
    - ``lines``: the comparisons in words.
    - ``errors``: the largest relative error of each comparison, by its name.
    """

    ok: bool
    lines: tuple[str, ...]
    errors: dict[str, float]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def check_derivatives(
    fun: Callable[..., Any],
    x: PyTree,
    args: Any = (),
    *,
    jac: Callable[..., Any] | None = None,
    hess: Callable[..., Any] | None = None,
    hessp: Callable[..., Any] | None = None,
    constraints: ConstraintsLike = (),
) -> DerivativeCheck:
    """Compare the derivatives of fun and of constraints at x with differences, and those by hand with automatic ones.

    Use it where a solve ends with status 8, or before a long run with derivatives by hand. The point should be a
    typical one, not a minimum. Differences are central, along four directions of random signs.

    Args:
      fun: the objective, ``fun(x, *args) -> value``.
      x: a point, any pytree of real arrays or numbers. In float32 errors below about 1 % stay hidden.
      args: further arguments, a tuple.
      jac: the gradient by hand, ``jac(x, *args)``, like x.
      hess: the Hessian by hand, ``hess(x, *args)``, [n, n].
      hessp: the product by hand, ``hessp(x, p, *args)``, like x.
      constraints: as in ``minimize``. Of each a sum of its rows with random signs is compared, then its ``jac`` and
        ``hess``, if it has them.

    Returns:
      A :class:`DerivativeCheck`. It can be printed.

    Raises:
      TypeError: if fun is not callable, or x has complex numbers.
      TypeError, ValueError, NotImplementedError: for constraints that ``minimize`` refuses.

    >>> import jax.numpy as jnp, jaxmin
    >>> fun = lambda x: jnp.sum(x**2 * jnp.array([1.0, 3.0]))
    >>> jaxmin.check_derivatives(fun, [1.0, 2.0]).ok
    True
    >>> wrong = lambda x: jnp.array([2.0, 3.0]) * x
    >>> print(jaxmin.check_derivatives(fun, jnp.array([1.0, 2.0]), jac=wrong).lines[-1])
    jac and the automatic gradient differ by 0.5 of its size, most in component 1: 6 by hand, 12 automatic.
    >>> disk = {"type": "ineq", "fun": lambda x: 1 - x @ x, "jac": lambda x: 2 * x}
    >>> jaxmin.check_derivatives(fun, jnp.array([1.0, 2.0]), constraints=disk).errors["constraints[0].jac"]
    2.0
    """
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: it must be callable, fun(x, *args)")
    args = args if isinstance(args, tuple) else (args,)
    x = jax.tree.map(_floating, x, is_leaf=lambda u: isinstance(u, list))
    flat, unravel = ravel_pytree(x)
    if jnp.iscomplexobj(flat):
        raise TypeError("x: it has complex numbers; check their real and imaginary parts as variables")
    value = lambda v: fun(unravel(v), *args)
    gradient = jax.grad(value)
    g, comparisons = gradient(flat), [_by_differences("fun", value, gradient, flat)]
    along = np.random.default_rng(0).choice([-1.0, 1.0], flat.size).astype(flat.dtype)
    if jac is not None:
        comparisons.append(_by_hand("jac", "gradient", ravel_pytree(jac(x, *args))[0], g))
    if hess is not None:
        H = jnp.asarray(hess(x, *args)).reshape(flat.size, flat.size)
        comparisons.append(_by_hand("hess", "Hessian", H.ravel(), jax.jacfwd(gradient)(flat).ravel()))
    if hessp is not None:
        product = ravel_pytree(hessp(x, unravel(jnp.asarray(along)), *args))[0]
        comparisons.append(_by_hand("hessp", "product", product, jax.jvp(gradient, (flat,), (along,))[1]))
    for i, part in enumerate((checked(constraints) or NO_CONSTRAINTS).parts):
        comparisons += _of_constraint(f"constraints[{i}]", part, x)
    good, lines, errors = zip(*comparisons)
    names = [line.split()[0] for line in lines]
    return DerivativeCheck(all(good), lines, dict(zip(names, errors)))


def _floating(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)


def _of_constraint(name: str, part: Part, x: PyTree) -> list[tuple[bool, str, float]]:
    """The comparisons of one constraint."""
    leaves, tree = jax.tree.flatten(x)
    variables, of_leaves = Variables(leaves), lambda leaves: jax.tree.unflatten(tree, leaves)
    flat = variables.ravel(leaves)
    rows = lambda v: values(part, of_leaves, variables, variables.unravel(v))
    size = jax.eval_shape(rows, flat).size
    signs = jnp.asarray(np.random.default_rng(2).choice([-1.0, 1.0], size), flat.dtype)
    value = lambda v: signs @ rows(v)
    found = [_by_differences(name, value, jax.grad(value), flat)]
    if part.jac is not None:
        given = with_jacobian(part, of_leaves, variables, leaves)[1]
        found.append(_by_hand(f"{name}.jac", "Jacobian", given.ravel(), jax.jacfwd(rows)(flat).ravel()))
    if part.hess is not None:
        shape = shape_of(part, of_leaves, leaves)
        given = hessian_of_rows([part], [shape], of_leaves, variables, leaves, signs)
        found.append(_by_hand(f"{name}.hess", "Hessian", given.ravel(), jax.hessian(value)(flat).ravel()))
    return found


def _by_differences(
    name: str, value: Callable[[jax.Array], jax.Array], gradient: Callable[[jax.Array], jax.Array], x: jax.Array
) -> tuple[bool, str, float]:
    """Whether the automatic gradient is that of the function, in words, and its error."""
    f, g, eps = float(value(x)), gradient(x), float(jnp.finfo(x.dtype).eps)
    if not (np.isfinite(f) and bool(jnp.all(jnp.isfinite(g)))):
        return False, f"{name} or its gradient is not finite at x: {name} = {f:.6g}, gradient {np.asarray(g)}.", np.inf
    h = eps ** (1 / 3) * jnp.maximum(jnp.abs(x), 1)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (_DIRECTIONS, x.size))
    worst, kinked = 0.0, False
    for sign in signs.astype(x.dtype):
        d = h * sign
        # Differences to either side: they differ by much only where fun has a kink.
        ahead, behind = float(value(x + d)) - f, f - float(value(x - d))
        exact, size = float(g @ d), float(jnp.abs(g) @ jnp.abs(d))
        noise = 10 * eps * abs(f)
        kinked |= abs(ahead - behind) > 0.5 * max(abs(ahead), abs(behind)) + noise
        excess = max(abs((ahead + behind) / 2 - exact) - noise, 0)
        worst = max(worst, excess / max(size, abs(ahead), abs(behind), float(np.finfo(float).tiny)))
    is_zero = not float(jnp.max(jnp.abs(g), initial=0))
    flaw = _flaw(value, x) if is_zero else None
    if is_zero and worst <= _AGREE:
        constant = f"{name} does not change near x, and its gradient is 0: is {name} constant?"
        return True, constant if flaw is None else f"{name} does not change near x: {flaw}", worst
    if worst <= _AGREE:
        return (
            True,
            f"{name} and its automatic gradient agree: the error along {_DIRECTIONS} directions is {worst:.1g}.",
            worst,
        )
    why = flaw or (
        f"{name} has a kink near x"
        if kinked
        else f"{name} is not smooth near x, is noisy, or has a derivative rule that is wrong"
    )
    return False, f"{name} and its automatic gradient differ by {worst:.2g} of its size: {why}.", worst


def _flaw(value: Callable[[jax.Array], jax.Array], x: jax.Array) -> str | None:
    """What is certainly wrong with fun, in words, without the full stop."""
    flaw = dependence.flaw(jax.make_jaxpr(jax.value_and_grad(value))(x).jaxpr, 1, 2, by_ad=True)
    return None if flaw is None else flaw.rstrip(".")


def _by_hand(name: str, what: str, given: jax.Array, exact: jax.Array) -> tuple[bool, str, float]:
    """Whether a derivative by hand is the automatic one, in words, and its error."""
    if given.shape != exact.shape:
        return False, f"{name} has {given.size} numbers where the automatic {what} has {exact.size}.", np.inf
    scale = float(jnp.max(jnp.abs(exact), initial=0)) or 1.0
    off = np.asarray(jnp.abs(given - exact), float) / scale
    error = float(off.max(initial=0))
    if error <= _AGREE:
        return True, f"{name} and the automatic {what} agree: the error is {error:.1g}.", error
    i = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
    return (
        False,
        f"{name} and the automatic {what} differ by {error:.2g} of its size, most in component {i}: "
        f"{float(given[i]):.6g} by hand, {float(exact[i]):.6g} automatic.",
        error,
    )
