"""Residuals: what fun returns to a method for least squares, their Jacobian, and sums of their squares."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.loss import Loss, scaled
from jaxmin._core.pytree import is_number
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables

# Up to so many columns of a Jacobian are computed one by one: XLA runs them in about half the time on a CPU, since they
# have no common axis to index, but compiles each of them.
_FEW = 16


def as_vector(out: PyTree) -> jax.Array:
    """The residuals [m], from the output of fun; a complex number counts as two.

    Raises:
      TypeError: for something that is no pytree of numbers.
    """
    parts = []
    for leaf in jax.tree.leaves(out):
        if not (is_number(leaf) or hasattr(leaf, "dtype")) or leaf is True or leaf is False:
            raise TypeError(f"fun: residuals are numbers, arrays, or a pytree of these, and it returns {leaf!r}")
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.number):
            raise TypeError(f"fun: residuals are numbers, and it returns an array of {array.dtype}")
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            array = array.astype(float)
        parts += [array.real, array.imag] if jnp.iscomplexobj(array) else [array]
    if sum(part.size for part in parts) == 0:
        raise ValueError("fun: it returns no residuals; a fit needs at least one")
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*parts, jnp.float32)
    return jnp.concatenate([part.reshape(-1).astype(dtype) for part in parts])


def jacobian(residuals: Callable[[Any], jax.Array], leaves: Any) -> jax.Array:
    """The Jacobian [m, n] at the leaves of x, by rows or by columns, whichever are fewer."""
    variables = Variables(leaves)
    r = jax.eval_shape(residuals, leaves)
    if r.size < variables.size:
        _, pull = jax.vjp(residuals, leaves)
        row = lambda v: variables.ravel([g.conj() for g in pull(v)[0]])
        return jax.vmap(row)(jnp.eye(r.size, dtype=r.dtype))
    _, push = jax.linearize(residuals, leaves)
    column = lambda v: push(variables.unravel(v))
    each = np.eye(variables.size, dtype=variables.dtype)
    if 0 < variables.size <= _FEW:
        return jnp.stack([column(v) for v in each], axis=-1)
    return jax.vmap(column, out_axes=-1)(each)


def by_hand(given: PyTree, r: jax.ShapeDtypeStruct, leaves: Any) -> jax.Array:
    """The user's Jacobian as a matrix [m, n], for real residuals and a real x.

    Raises:
      ValueError: if it is not what ``jax.jacobian(fun)`` returns.
    """
    blocks = jax.tree.leaves(given)
    sizes = [int(np.prod(np.shape(leaf))) for leaf in leaves]
    try:
        per_row = [blocks[i : i + len(sizes)] for i in range(0, len(blocks), len(sizes))]
        rows = [[jnp.asarray(b).reshape(-1, size) for b, size in zip(row, sizes, strict=True)] for row in per_row]
        J = jnp.concatenate([jnp.concatenate(row, axis=1) for row in rows])
    except (ValueError, TypeError) as error:
        raise ValueError(_shape(blocks, r, leaves)) from error
    if J.shape != (r.size, sum(sizes)) or jnp.iscomplexobj(J):
        raise ValueError(_shape(blocks, r, leaves))
    return J.astype(r.dtype)


def _shape(blocks: Any, r: jax.ShapeDtypeStruct, leaves: Any) -> str:
    return (
        f"jac: a Jacobian of shapes {[np.shape(b) for b in blocks]} for {r.size} residuals and parts of x0 of shapes "
        f"{[np.shape(leaf) for leaf in leaves]}; return what jax.jacobian(fun) does, or omit it"
    )


def sum_of_squares(
    residuals: Callable[..., PyTree], loss: str | Callable[[jax.Array], jax.Array] = "linear", scale: Any = 1.0
) -> Callable[..., jax.Array]:
    r"""Half the sum of squares of residuals as an objective, for any method.

    Args:
      residuals: ``residuals(x, *args)``, which returns a number, an array, or any pytree of arrays; a complex number
        counts as two.
      loss: "linear" (default), "soft_l1", "huber", "cauchy" or "arctan", as in SciPy's ``least_squares``, or a function
        rho of z, element by element, with rho(0) = 0 and rho'(0) = 1.
      scale: C, in units of the residuals, > 0; 1 by default. It may be traced.

    Returns:
      ``fun(x, *args)``: :math:`\frac{C^2}{2} \sum_i \rho((r_i / C)^2)`, a number.

    Raises:
      ValueError: for an unknown loss, or a scale that is not > 0.
      TypeError: if residuals is not callable.

    >>> import jax.numpy as jnp, jaxmin
    >>> y = jnp.array([1.0, 1.1, 0.9, 8.0])  # one outlier
    >>> fun = jaxmin.sum_of_squares(lambda mean: y - mean, loss="soft_l1", scale=0.1)
    >>> round(float(jaxmin.minimize(fun, 0.0).x), 2)
    1.06

    References:
      B. Triggs et al., Bundle adjustment - a modern synthesis, LNCS 1883, 2000, 298-372, Section 4.3.
    """
    if not callable(residuals):
        raise TypeError(f"residuals={residuals!r}: give a callable, residuals(x, *args)")
    return functools.partial(_of_residuals, residuals, scaled(loss, "scale", scale))


def _of_residuals(residuals: Callable[..., PyTree], loss: Loss, x: PyTree, *args: Any) -> jax.Array:
    return loss.of(as_vector(residuals(x, *args)))
