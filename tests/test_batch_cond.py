"""A branch for a whole batch runs when one of its lanes needs it, and not otherwise."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.batch_cond import _together, cond_in_batch, where_needed


def root(x, shift):
    """Of |x|; only the thorough way knows of negative x."""
    return cond_in_batch(x < 0, lambda: jnp.sqrt(jnp.abs(x)) + shift, lambda: jnp.sqrt(x) + shift, 1)


def test_alone_in_a_batch_and_in_a_batch_of_batches():
    x = np.array([[4.0, 9.0, 1.0], [4.0, -9.0, 1.0]])
    shift = np.array([0.5, 1.0])
    wanted = np.sqrt(np.abs(x)) + shift[:, None]
    assert root(-4.0, 1.0) == 3
    np.testing.assert_allclose(jax.vmap(root, (0, None))(x[1], 1.0), wanted[1])
    np.testing.assert_allclose(jax.vmap(jax.vmap(root, (0, None)))(x, shift), wanted)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(root), (1, None), 1))(x, shift), wanted)


def test_a_batch_takes_the_thorough_way_as_a_whole_and_only_where_a_lane_needs_it():
    taken = []

    def noted(x):
        jax.debug.callback(lambda: taken.append(True))
        return x

    batch = jax.jit(jax.vmap(lambda x: cond_in_batch(x < 0, lambda: noted(-x), lambda: x, 1)))
    jax.block_until_ready(batch(np.array([1.0, 2.0])))
    jax.effects_barrier()
    assert not taken
    # the usual way need not be right where it is not wanted, and the thorough one is right for all
    np.testing.assert_array_equal(batch(np.array([1.0, -2.0])), [-1.0, 2.0])
    jax.effects_barrier()
    assert taken


def test_where_needed_alone_in_a_batch_and_in_a_batch_of_batches():
    def root(x, shift):
        return where_needed(x < 0, lambda x, shift: jnp.sqrt(-x) + shift, jnp.sqrt(x) + shift, x, shift)

    x = np.array([[4.0, 9.0, 1.0], [4.0, -9.0, -1.0]])
    shift = np.array([0.5, 1.0])
    wanted = np.sqrt(np.abs(x)) + shift[:, None]
    assert root(-4.0, 1.0) == 3
    np.testing.assert_allclose(jax.vmap(root, (0, None))(x[1], 1.0), wanted[1])
    np.testing.assert_allclose(jax.vmap(root, (None, 0))(-9.0, shift), 3 + shift)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(root, (0, None))))(x, shift), wanted)
    np.testing.assert_allclose(_together(x[1] < 0, lambda x: -x, x[1], (x[1],)), np.abs(x[1]))


def test_where_needed_works_for_the_lanes_that_need_it_alone():
    taken = []

    def noted(x):
        jax.debug.callback(lambda x: taken.append(float(x)), x)
        return -x

    batch = jax.jit(jax.vmap(lambda x: where_needed(x < 0, noted, x, x)))
    np.testing.assert_array_equal(batch(np.array([1.0, -2.0, 3.0, -4.0])), [1.0, 2.0, 3.0, 4.0])
    jax.effects_barrier()
    assert sorted(taken) == [-4, -2]
