"""The traces used last, of functions that are known not to have changed, and what was compiled of them."""

import functools

import jax
import numpy as np

from jaxmin._cache import purity
from jaxmin._cache.computation import Signature
from jaxmin._cache.lru import Kept
from jaxmin._cache.purity import WeaklySame
from jaxmin._core.pytree import is_number
from jaxmin._core.vector import typed_sharding

_traces = Kept(size=256)


def find(static, x_static, inputs, settings, trace):
    """``trace(static, x_static, inputs, settings)``, or a kept one where it is certain to be the same.

    A function keeps one trace for the shapes, the structures and the settings that it is called with: the
    next takes its place where the function sees other arrays, so that it holds none that are out of use.
    """
    try:
        slot, seen = _key(static, x_static, inputs, settings)
    except purity.Mutable:
        return trace(static, x_static, inputs, settings)
    known = _traces.get(slot, seen)
    if known is None:
        known = trace(static, x_static, inputs, settings)
        _traces.put(slot, seen, known, owners=filter(callable, static.leaves()))
    return known


def once_per_signature(build):
    """Keep what is built for a ``Signature`` and other things: the solves used last.

    A compiled solve holds the derivative rules of what it was traced from, and with them the arrays that
    these close over: of solves that differ in nothing but that, the last few are kept.
    """
    kept = Kept(size=256, versions=4)

    @functools.wraps(build)
    def of(*things):
        slot = tuple(thing.form if isinstance(thing, Signature) else thing for thing in things)
        seen = tuple(thing.identities for thing in things if isinstance(thing, Signature))
        built = kept.get(slot, seen)
        if built is None:
            built = build(*things)
            kept.put(slot, seen, built)
        return built

    return of


def _key(static, x_static, inputs, settings):
    if not (static.is_plain() and x_static.is_plain()):  # a class of its own sees what no key shows
        raise purity.Mutable
    leaves = *static.leaves(), *x_static.leaves()
    seen = tuple(map(purity.key, leaves))
    slots = tuple(WeaklySame(leaf) if callable(leaf) else key for leaf, key in zip(leaves, seen))
    shapes = str(jax.tree.map(_shape_key, inputs))
    return (static.skeleton(), x_static.skeleton(), slots, shapes, settings, _context()), seen


def _shape_key(leaf):
    if isinstance(leaf, jax.core.Tracer):
        raise purity.Mutable  # inside an outer trace, which is kept as a whole
    weak = is_number(leaf) and not isinstance(leaf, np.generic)
    if weak:
        return (type(leaf),)
    of_type = jax.typeof(leaf) if isinstance(leaf, jax.Array) and typed_sharding(leaf) else None
    return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False), of_type


@jax.jit
def _new_context():
    return jax.tree_util.Partial(lambda: None)  # another one each time that this is traced


# Settings that change what a trace does, but not by what JAX knows a trace again.
_SETTINGS = ("jax_debug_nans", "jax_debug_infs", "jax_enable_custom_prng", "jax_default_prng_impl")


def _context():
    """All that a trace depends on beside the function and its arguments: JAX traces anew where any of it differs."""
    return _new_context.eval_shape().func, tuple(getattr(jax.config, name) for name in _SETTINGS)
