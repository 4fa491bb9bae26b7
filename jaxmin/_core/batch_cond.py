"""Rare work, skipped in a batch unless some lane needs it."""

import jax
import jax.numpy as jnp
from jax import lax


def cond_in_batch(needed, thorough, usual):
    """``thorough()``, which ``usual()`` equals wherever ``needed`` is false.

    An unbatched solve always runs ``thorough``: for a few scalars that is cheaper than a branch. A batch under ``vmap``
    branches as a whole, and runs ``thorough`` in the steps in which some lane needs it.

    Args:
      needed: [] bool.
      thorough, usual: functions of nothing, of one result's structure, that close over what they need.
    """
    return lax.cond(_always_alone(needed), thorough, usual)


def _of_a_batch(alone):
    """A bool -> a bool that is not batched: ``alone`` of it, or in a batch whether it holds in any lane.

    A ``lax.cond`` on it stays a branch under ``vmap``, where one on the bool itself is a select. Nothing but the bool
    passes through the rule, so that all that is branched on keeps its derivatives and may be closed over.
    """

    @jax.custom_batching.custom_vmap
    def known(needed):
        return alone(needed)

    @known.def_vmap
    def in_batch(size, split, needed):
        del size, split
        return anywhere(jnp.any(needed)), False

    return known


anywhere = _of_a_batch(lambda needed: needed)
_always_alone = _of_a_batch(lambda needed: jnp.ones((), bool))
