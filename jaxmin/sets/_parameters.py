"""The parameters of sets: checked by name, and converted to the dtype of x."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.convex_set import Piece
from jaxmin._core.pytree import any_traced, is_array, is_number
from jaxmin._core.typing import PyTree, Scalar


def check_number(name: str, value: Any, least: float | None = None, strict: bool = False) -> None:
    """Raise unless the value is one real number, finite, and in its range; a traced one may be anywhere."""
    if not _is_real(value) or np.ndim(value) != 0:
        raise TypeError(f"{name}={value!r}: give one real number")
    if any_traced(value):
        return
    number = float(value)
    inside = least is None or (number > least if strict else number >= least)
    if not (math.isfinite(number) and inside):
        wanted = "a finite number" if least is None else f"a finite number {'>' if strict else '>='} {least:g}"
        raise ValueError(f"{name}={value!r}: give {wanted}")


def check_array(name: str, value: Any, ndim: int) -> None:
    """Raise unless the value is a real array with so many axes; without NaN or infinity, unless it is traced."""
    if not _is_real(value) or np.ndim(value) != ndim:
        raise TypeError(f"{name}: an array of real numbers with {ndim} axes, not {_said(value)}")
    check_finite(name, value)


def check_finite(name: str, tree: PyTree) -> None:
    """Raise for NaN or infinity in an array that is not traced."""
    for leaf in jax.tree.leaves(tree):
        if not any_traced(leaf) and not np.all(np.isfinite(np.asarray(leaf))):
            raise ValueError(f"{name}: it holds NaN or an infinite number")


def is_real_tree(tree: PyTree) -> bool:
    """Whether all leaves are real numbers or arrays of them, and there is one at least."""
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(map(_is_real, leaves))


def as_array(value: Any) -> Any:
    """A list of numbers as an array; anything else as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    return jnp.asarray(value) if any_traced(value) else np.asarray(value)


def scalar(value: Any, piece: Piece) -> Scalar:
    """A number in the dtype of x, []."""
    return jnp.asarray(value, piece.dtype)


def unless(wrong: Any, value: jax.Array) -> jax.Array:
    """The value, NaN where it is wrong; its derivatives are NaN too, in reverse mode as well."""
    return value + jnp.where(wrong, jnp.nan, 0).astype(value.dtype)


def vector(name: str, value: PyTree, piece: Piece) -> jax.Array:
    """A vector of coefficients, [n]: given as an array of n numbers, or built like x.

    Raises:
      ValueError: if it does not fit x.
    """
    if is_array(value) and np.size(value) == piece.size and (np.ndim(value) == 1 or _same_shapes(value, piece)):
        return jnp.asarray(value, piece.dtype).reshape(-1)
    if jax.tree.structure(value) == jax.tree.structure(piece.like) and _same_shapes(value, piece):
        return piece.variables.ravel([jnp.asarray(leaf) for leaf in jax.tree.leaves(value)])
    raise ValueError(
        f"bounds: {name} is {_said(value)}, for {piece.size} variables; give an array of shape ({piece.size},), or "
        "coefficients built like x0"
    )


def _same_shapes(value: PyTree, piece: Piece) -> bool:
    return [np.shape(leaf) for leaf in jax.tree.leaves(value)] == [shape for shape, _ in piece.variables.shapes]


def _is_real(value: Any) -> bool:
    if is_number(value):
        return not isinstance(value, complex)
    return is_array(value) and np.dtype(value.dtype).kind not in "bcV"


def _said(value: Any) -> str:
    """An argument in an error message."""
    return f"an array of shape {np.shape(value)}" if is_array(value) else repr(value)
