"""Take a pytree apart into arrays and other leaves, and put it together again."""

import itertools
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import PyTreeDef

from jaxmin._core.typing import PyTree


def is_array(leaf: Any) -> bool:
    """Whether it is a JAX or NumPy array of numbers, or the shape of one."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind in "biufcV"
    return isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct))


def is_number(leaf: Any) -> bool:
    """Whether it is a Python number; a bool does not count."""
    return isinstance(leaf, numbers.Number) and not isinstance(leaf, (bool, np.bool_))


def is_count(leaf: Any) -> bool:
    """Whether it is an integer, Python's or NumPy's; a bool does not count."""
    return isinstance(leaf, (int, np.integer)) and not isinstance(leaf, bool)


def any_traced(tree: PyTree) -> bool:
    """Whether a leaf of it is a tracer."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


class Static:
    """A pytree without some groups of leaves: its structure and its other leaves; hashable.

    Two are equal if their structures and their leaves are equal. A leaf that cannot be hashed or compared equals only
    itself.
    """

    __slots__ = ("_groups", "_leaves", "treedef")

    def __init__(self, treedef: PyTreeDef, leaves: Iterable[Any], groups: Iterable[int | None]) -> None:
        self.treedef = treedef
        self._leaves = tuple(map(_Leaf, leaves))
        self._groups = tuple(groups)  # the group of each leaf; None for a static leaf

    def combine(self, *groups: Iterable[Any]) -> PyTree:
        """The pytree again, with the leaves of each group in their places."""
        given, rest = [iter(group) for group in groups], iter(self._leaves)
        leaves = [next(rest).value if group is None else next(given[group]) for group in self._groups]
        return jax.tree.unflatten(self.treedef, leaves)

    def bare(self) -> "Static":
        """The structure, with None for each leaf that is not an array."""
        return Static(self.treedef, [], self._groups)

    def skeleton(self) -> tuple[PyTreeDef, tuple[int | None, ...]]:
        """The structure and the group of each leaf, without the leaves themselves."""
        return self.treedef, self._groups

    def is_plain(self) -> bool:
        """Whether the structure has only tuples, lists and dictionaries."""
        return _is_plain(self.treedef)

    def leaves(self) -> list[Any]:
        """The leaves that are not arrays."""
        return [leaf.value for leaf in self._leaves]

    def only(self, leaves: Iterable[Any]) -> PyTree:
        """The pytree with the leaves of the first group in their places, and None elsewhere."""
        leaves = iter(leaves)
        return jax.tree.unflatten(self.treedef, [next(leaves) if group == 0 else None for group in self._groups])

    def pick(self, tree: PyTree) -> list[Any]:
        """The subtrees, in a tree of this structure, at the places of the first group."""
        subtrees = self.treedef.flatten_up_to(tree)
        return [subtree for subtree, group in zip(subtrees, self._groups) if group == 0]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled as a tree: some classes keep a sentinel in their structure and compare it by identity. A copied
        # treedef would hold another sentinel.
        zeros = [itertools.repeat(0)] * len(self._groups)
        return _restored, (self.combine(*zeros), self._groups)

    def _key(self) -> tuple[Any, ...]:
        return self._groups, self._leaves

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or self._key() != other._key():
            return False
        try:
            return bool(self.treedef == other.treedef)
        except (TypeError, ValueError):  # static fields that do not compare
            return self.treedef is other.treedef


def _restored(tree: PyTree, groups: Sequence[int | None]) -> Static:
    leaves, treedef = jax.tree.flatten(tree)
    return Static(treedef, [leaf for leaf, group in zip(leaves, groups) if group is None], groups)


def _is_plain(treedef: PyTreeDef) -> bool:
    kind = treedef.node_data()
    return kind is None or (kind[0] in (tuple, list, dict, type(None)) and all(map(_is_plain, treedef.children())))


class _Leaf:
    """A leaf that is not an array, as part of a key: equal if type and value are equal."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)

    def __eq__(self, other: Any) -> bool:
        if self.value is other.value:
            return True
        try:
            hash(self.value)
            return type(self.value) is type(other.value) and bool(self.value == other.value)
        except (TypeError, ValueError):
            return False


def partition(tree: PyTree, *predicates: Callable[[Any], bool]) -> Any:
    """Take a pytree apart: a list of leaves for each predicate (the first that holds counts), and the rest.

    Returns ``(*lists, static)`` with ``static.combine(*lists)`` equal to the tree.
    """
    leaves, treedef = jax.tree.flatten(tree)
    groups = [next((i for i, holds in enumerate(predicates) if holds(leaf)), None) for leaf in leaves]
    lists = [[leaf for leaf, group in zip(leaves, groups) if group == i] for i in range(len(predicates))]
    rest = [leaf for leaf, group in zip(leaves, groups) if group is None]
    return *lists, Static(treedef, rest, groups)


def check_tree(name: str, tree: PyTree, params: PyTree) -> None:
    """Raise unless a tree is built like params. Do nothing if params is None."""
    found, wanted = jax.tree.structure(tree), jax.tree.structure(params)
    if params is not None and found != wanted:
        raise TypeError(f"{name}: it must be built like params: {wanted}, not {found}")
