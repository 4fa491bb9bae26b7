"""A loop whose numbers travel together: its floats as one array, its integers as another."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmin._core import vector as vec
from jaxmin._core.typing import Scalar

C = TypeVar("C")
# Vectors of at most this many numbers travel as the rows of one array.
_SHORT = 64
# XLA runs a loop without any array of more bytes than this as a plain sequence of kernels, which is faster.
_SMALL = 512


class Group(NamedTuple):
    """Leaves of one shape that travel as the rows of one array."""

    members: list[int]  # which leaves of the carry
    dtype: Any  # of the array


Packed = tuple[list[jax.Array], list[jax.Array]]  # leaves that travel as they are, groups


class Packing(NamedTuple):
    """How a carry is packed."""

    tree: Any
    leaves: list[Any]  # of the carry, or their shapes and dtypes
    groups: list[Group]

    @classmethod
    def of(cls, carry: Any, grouped: bool = True) -> "Packing":
        """The packing of carries of this form; without groups all leaves travel as they are."""
        leaves, tree = jax.tree.flatten(carry)
        return cls(tree, leaves, _groups(leaves) if grouped else [])

    @property
    def _alone(self) -> list[int]:
        return sorted({*range(len(self.leaves))} - {i for group in self.groups for i in group.members})

    def pack(self, carry: Any) -> Packed:
        new = jax.tree.leaves(carry)
        rows = [[new[i].astype(group.dtype) for i in group.members] for group in self.groups]
        return [new[i] for i in self._alone], list(map(_stacked, rows))

    def unpack(self, packed: Packed) -> Any:
        found = dict(zip(self._alone, packed[0]))
        for group, rows in zip(self.groups, packed[1]):
            found |= {i: lax.index_in_dim(rows, k, keepdims=False) for k, i in enumerate(group.members)}
        return self.tree.unflatten(found[i].astype(leaf.dtype) for i, leaf in enumerate(self.leaves))


def while_loop(goes_on: Callable[[C], Scalar], step: Callable[[C], C], carry: C) -> C:
    """``lax.while_loop(goes_on, step, carry)`` with fewer kernels on a CPU; not for a batch.

    XLA makes one kernel of each number that a loop carries, and copies each number once a step. Each kernel computes
    again all that its number depends on. The numbers of one array share a kernel, which computes this once. So do short
    vectors. Under ``vmap`` the work would grow as the square of the number of leaves.

    Args:
      goes_on: [] bool, from the carry.
      step: the next carry, from the carry.
      carry: a pytree of arrays. Floats travel in the widest of their dtypes, bools as int32; long vectors and arrays of
        other dtypes travel as they are.
    """
    form = Packing.of(carry)
    return form.unpack(while_loop_of_packed(form, goes_on, step, form.pack(carry)))


def while_loop_of_packed(
    form: Packing, goes_on: Callable[[C], Scalar], step: Callable[[C], C], packed: Packed
) -> Packed:
    """The same loop, from and to the packed carry."""
    return lax.while_loop(lambda p: goes_on(form.unpack(p)), lambda p: form.pack(step(form.unpack(p))), packed)


def _groups(leaves: Sequence[jax.Array]) -> list[Group]:
    """The groups of two leaves or more."""
    found: dict[Any, list[int]] = {}
    all_small = all(vec.is_small(leaf.size * leaf.dtype.itemsize, _SMALL) for leaf in leaves)
    for i, leaf in enumerate(leaves):
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        if leaf.ndim == 0 and (is_float or leaf.dtype in (jnp.bool_, jnp.int32)):
            found.setdefault(float if is_float else int, []).append(i)
        elif leaf.ndim == 1 and is_float and vec.is_small(leaf.size, _SHORT) and not vec.typed_sharding(leaf):
            found.setdefault((leaf.dtype, leaf.size), []).append(i)
    groups = []
    for kind, members in found.items():
        dtype = jnp.int32 if kind is int else jnp.result_type(*(leaves[i].dtype for i in members))
        row = leaves[members[0]].size * jnp.dtype(dtype).itemsize
        most = max(1, _SMALL // max(row, 1)) if all_small else len(members)
        parts = (members[k : k + most] for k in range(0, len(members), most))
        groups += [Group(part, dtype) for part in parts if len(part) > 1]
    return groups


def _stacked(rows: Sequence[jax.Array]) -> jax.Array:
    """The rows as one array.

    A chain of selects becomes one kernel. A concatenation would not: XLA does not fuse it with the rows. The masks are
    constants, since XLA would make a kernel of each mask that it computes.
    """
    shape = (len(rows), *rows[0].shape)
    out = jnp.broadcast_to(rows[0], shape)
    for k, row in enumerate(rows[1:], 1):
        here = (np.arange(len(rows)) == k).reshape(-1, *[1] * row.ndim)
        out = jnp.where(np.broadcast_to(here, shape), row, out)
    return out
