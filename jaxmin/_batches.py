"""The solve under ``vmap``: a loop of its own for a batch, in blocks that a processor's cache holds."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._result import RUNNING

# What the lanes of a block carry, in bytes: a larger block waits for memory, a smaller one pays more for each kernel.
_BLOCK = 2**20


def in_batches(solve, parts):
    """``solve``, whose batches under ``vmap`` are solved another way.

    JAX's own way selects all that a lane carries at every trip. Here the loop is one of lanes, which keep no more
    than their results. On a CPU it goes through the batch block by block. Then fewer lanes wait for the slowest of
    theirs as well. Where there are several devices, which may share a batch, it stays one.

    Args:
      solve: (x0, inputs, limits) -> ``Solution``.
      parts: the ``Parts`` of it.
    """

    def on_lanes(axes, arguments):
        x0, inputs, limits = arguments
        over_x0, over_inputs, over_limits = axes
        size = _size(axes, arguments)
        begin = lambda x0, inputs: strongly_typed(parts.begin(x0, inputs))
        carry = jax.vmap(begin, (over_x0, over_inputs), axis_size=size)(x0, inputs)
        step = jax.vmap(parts.trip, (0, over_inputs, over_limits))
        running = lambda carry: jnp.any(carry.status == RUNNING)
        return jax.vmap(parts.end)(lax.while_loop(running, lambda carry: step(carry, inputs, limits), carry))

    @jax.custom_batching.custom_vmap
    def alone(*arguments):
        return solve(*arguments)

    @alone.def_vmap
    def batch(size, in_batched, *arguments):
        axes = _axes(in_batched)
        own = [leaf[0] for leaf, has in zip(*map(jax.tree.leaves, (arguments, in_batched))) if has]
        x0, inputs, _ = jax.tree.map(lambda leaf, has: leaf[0] if has else leaf, arguments, tuple(in_batched))
        each = _bytes(jax.eval_shape(parts.begin, x0, inputs)) + _bytes(own)
        return _batched(_in_blocks(lambda *block: on_lanes(axes, block), axes, size, each)(*arguments))

    return alone


def strongly_typed(carry):
    """The carry as it is after a trip: no Python number in it leaves its type to others."""
    return jax.tree.map(lambda u: lax.convert_element_type(u, u.dtype), carry)


def _in_blocks(solve, axes, size, each):
    """``solve``, of a batch of this size, called with a part of it at a time; a member carries so many bytes."""
    lanes = max(1, _BLOCK // each)
    blocks = math.ceil(size / lanes)
    if blocks == 1 or jax.default_backend() != "cpu" or jax.device_count() > 1:
        lanes, blocks = size, 1
    lanes = math.ceil(size / blocks)

    @jax.custom_batching.custom_vmap
    def batch(*arguments):
        if blocks == 1:
            return solve(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        split = [axis is not None for axis in jax.tree.leaves(axes, is_leaf=lambda axis: axis is None)]

        def block(rows):
            rows = iter(rows)
            return solve(*jax.tree.unflatten(tree, [next(rows) if has else leaf for leaf, has in zip(leaves, split)]))

        out = lax.map(block, [_folded(leaf, blocks, lanes) for leaf, has in zip(leaves, split) if has])
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], out)

    @batch.def_vmap
    def batches(outer, in_batched, *arguments):
        axes = _axes(in_batched)
        return _batched(_in_blocks(jax.vmap(batch, axes), axes, outer, size * each)(*arguments))

    return batch


def _axes(in_batched):
    return jax.tree.map(lambda has: 0 if has else None, tuple(in_batched))


def _batched(out):
    return out, jax.tree.map(lambda _: True, out)


def _size(axes, arguments):
    leaves = zip(jax.tree.leaves(axes, is_leaf=lambda axis: axis is None), jax.tree.leaves(arguments))
    return next(leaf.shape[0] for axis, leaf in leaves if axis is not None)


def _folded(leaf, blocks, lanes):
    """[blocks, lanes, ...]; what is missing is the last row again."""
    missing = jnp.broadcast_to(leaf[-1:], (blocks * lanes - leaf.shape[0], *leaf.shape[1:]))
    return jnp.concatenate([leaf, missing]).reshape(blocks, lanes, *leaf.shape[1:])


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
