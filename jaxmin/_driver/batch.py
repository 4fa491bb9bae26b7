"""The solve under ``vmap``: a loop of its own for a batch, in blocks that a processor's cache holds."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.promotion import standard
from jaxmin._core.status import Status

# What the lanes of a block carry, in bytes: a larger block waits for memory. A smaller one pays more for each kernel,
# so that blocks of few lanes are larger, up to what the second level of a cache holds.
_BLOCK, _BLOCK_MAX, _FEW_LANES = 2**18, 2**20, 96
# Do not block when fewer than this many lanes fit in the cache: one large product over shared data is then faster.
_LEAST_LANES = 4


def in_batches(solve, parts):
    """``solve``, whose batches under ``vmap`` are solved another way.

    JAX's own rule selects all that a lane carries at every step. Here each lane selects only its result. On a CPU the
    loop goes through the batch block by block, so that fewer lanes wait for the slowest lane of their block. With
    several devices, which may share a batch, there is one block.

    Args:
      solve: (x0, inputs, limits) -> ``Solution``.
      parts: the ``Parts`` of it.
    """

    @jax.custom_batching.custom_vmap
    def alone(*arguments):
        return solve(*arguments)

    @alone.def_vmap
    @standard
    def batch(size, split, *arguments):
        if size == 0:
            return _all_batched(jax.vmap(solve, _axes(split), axis_size=0)(*arguments))
        over_x0, over_inputs, over_limits = _axes(split)

        def on_lanes(x0, inputs, limits):
            lanes = _rows(split, (x0, inputs, limits))
            begin = lambda x0, inputs: strongly_typed(parts.begin(x0, inputs))
            carry = jax.vmap(begin, (over_x0, over_inputs), axis_size=lanes)(x0, inputs)
            running = lambda carry: jnp.any(carry.status == Status.RUNNING)

            def through(carry, phase):
                enter, step = (jax.vmap(part, (0, over_inputs, over_limits)) for part in phase)
                one = lambda carry: step(carry, inputs, limits)
                return lax.while_loop(running, one, enter(carry, inputs, limits))

            return jax.vmap(parts.end)(functools.reduce(through, parts.phases, carry))

        of_one = lambda leaf, has: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) if has else leaf
        one = jax.tree.map(of_one, arguments, tuple(split))
        own = [leaf for leaf, has in zip(*map(jax.tree.leaves, (one, split))) if has]
        each = size_in_bytes((jax.eval_shape(parts.begin, *one[:2]), own)) + parts.evaluated
        return _all_batched(_in_blocks(on_lanes, split, size, each, _may_be_cut(each))(*arguments))

    return alone


def strongly_typed(carry):
    """The carry as it is after a step: no leaf is weakly typed."""
    return jax.tree.map(lambda u: lax.convert_element_type(u, u.dtype), carry)


def _may_be_cut(each):
    """Whether a batch is solved in blocks: on a CPU alone, and where no device has a part of the batch."""
    return each * _LEAST_LANES <= _BLOCK_MAX and jax.default_backend() == "cpu" and jax.device_count() == 1


def _in_blocks(solve, split, size, each, cut):
    """``solve``, of a batch of this size, given a part of it at a time.

    Args:
      solve: a function of arguments in which some leaves have rows.
      split: of each leaf, whether it has.
      size: how many rows.
      each: what is carried for a row, in bytes.
      cut: whether there is more than one part.
    """
    lanes = lanes_in_cache(each)
    blocks = math.ceil(size / lanes) if cut else 1
    lanes = math.ceil(size / blocks)

    def blockwise(*arguments):
        if blocks == 1:
            return solve(*arguments)
        leaves, tree = jax.tree.flatten(arguments)
        rowed = jax.tree.leaves(split)

        def block(rows):
            rows = iter(rows)
            return solve(*jax.tree.unflatten(tree, [next(rows) if has else leaf for leaf, has in zip(leaves, rowed)]))

        out = lax.map(block, [_folded(leaf, blocks, lanes) for leaf, has in zip(leaves, rowed) if has])
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], out)

    batch = jax.custom_batching.custom_vmap(blockwise)

    @batch.def_vmap
    @standard
    def batches(outer, split, *arguments):
        members = jax.vmap(blockwise, _axes(split))
        return _all_batched(_in_blocks(members, split, outer, size * each, cut)(*arguments))

    return batch


def _axes(split):
    return jax.tree.map(lambda has: 0 if has else None, tuple(split))


def _rows(split, arguments):
    return next(leaf.shape[0] for leaf, has in zip(*map(jax.tree.leaves, (arguments, split))) if has)


def _all_batched(out):
    return out, jax.tree.map(lambda _: True, out)


def _folded(leaf, blocks, lanes):
    """[blocks, lanes, ...]; what is missing is the last row again."""
    missing = jnp.broadcast_to(leaf[-1:], (blocks * lanes - leaf.shape[0], *leaf.shape[1:]))
    return jnp.concatenate([leaf, missing]).reshape(blocks, lanes, *leaf.shape[1:])


def evaluated(trace):
    """The size in bytes of all that an evaluation returns, with the Jacobian of residuals, which is there three times.

    Besides J itself there are its columns before they are joined, and a transposed copy for J^T J.

    Args:
      trace: what has the signatures of the functions.
    """
    jacobian = () if trace.jacobian is None else trace.jacobian.outputs
    return size_in_bytes((trace.signature.outputs, [jacobian] * 3))


def lanes_in_cache(each):
    """The number of lanes that do not wait for memory, where each carries and evaluates so many bytes."""
    return max(1, _BLOCK // each, min(_FEW_LANES, _BLOCK_MAX // each))


def size_in_bytes(tree):
    """The size of arrays, or of their shapes and dtypes, in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
