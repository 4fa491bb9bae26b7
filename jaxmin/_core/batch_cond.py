"""Rare work, skipped in a batch unless some lane needs it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.typing import PyTree, Scalar


def cond_in_batch(needed: Scalar, thorough: Callable[[], PyTree], usual: Callable[[], PyTree]) -> PyTree:
    """``thorough()``, which ``usual()`` equals wherever ``needed`` is false.

    An unbatched solve always runs ``thorough``: for a few scalars that is cheaper than a branch. A batch under ``vmap``
    branches as a whole, and runs ``thorough`` in the steps in which some lane needs it.

    Args:
      needed: [] bool.
      thorough, usual: functions without arguments whose results have the same structure; they close over their inputs.
    """
    return lax.cond(_always_alone(needed), thorough, usual)


def _of_a_batch(alone: Callable[[Scalar], Scalar]) -> Callable[[Scalar], Scalar]:
    """A function of a bool that returns an unbatched bool: ``alone(needed)``, or in a batch whether any lane needs it.

    A ``lax.cond`` on the returned bool stays a branch under ``vmap``. A ``lax.cond`` on ``needed`` itself would become
    a select. Only the bool passes through the batching rule, so the branches keep their derivatives and may close over
    arrays.
    """

    @jax.custom_batching.custom_vmap
    def known(needed: Scalar) -> Scalar:
        return alone(needed)

    @known.def_vmap
    def in_batch(size: int, split: list[bool], needed: jax.Array) -> tuple[Scalar, bool]:
        del size, split
        return anywhere(jnp.any(needed)), False

    return known


anywhere = _of_a_batch(lambda needed: needed)
_always_alone = _of_a_batch(lambda needed: jnp.ones((), bool))
