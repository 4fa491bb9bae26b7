"""The vector operations that a method needs, on one array or on any pytree of arrays.

Inner products are real. They accumulate in float32 or wider, never in TF32 or bfloat16.
"""

import math
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxmin._core.typing import PyTree, Scalar, Vector

_HIGHEST = lax.Precision.HIGHEST
# A history of at most this many numbers is written by a masked copy. XLA fuses the copy, and it stays a copy under
# vmap. A longer history is written in place: a masked copy would cost a pass over all of it.
_MASKED_WRITE_MAX = 2**14


def scalar_dtype(x: Vector) -> np.dtype:
    """The dtype in which inner products of vectors like ``x`` are accumulated."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    return jnp.finfo(jnp.result_type(*dtypes, jnp.float32)).dtype


def size(x: Vector) -> int:
    """How many numbers a vector holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(x))


def dot(a: Vector, b: Vector) -> Scalar:
    """The real inner product a . b."""
    dtype = scalar_dtype(a)

    def one(u: jax.Array, v: jax.Array) -> Scalar:
        u, v = u.astype(jnp.result_type(u, dtype)), v.astype(jnp.result_type(v, dtype))
        return jnp.real(_contracted(u.conj(), v, u.ndim)).astype(dtype)

    parts = jax.tree.leaves(jax.tree.map(one, a, b))
    return reduce(jnp.add, parts, jnp.zeros((), dtype))


def _contracted(u: jax.Array, v: jax.Array, axes: int) -> jax.Array:
    """The sum of products over the last axes of u and the first of v, without a reshape that would undo a sharding."""
    if not typed_sharding(v):
        return jnp.tensordot(u, v, axes, precision=_HIGHEST)
    # The sum runs over the devices. Axes that are not summed keep their sharding.
    of_u, of_v = jax.typeof(u).sharding, jax.typeof(v).sharding
    spec = PartitionSpec(*of_u.spec[: u.ndim - axes], *of_v.spec[axes:])
    return jnp.tensordot(u, v, axes, precision=_HIGHEST, out_sharding=NamedSharding(of_v.mesh, spec))


def typed_sharding(u: jax.Array) -> bool:
    """Whether an array's type has a mesh with JAX's explicit axes."""
    return jax.sharding.AxisType.Explicit in tuple(jax.typeof(u).sharding.mesh.axis_types)


def max_abs(a: Vector) -> Scalar:
    """The infinity norm; NaN where any element is NaN or infinite."""
    dtype = scalar_dtype(a)
    # On a CPU, XLA's maximum of some thousand numbers ignores NaN (openxla/xla#21461), so infinity stands for NaN.
    parts = [jnp.max(jnp.where(jnp.isfinite(u), jnp.abs(u), jnp.inf), initial=0) for u in jax.tree.leaves(a)]
    largest = reduce(jnp.maximum, [part.astype(dtype) for part in parts], jnp.zeros((), dtype))
    return jnp.where(largest < jnp.inf, largest, jnp.nan)


def norm(a: Vector) -> Scalar:
    """The 2-norm; where its squares overflow or vanish, its upper bound sqrt(n) max|a|."""
    square = dot(a, a)
    usable = (square > 0) & (square < jnp.inf)
    return jnp.where(usable, jnp.sqrt(square), math.sqrt(size(a)) * max_abs(a))


def axpy(t: Any, d: Vector, x: Vector) -> Vector:
    """x + t d, each leaf in the dtype of x."""
    return jax.tree.map(lambda di, xi: (xi + t * di).astype(xi.dtype), d, x)


def scale(t: Any, d: Vector) -> Vector:
    """t d, each leaf in the dtype of d."""
    return jax.tree.map(lambda di: (t * di).astype(di.dtype), d)


def add(a: Vector, b: Vector) -> Vector:
    """a + b."""
    return jax.tree.map(jnp.add, a, b)


def sub(a: Vector, b: Vector) -> Vector:
    """a - b."""
    return jax.tree.map(jnp.subtract, a, b)


def where(condition: Any, a: PyTree, b: PyTree) -> PyTree:
    """a where the scalar condition holds, else b: any two pytrees of one structure."""
    return jax.tree.map(lambda u, v: jnp.where(condition, u, v), a, b)


def zeros(x: Vector) -> Vector:
    """The zero vector like x."""
    return jax.tree.map(jnp.zeros_like, x)


def history(m: int, x: Vector) -> Vector:
    """A history of m zero vectors like x: every leaf gains a leading axis m."""
    return jax.tree.map(lambda u: jnp.broadcast_to(jnp.zeros_like(u), (m, *u.shape)), x)


def write_row(history: Vector, slot: Scalar, row: Vector, when: Scalar) -> Vector:
    """The history with ``row`` in ``slot`` where ``when`` holds, else as it was."""

    def masked(h: jax.Array, r: jax.Array) -> jax.Array:
        hot = jnp.arange(h.shape[0]) == slot
        return jnp.where(hot.reshape(-1, *[1] * r.ndim) & when, r, h)

    def in_place(h: jax.Array, r: jax.Array) -> jax.Array:
        if r.ndim > 1:
            # A product treats rows of several axes as a matrix. XLA would then write the row a second time, into a
            # copy of the whole history. A write in a branch of its own prevents that.
            return lax.cond(when, lambda: lax.dynamic_update_index_in_dim(h, r, slot, 0), lambda: h)
        old = lax.dynamic_index_in_dim(h, slot, keepdims=False)
        return lax.dynamic_update_index_in_dim(h, jnp.where(when, r, old), slot, 0)

    def one(h: jax.Array, r: jax.Array) -> jax.Array:
        return masked(h, r) if h.size <= _MASKED_WRITE_MAX else in_place(h, r)

    return jax.tree.map(one, history, row)


def rows_dot(history: Vector, v: Vector) -> jax.Array:
    """The inner product of each row with v: [m]."""
    dtype = scalar_dtype(v)

    def one(h: jax.Array, u: jax.Array) -> jax.Array:
        wide = jnp.result_type(h, dtype)
        return jnp.real(_contracted(h.astype(wide).conj(), u.astype(wide), u.ndim)).astype(dtype)

    return reduce(jnp.add, jax.tree.leaves(jax.tree.map(one, history, v)))


def rows_sum(coefficients: jax.Array, history: Vector) -> Vector:
    """The sum of the rows, each times its coefficient: a vector."""

    def one(h: jax.Array) -> jax.Array:
        wide = jnp.result_type(h, coefficients)
        return _contracted(coefficients, h.astype(wide), 1).astype(h.dtype)

    return jax.tree.map(one, history)
