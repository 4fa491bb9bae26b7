"""What is seldom needed, and left out of the trips of a batch in which no lane needs it."""

import jax
import jax.numpy as jnp
from jax import lax


def seldom(needed, thorough, usual, *operands):
    """``thorough(*operands)``, which ``usual(*operands)`` equals wherever ``needed`` is false.

    Alone the thorough way is taken always: its few numbers cost less than a branch. Under ``vmap`` a ``lax.cond``
    would be a select, which works out both for every lane; here the batch branches as a whole, and takes the thorough
    way in the trips in which some lane needs it.

    Args:
      needed: [] bool.
      thorough, usual: functions of the operands alone, of one result's structure; all pytrees of arrays.
    """

    @jax.custom_batching.custom_vmap
    def chosen(needed, *operands):
        if needed.ndim == 0:
            return thorough(*operands)
        return lax.cond(jnp.any(needed), thorough, usual, *operands)

    @chosen.def_vmap
    def in_batch(axis_size, split, needed, *operands):
        axes = jax.tree.map(lambda has: 0 if has else None, tuple(split[1:]))
        needed = needed if split[0] else jnp.broadcast_to(needed, (axis_size, *needed.shape))
        ways = [jax.vmap(way, axes, axis_size=axis_size) for way in (thorough, usual)]
        out = seldom(needed, *ways, *operands)
        return out, jax.tree.map(lambda _: True, out)

    return chosen(needed, *operands)
