"""Make transformations of optimizers that are triples of functions, as in ``jax.example_libraries.optimizers``."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core.pytree import Static, is_array, is_number, partition
from jaxmin._core.typing import PyTree, Triple
from jaxmin.transforms._transformation import Transformation


@functools.partial(jax.tree_util.register_dataclass, data_fields=("i", "arrays"), meta_fields=("rest",))
@dataclasses.dataclass(frozen=True)
class TripleState:
    """The state of a triple: its arrays, and separately everything else (structures, Python numbers)."""

    i: jax.Array  # [] int32: updates made
    arrays: list[jax.Array]
    rest: Static


def is_triple(thing: Any) -> bool:
    """Whether it is (init, update, get_params)."""
    return isinstance(thing, tuple) and len(thing) == 3 and all(map(callable, thing))


def _is_value(leaf: Any) -> bool:
    return is_array(leaf) or is_number(leaf)


@functools.lru_cache(maxsize=256)
def from_triple(triple: Triple) -> Transformation:
    """Make a transformation of a triple (init, update, get_params).

    Args:
      triple: ``init(params) -> state``, ``update(i, grads, state) -> state`` with the iteration index i
        from 0, ``get_params(state) -> params``. ``jax.example_libraries.optimizers`` and its decorator
        ``@optimizer`` make such triples.

    Returns:
      A ``Transformation``. Python numbers in the triple's state stay Python numbers if no update changes them, so that
      a state that contains shapes can be traced.

    Raises:
      TypeError: if triple does not consist of three functions; by ``init``, if update changes the structure of the
        state.

    >>> import jax.numpy as jnp
    >>> from jax.example_libraries import optimizers
    >>> from jaxmin.transforms import from_triple
    >>> tx = from_triple(optimizers.sgd(0.5))
    >>> updates, state = tx.update(jnp.array([2.0, -4.0]), tx.init(jnp.zeros(2)), jnp.zeros(2))
    >>> print(updates)
    [-1.  2.]

    References:
      The module ``jax.example_libraries.optimizers`` of JAX.
    """
    if not is_triple(triple):
        raise TypeError(f"triple={triple!r}: give three functions, (init, update, get_params)")
    triple_init, triple_update, get_params = triple

    def init(params: PyTree) -> TripleState:
        state = triple_init(params)
        for carried in (is_array, _is_value):
            arrays, rest = partition(state, carried)
            start = TripleState(jnp.zeros((), jnp.int32), [jnp.asarray(array) for array in arrays], rest)
            after = jax.eval_shape(lambda start: update(params, start, params)[1], start)
            if jax.tree.structure(after) == jax.tree.structure(start):
                return start
        raise TypeError(
            f"triple={triple!r}: update changes the structure of the state; return one built like that of init"
        )

    def update(grads: PyTree, state: TripleState, params: PyTree = None, **extra: Any) -> tuple[PyTree, TripleState]:
        del extra
        old = state.rest.combine(state.arrays)
        new = triple_update(state.i, grads, old)
        updates = jax.tree.map(jnp.subtract, get_params(new), get_params(old) if params is None else params)
        arrays, rest = partition(new, is_array if any(map(is_number, jax.tree.leaves(old))) else _is_value)
        return updates, TripleState(state.i + 1, arrays, rest)

    return Transformation(init, update)
