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
    """A bool -> a bool that is not batched: ``alone`` of it, or in a batch whether it holds in any lane.

    A ``lax.cond`` on it stays a branch under ``vmap``, where one on the bool itself is a select. Nothing but the bool
    passes through the rule, so that all that is branched on keeps its derivatives and may be closed over.
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
