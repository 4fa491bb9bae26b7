"""A box: bounds on the variables, and what they do to points and gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._partition import is_array, is_number


class Bounds(NamedTuple):
    """Bounds on the variables, lower <= x <= upper, as ``scipy.optimize.Bounds`` has them.

    Args:
      lower, upper: numbers, arrays or pytrees shaped like x0, or like an upper part of it: one number then
        holds for all below it. None and infinities are no bounds; equal bounds fix a variable. They may be
        traced and batched.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.sum((x - 3) ** 2), [0.0, 0.0], bounds=jaxmin.Bounds(0, jnp.array([1, 9])))
    >>> res.x.round(3).tolist(), res.active_mask.tolist()
    ([1.0, 3.0], [1, 0])
    """

    lower: Any = -np.inf
    upper: Any = np.inf


class Box(NamedTuple):
    """The bounds of a flat vector."""

    lower: Any  # [n]
    upper: Any  # [n]

    def clip(self, x):
        """The point of the box next to x."""
        return jnp.clip(x, self.lower, self.upper)

    def active(self, x, g):
        """Where x is held at a bound, f falling outwards: -1 at the lower one, 1 at the upper one, else 0."""
        at_lower = (x <= self.lower) & (g >= 0)
        at_upper = (x >= self.upper) & (g <= 0)
        return jnp.where(at_lower, -1, jnp.where(at_upper, 1, 0)).astype(jnp.int32)

    def free(self, x, g):
        """Where x may move downhill."""
        return (self.active(x, g) == 0) & (self.lower < self.upper)

    def only(self, free, v, other=0):
        """v where x is free, else the other."""
        return jnp.where(free, v, other)

    def moving(self, x, d):
        """d without what leads out of the box at x: the direction of the bent path there."""
        return jnp.where(((x <= self.lower) & (d < 0)) | ((x >= self.upper) & (d > 0)), 0, d)

    def projected(self, x, g):
        """The projected gradient: the step from x to where -g leads, kept inside the box, with its sign changed."""
        return jnp.clip(g, x - self.upper, x - self.lower)  # the difference itself would lose a small g beside x


def box(bounds, variables, x_static):
    """The user's bounds as a ``Box``, or None.

    Args:
      bounds: None, a sequence of (low, high) pairs with None for no bound, ``Bounds`` or SciPy's.
      variables: the ``Variables`` of x0.
      x_static: its ``Static``.

    Raises:
      TypeError, ValueError: naming bounds.
    """
    if bounds is None:
        return None
    lower, upper = _pair(bounds, variables, x_static)
    sides = []
    for name, side, none in (("lower", lower, -np.inf), ("upper", upper, np.inf)):
        leaves = _spread(name, side, none, variables, x_static)
        sides.append(leaves)
    for low, high in zip(*sides):
        known = not isinstance(low, jax.core.Tracer) and not isinstance(high, jax.core.Tracer)
        if known and bool(np.any(np.asarray(low) > np.asarray(high))):
            raise ValueError(f"bounds: a lower bound above its upper one: {low} > {high}")
    return Box(
        *(
            variables.ravel([_inward(leaf, up, like) for leaf, like in zip(side, variables.shapes)])
            for side, up in zip(sides, (True, False))
        )
    )


def _pair(bounds, variables, x_static):
    """(lower, upper), each a pytree."""
    if isinstance(bounds, Bounds):
        return bounds
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):  # SciPy's
        return bounds.lb, bounds.ub
    expected = "a sequence of (low, high) pairs, one a variable, or Bounds(lower, upper)"
    if not isinstance(bounds, (list, tuple)) and not hasattr(bounds, "__array__"):
        raise TypeError(f"bounds={bounds!r}: {expected}")
    if not jax.tree_util.treedef_is_leaf(x_static.treedef):
        raise TypeError(
            f"bounds: x0 is a pytree; its bounds come as Bounds(lower, upper), built like it, not as {expected}"
        )
    pairs = [tuple(pair) if np.ndim(pair) or isinstance(pair, (list, tuple)) else (pair,) for pair in bounds]
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"bounds: {pair!r} is no (low, high) pair")
    shape = variables.shapes[0][0]
    if len(pairs) != int(np.prod(shape)):
        raise ValueError(f"bounds: {len(pairs)} pairs for {int(np.prod(shape))} variables")
    none = (-np.inf, np.inf)
    sides = [[none[i] if pair[i] is None else pair[i] for pair in pairs] for i in (0, 1)]
    return [
        jnp.stack([jnp.asarray(v) for v in side]).reshape(shape) if _traced(side) else np.reshape(side, shape)
        for side in sides
    ]


def _traced(values):
    return any(isinstance(value, jax.core.Tracer) for value in values)


def _spread(name, side, none, variables, x_static):
    """One side's bound for each leaf that varies, in the leaf's shape."""
    like = x_static.only([jax.ShapeDtypeStruct(*shape) for shape in variables.shapes])
    is_none = lambda node: node is None
    above, tree = jax.tree.flatten(side, is_leaf=is_none)
    try:
        below = tree.flatten_up_to(like)
    except (ValueError, TypeError) as error:
        raise ValueError(f"bounds: {name} is built as {tree}, x0 as {jax.tree.structure(like)}") from error
    leaves = []
    for bound, part in zip(above, below):
        for leaf in jax.tree.leaves(part):
            value = none if bound is None else bound
            if not is_number(value) and not (is_array(value) and np.issubdtype(value.dtype, np.number)):
                raise TypeError(f"bounds: {name} holds {value!r}, no number")
            try:
                leaves.append(
                    jnp.broadcast_to(value, leaf.shape)
                    if isinstance(value, jax.Array)
                    else np.broadcast_to(value, leaf.shape)
                )
            except ValueError:
                raise ValueError(
                    f"bounds: {name} of shape {np.shape(value)} for a part of x0 of {leaf.shape}"
                ) from None
    return leaves


def _inward(bound, up, like):
    """A bound in its leaf's dtype, never wider than it was given."""
    dtype = jnp.dtype(like[1])
    if dtype.kind == "c":
        raise TypeError("bounds: x0 has complex leaves, and no order to bound them by")
    given = jnp.asarray(bound)
    kept = given.astype(dtype)
    wide = jnp.promote_types(given.dtype, dtype)
    if wide == dtype:
        return kept
    widened = kept.astype(wide) < given if up else kept.astype(wide) > given
    neighbour = jnp.nextafter(jax.lax.stop_gradient(kept), jnp.asarray(jnp.inf if up else -jnp.inf, dtype))
    return jnp.where(widened, neighbour, kept)
