"""The vector operations that a method needs, on one array or on any pytree of arrays.

Inner products are real. They accumulate in float32 or wider, never in TF32 or bfloat16.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jaxmin._core.batch_cond import unless_batched
from jaxmin._core.promotion import standard
from jaxmin._core.typing import PyTree, Scalar, Vector

Pairs: TypeAlias = Sequence[tuple[Vector, Vector]]
_HIGHEST = lax.Precision.HIGHEST
# A history of at most this many numbers is written by a masked copy. XLA fuses the copy, and it stays a copy under
# vmap. A longer history is written in place: a masked copy would cost a pass over all of it.
_MASKED_WRITE_MAX = 2**14
# From this length on a sum has four partial sums: an addition waits for the one before it.
_LONG, _PARTIAL_SUMS = 32, 4
# From this length on it has parts, too, on which several threads can work.
_VERY_LONG, _PARTS = 2**16, 16


def is_small(size: Any, most: int) -> bool:
    """Whether an array has at most so many entries; a symbolic size, as of ``jax.export``, may be any."""
    return isinstance(size, int) and size <= most


@standard
def scalar_dtype(x: Vector) -> np.dtype:
    """The dtype in which inner products of vectors like ``x`` are accumulated."""
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
    return jnp.finfo(jnp.result_type(*dtypes, jnp.float32)).dtype


def size(x: Vector) -> int:
    """How many numbers a vector holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(x))


def dot(a: Vector, b: Vector) -> Scalar:
    """The real inner product a . b; linear in each, so that it has derivatives of every kind."""
    dtype = scalar_dtype(a)

    def one(u: jax.Array, v: jax.Array) -> Scalar:
        u, v = u.astype(jnp.result_type(u, dtype)), v.astype(jnp.result_type(v, dtype))
        return jnp.real(_contracted(u.conj(), v, u.ndim)).astype(dtype)

    parts = jax.tree.leaves(jax.tree.map(one, a, b))
    return functools.reduce(jnp.add, parts, jnp.zeros((), dtype))


def measure(
    *pairs: tuple[Vector, Vector], norms: Sequence[Vector] = (), largest: Sequence[Vector] = ()
) -> list[Scalar]:
    """The inner product of each pair, the 2-norm of each of ``norms``, the infinity norm of each of ``largest``.

    On a CPU flat vectors of one length are read in one pass, by one kernel: faster than :func:`dot`. Its derivatives
    are exact, but a function of it that is linear cannot be transposed.
    """
    distinct = {id(u): u for u in (*norms, *largest)}
    products, maxima = _products_and_maxima([*pairs, *((u, u) for u in norms)], list(distinct.values()))
    known = dict(zip(distinct, maxima, strict=True))
    lengths = [_norm(square, known[id(u)], size(u)) for square, u in zip(products[len(pairs) :], norms, strict=True)]
    return products[: len(pairs)] + lengths + [known[id(u)] for u in largest]


def _products_and_maxima(pairs: Pairs, largest: Sequence[Vector]) -> tuple[list[Scalar], list[Scalar]]:
    vectors = [*(u for pair in pairs for u in pair), *largest]
    flat = all(_is_flat(u) and u.shape == vectors[0].shape for u in vectors)
    return (_at_once if flat and jax.default_backend() == "cpu" else _apart)(pairs, largest)


def _is_flat(u: Vector) -> bool:
    return (
        isinstance(u, jax.Array)
        and u.ndim == 1
        and isinstance(u.size, int)
        and not jnp.iscomplexobj(u)
        and not typed_sharding(u)
    )


def _apart(pairs: Pairs, largest: Sequence[Vector]) -> tuple[list[Scalar], list[Scalar]]:
    return [dot(*pair) for pair in pairs], [_max_abs(u) for u in largest]


def _in_one_pass(pairs: Pairs, largest: Sequence[jax.Array]) -> tuple[list[Scalar], list[Scalar]]:
    wide = [(u.astype(scalar_dtype(u)), v.astype(scalar_dtype(u))) for u, v in pairs]
    sums = [u * v for u, v in wide]
    # On a CPU, XLA's maximum of some thousand numbers ignores NaN (openxla/xla#21461), so infinity stands for NaN.
    maxima = [jnp.where(jnp.isfinite(u), jnp.abs(u), jnp.inf).astype(scalar_dtype(u)) for u in largest]
    totals = _reduced(sums + maxima, [lax.add] * len(sums) + [lax.max] * len(maxima))
    return totals[: len(sums)], [jnp.where(u < jnp.inf, u, jnp.nan) for u in totals[len(sums) :]]


# In a batch each kernel has the work of many lanes, so that it does not pay to join them.
_at_once = unless_batched(_in_one_pass, _apart)


@functools.cache
def _joined(joins: tuple[Callable[..., Scalar], ...]) -> Callable[..., list[Scalar]]:
    """The function that joins several pairs of numbers; always the same object, so that programs compare."""
    return lambda u, v: [join(a, b) for join, a, b in zip(joins, u, v, strict=True)]


def _reduced(terms: Sequence[jax.Array], joins: Sequence[Callable[..., Scalar]]) -> list[Scalar]:
    """Each of the vectors reduced by its function, from 0 on: one kernel."""
    n = terms[0].size
    columns = _PARTIAL_SUMS if n >= _LONG else 1
    rows = n // columns
    parts = math.gcd(rows, _PARTS) if n >= _VERY_LONG else 1
    # Element i belongs to column i % columns, so that all columns of a row lie side by side in memory.
    split = [u[: rows * columns].reshape(parts, -1, columns)[:, :, k] for u in terms for k in range(columns)]
    of_column = [join for join in joins for _ in range(columns)]
    zeros = [jnp.zeros((), u.dtype) for u in split]
    found = lax.reduce(split, zeros, _joined(tuple(of_column)), (1,))
    totals = []
    for k, (term, join) in enumerate(zip(terms, joins, strict=True)):
        total = functools.reduce(join, found[k * columns : (k + 1) * columns])
        total = total[0] if parts == 1 else lax.reduce(total, jnp.zeros((), total.dtype), join, (0,))
        totals.append(functools.reduce(join, [term[i] for i in range(rows * columns, n)], total))
    return totals


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
    return measure(largest=(a,))[0]


def _max_abs(a: Vector) -> Scalar:
    dtype = scalar_dtype(a)
    # On a CPU, XLA's maximum of some thousand numbers ignores NaN (openxla/xla#21461), so infinity stands for NaN.
    parts = [jnp.max(jnp.where(jnp.isfinite(u), jnp.abs(u), jnp.inf), initial=0) for u in jax.tree.leaves(a)]
    largest = functools.reduce(jnp.maximum, [part.astype(dtype) for part in parts], jnp.zeros((), dtype))
    return jnp.where(largest < jnp.inf, largest, jnp.nan)


def norm(a: Vector) -> Scalar:
    """The 2-norm; where its squares overflow or vanish, its upper bound sqrt(n) max|a|."""
    return measure(norms=(a,))[0]


def _norm(square: Scalar, largest: Scalar, n: int) -> Scalar:
    """:func:`norm` of a vector of n numbers, from its square and its infinity norm."""
    usable = (square > 0) & (square < jnp.inf)
    root = math.sqrt(n) if isinstance(n, int) else jnp.sqrt(jnp.asarray(n, largest.dtype))  # it may be symbolic
    return jnp.where(usable, jnp.sqrt(square), root * largest)


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


def times(w: Vector, u: Vector) -> Vector:
    """Each number of u times that of w, in the dtype of u."""
    return jax.tree.map(lambda wi, ui: (wi * ui).astype(ui.dtype), w, u)


def over(u: Vector, w: Vector) -> Vector:
    """Each number of u over that of w, in the dtype of u."""
    return jax.tree.map(lambda ui, wi: (ui / wi).astype(ui.dtype), u, w)


def where(condition: Any, a: PyTree, b: PyTree) -> PyTree:
    """a where the scalar condition holds, else b: any two pytrees of one structure."""
    return jax.tree.map(lambda u, v: jnp.where(condition, u, v), a, b)


def zeros(x: Vector) -> Vector:
    """The zero vector like x."""
    return jax.tree.map(jnp.zeros_like, x)


def probe(x: Vector) -> Vector:
    """A vector like x of length 1, always the same, that has a part in every direction that matters."""
    v = jax.tree.map(
        lambda u: jnp.cos(jnp.arange(u.size, dtype=scalar_dtype(u)) ** 2).reshape(u.shape).astype(u.dtype), x
    )
    return scale(1 / norm(v), v)


def history(m: int, x: Vector) -> Vector:
    """A history of m zero vectors like x: every leaf gains a leading axis m."""
    return jax.tree.map(lambda u: jnp.broadcast_to(jnp.zeros_like(u), (m, *u.shape)), x)


def write_row(history: Vector, slot: Scalar, row: Vector, when: Scalar) -> Vector:
    """The history with ``row`` in ``slot`` where ``when`` holds, else as it was."""

    def masked(h: jax.Array, r: jax.Array) -> jax.Array:
        hot = jnp.arange(h.shape[0]) == slot
        return jnp.where(hot.reshape(-1, *[1] * r.ndim) & when, r, h)

    def one(h: jax.Array, r: jax.Array) -> jax.Array:
        return masked(h, r) if is_small(h.size, _MASKED_WRITE_MAX) else _write_in_place(h, slot, r, when)

    return jax.tree.map(one, history, row)


def _write_in_branch(h: jax.Array, slot: Scalar, r: jax.Array, when: Scalar) -> jax.Array:
    # In a branch of its own XLA writes the row once: elsewhere it would read it and write it again.
    return lax.cond(when, lambda: lax.dynamic_update_index_in_dim(h, r, slot, 0), lambda: h)


def _write_or_keep(h: jax.Array, slot: Scalar, r: jax.Array, when: Scalar) -> jax.Array:
    # In a batch a branch would be a select of whole histories.
    old = lax.dynamic_index_in_dim(h, slot, keepdims=False)
    return lax.dynamic_update_index_in_dim(h, jnp.where(when, r, old), slot, 0)


_write_in_place = unless_batched(_write_in_branch, _write_or_keep)


def rows_dot(history: Vector, v: Vector) -> jax.Array:
    """The inner product of each row with v: [m]."""
    dtype = scalar_dtype(v)

    def one(h: jax.Array, u: jax.Array) -> jax.Array:
        wide = jnp.result_type(h, dtype)
        return jnp.real(_contracted(h.astype(wide).conj(), u.astype(wide), u.ndim)).astype(dtype)

    return functools.reduce(jnp.add, jax.tree.leaves(jax.tree.map(one, history, v)))


def rows_sum(coefficients: jax.Array, history: Vector) -> Vector:
    """The sum of the rows, each times its coefficient: a vector."""

    def one(h: jax.Array) -> jax.Array:
        wide = jnp.result_type(h, coefficients)
        return _contracted(coefficients, h.astype(wide), 1).astype(h.dtype)

    return jax.tree.map(one, history)
