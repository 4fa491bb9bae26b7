"""Tangents: which arrays have any, and those that are 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def is_inexact(leaf):
    """Whether an array has derivatives."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def no_tangent(leaf):
    """The tangent of an array that does not change."""
    if is_inexact(leaf):
        return jnp.zeros_like(leaf)
    return np.zeros(jnp.shape(leaf), jax.dtypes.float0)


def nothing(tangents):
    """0, which depends on all of them."""
    parts = [leaf for leaf in jax.tree.leaves(tangents) if is_inexact(leaf)]
    return functools.reduce(jnp.add, (jnp.real(jnp.sum(0 * part)) for part in parts), jnp.zeros(()))
