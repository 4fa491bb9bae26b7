"""The traces of functions that are known not to have changed."""

import threading
import weakref

import jax
import numpy as np

from jaxmin._cache import purity
from jaxmin._cache.purity import WeaklySame
from jaxmin._core.pytree import is_number
from jaxmin._core.vector import typed_sharding

_FUNCTIONS, _OF_EACH = 256, 8  # so many functions at most have traces, and so many each
# function -> {shapes, structures, settings: (what it sees, its trace)}; traces go with their function.
_traces: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def find(static, x_static, inputs, settings, trace):
    """``trace(static, x_static, inputs, settings)``, or an earlier one where it is certain to be the same.

    A function has one trace for the shapes, the structures and the settings that it is called with: the
    next takes its place where the function sees other arrays, so that it holds none that are out of use.
    """
    try:
        slot, seen = _key(static, x_static, inputs, settings)
    except purity.Mutable:
        return trace(static, x_static, inputs, settings)
    function = next(filter(callable, static.leaves()))
    with _lock:
        before, known = _slots(function).get(slot, (None, None))
    if before == seen:
        return known
    known = trace(static, x_static, inputs, settings)
    if not any(map(callable, known.aux_static.leaves())):  # which might hold the function
        with _lock:
            slots = _slots(function)
            slots[slot] = seen, known
            while len(slots) > _OF_EACH:
                del slots[next(iter(slots))]
    return known


def _slots(function):
    """The traces of one function, by what they are for."""
    try:
        slots = _traces.setdefault(function, {})
    except TypeError:  # a built-in one
        return {}
    while len(_traces) > _FUNCTIONS:
        del _traces[next(iter(_traces))]
    return slots


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
        raise purity.Mutable  # inside an outer trace, which is cached as a whole
    weak = is_number(leaf) and not isinstance(leaf, np.generic)
    if weak:
        return (type(leaf),)
    of_type = jax.typeof(leaf) if isinstance(leaf, jax.Array) and typed_sharding(leaf) else None
    return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False), of_type


@jax.jit
def _new_context():
    return jax.tree_util.Partial(lambda: None)  # another one each time that this is traced


# Settings that change a trace, but are not part of the key by which JAX caches it.
_SETTINGS = ("jax_debug_nans", "jax_debug_infs", "jax_enable_custom_prng", "jax_default_prng_impl")


def _context():
    """All that a trace depends on besides the function and its arguments: JAX traces again where any of it differs."""
    return _new_context.eval_shape().func, tuple(getattr(jax.config, name) for name in _SETTINGS)
