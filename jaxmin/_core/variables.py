"""The leaves of x0 that vary, and the conversion between these leaves and the vector that a method works on."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.pytree import is_array, is_number
from jaxmin._core.typing import PyTree, Vector


class Variables:
    """The leaves of x that vary, as one flat real vector: its dtype, and the conversion in both directions.

    A complex leaf becomes its real parts, then its imaginary parts. The vector has the widest dtype among the leaves,
    the value of fun, and float32. ``rounded`` rounds a vector to the dtypes of the leaves.
    """

    flat = True

    def __init__(self, leaves: Sequence[Any], wide: Any = jnp.float32) -> None:
        self.shapes = tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
        real = [jnp.finfo(dtype).dtype for _, dtype in self.shapes]
        with jax.numpy_dtype_promotion("standard"):
            self.dtype = jnp.result_type(*real, wide, jnp.float32)
        self._exact = all(dtype == self.dtype for dtype in real)
        self.size = sum(math.prod(shape) * (1 + (dtype.kind == "c")) for shape, dtype in self.shapes)

    def __hash__(self) -> int:
        return hash((type(self), self.shapes, self.dtype))

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and (self.shapes, self.dtype) == (other.shapes, other.dtype)

    def ravel(self, leaves: Sequence[jax.Array]) -> Vector:
        """The leaves, end to end."""
        return self._joined(self._halves(leaves))

    def unravel(self, vector: Vector) -> list[jax.Array]:
        """The leaves back, each in its own shape and dtype."""
        return self._whole(self.parts(vector))

    def rounded(self, vector: Vector) -> Vector:
        """The vector, rounded to the dtypes of the leaves."""
        return vector if self._exact else self.ravel(self.unravel(vector))

    def parts(self, vector: Vector) -> list[jax.Array]:
        """The vector in pieces, each in the shape of its leaf."""
        pieces, start = [], 0
        for shape, dtype in self.shapes:
            for _ in range(1 + (dtype.kind == "c")):
                stop = start + math.prod(shape)
                pieces.append(vector[start:stop].reshape(shape))
                start = stop
        return pieces

    def to_array(self, vector: Vector) -> jax.Array:
        """The vector as one array [n]."""
        return vector

    def from_array(self, array: Any) -> Vector:
        """The vector of an array [n]."""
        return array

    def _joined(self, parts: Iterable[jax.Array]) -> jax.Array:
        parts = [part.reshape(-1) for part in parts]
        return parts[0] if len(parts) == 1 else jnp.concatenate([jnp.zeros(0, self.dtype), *parts])

    def _halves(self, leaves: Iterable[jax.Array]) -> list[jax.Array]:
        """The leaves in the vector's dtype; a complex leaf becomes two, its real and its imaginary part."""
        halves = []
        for leaf in leaves:
            parts = [leaf.real, leaf.imag] if jnp.iscomplexobj(leaf) else [leaf]
            halves += [part.astype(self.dtype) for part in parts]
        return halves

    def _whole(self, halves: Iterable[jax.Array]) -> list[jax.Array]:
        halves = iter(halves)
        leaves = []
        for _, dtype in self.shapes:
            real = jnp.finfo(dtype).dtype
            leaf = next(halves).astype(real)
            leaves.append(jax.lax.complex(leaf, next(halves).astype(real)) if dtype.kind == "c" else leaf)
        return leaves


class ApartVariables(Variables):
    """The leaves of x that vary, as a tuple of real arrays instead of the one vector of :class:`Variables`.

    A leaf that is sharded over several devices so keeps its sharding.
    """

    flat = False

    def ravel(self, leaves: Sequence[jax.Array]) -> Vector:
        """The leaves as real arrays of one dtype."""
        return tuple(self._halves(leaves))

    def parts(self, vector: Vector) -> list[jax.Array]:
        """The arrays of the tuple."""
        return list(vector)

    def to_array(self, vector: Vector) -> jax.Array:
        """The tuple as one array [n]."""
        return self._joined(vector)

    def from_array(self, array: Any) -> Vector:
        """The tuple of an array [n]."""
        return tuple(super().parts(array))


def canonical_x0(x0: PyTree) -> PyTree:
    """x0 with each leaf that varies as an array of a float or complex dtype.

    A list or tuple of plain numbers becomes one array, and so does an object with ``__array__``. Integers become the
    default float dtype. Inside an object of a user's class (a module) they stay: there an integer is a setting.
    """
    if isinstance(x0, range):
        x0 = list(x0)
    if type(x0) in (list, tuple) and all(is_number(number) or isinstance(number, bool) for number in x0):
        return _as_variable(np.asarray(x0, dtype=None if x0 else float))
    if not isinstance(x0, jax.Array) and hasattr(x0, "__array__"):
        x0 = native(np.asarray(x0))
    if is_array(x0):
        if jnp.issubdtype(x0.dtype, jax.dtypes.extended):
            raise TypeError(f"x0={x0!r}: a random key cannot vary; give numbers")
        return _as_variable(x0)

    def in_plain_containers(node: Any) -> Any:
        if _is_node(node):  # an object of a user's class
            return jax.tree.map(lambda leaf: _as_variable(leaf) if is_inexact(leaf) else leaf, node)
        number = is_number(node) or (is_array(node) and not _is_flag(node))
        return _as_variable(node) if number else node

    def is_own_class(node: Any) -> bool:
        return _is_node(node) and not isinstance(node, (dict, list, tuple))

    return jax.tree.map(in_plain_containers, x0, is_leaf=is_own_class)


def _is_node(tree: Any) -> bool:
    return tree is not None and not jax.tree_util.all_leaves([tree])


def _is_flag(leaf: Any) -> bool:
    """Whether it is an array that never varies: of booleans or random keys."""
    return leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def is_inexact(leaf: Any) -> bool:
    """Whether it is a float or complex number, or an array of them."""
    if isinstance(leaf, (float, complex)):
        return True
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _as_variable(leaf: Any) -> jax.Array:
    try:
        array = jnp.asarray(leaf)
    except TypeError as error:
        raise TypeError(f"x0: {leaf!r} is not an array of numbers") from error
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array.astype(jnp.result_type(float))
    # A Python number is weakly typed. A variable has a fixed dtype.
    return jax.lax.convert_element_type(array, array.dtype)


def native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, the only one that JAX supports."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
