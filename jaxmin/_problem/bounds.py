"""The user's bounds: checked, and converted to a box."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.box import Box, Unbounded, Within
from jaxmin._core.convex_set import ConvexSet, region
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import Static, any_traced, is_array, is_number
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables


class Bounds(NamedTuple):
    """Bounds on the variables, lower <= x <= upper, as in ``scipy.optimize.Bounds``.

    Args:
      lower, upper: numbers, arrays that broadcast to the shape of x0, or pytrees of these, built like x0 or like the
        top of its tree; a number there holds for all leaves below it. None and an infinite number mean no bound; the
        defaults are -inf and inf. Equal bounds fix a variable. Bounds may be traced and batched. They are rounded
        to the dtypes of x0, inwards.

    Raises:
      TypeError: from ``minimize``, if a bound is not a real number or x0 is complex.
      ValueError: from ``minimize``, if trees or shapes do not fit x0, or a lower bound is above its upper bound or
        NaN. A traced lower bound above its upper bound gives NaN instead.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.sum((x - 3) ** 2), [0.0, 0.0], bounds=jaxmin.Bounds(0, jnp.array([1, 9])))
    >>> res.x.round(3).tolist(), res.active_mask.tolist()
    ([1.0, 3.0], [1, 0])
    """

    lower: PyTree = -np.inf
    upper: PyTree = np.inf


class ScipyBounds(Protocol):
    """An object with the attributes of ``scipy.optimize.Bounds``."""

    @property
    def lb(self) -> Any: ...

    @property
    def ub(self) -> Any: ...


# The ways to give bounds. The sequence holds (low, high) pairs.
BoxLike: TypeAlias = Bounds | ScipyBounds | Sequence[Sequence[Any]] | np.ndarray | jax.Array
BoundsLike: TypeAlias = BoxLike | ConvexSet


@standard
def box(bounds: BoundsLike | None, variables: Variables, x_static: Static) -> Within:
    """The user's bounds as a ``Box``, a set as a ``Region``, or ``Unbounded()``.

    Args:
      bounds: None, a sequence of (low, high) pairs with None for no bound, ``Bounds`` or SciPy's, or a set.
      variables: the ``Variables`` of x0.
      x_static: the ``Static`` of x0.

    Raises:
      TypeError, ValueError: for bounds that are not right; the message names them.
    """
    if bounds is None:
        return Unbounded()
    if isinstance(bounds, ConvexSet):
        return region(bounds, variables, _like(variables, x_static))
    sides = [
        _spread(name, side, none, variables, x_static)
        for name, side, none in zip(("lower", "upper"), _pair(bounds, variables, x_static), (-np.inf, np.inf))
    ]
    rounded = [_rounded(low, high, jnp.dtype(dtype)) for low, high, (_, dtype) in zip(*sides, variables.shapes)]
    return Box(*map(variables.ravel, zip(*rounded)))


def of_scipy(bounds: Any) -> Any:
    """SciPy's ``Bounds`` as :class:`Bounds`; anything else as it is."""
    return Bounds(bounds.lb, bounds.ub) if hasattr(bounds, "lb") and hasattr(bounds, "ub") else bounds


def _pair(bounds: BoxLike, variables: Variables, x_static: Static) -> Sequence[PyTree]:
    """(lower, upper), each a pytree."""
    given: Any = of_scipy(bounds)
    if isinstance(given, Bounds):
        return given
    expected = "a sequence of (low, high) pairs, one a variable, Bounds(lower, upper), or a set of jaxmin.sets"
    if not isinstance(bounds, (list, tuple)) and not hasattr(bounds, "__array__"):
        raise TypeError(f"bounds={bounds!r}: {expected}")
    if not jax.tree_util.treedef_is_leaf(x_static.treedef):
        raise TypeError("bounds: pairs are for an x0 that is an array; for a pytree give Bounds(lower, upper)")
    shape = variables.shapes[0][0]
    _check_sides(bounds, int(np.prod(shape)))
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) or np.ndim(pair) else (pair,) for pair in given]
    for pair in pairs:
        if len(pair) != 2 or any(np.ndim(bound) for bound in pair):
            raise ValueError(f"bounds: {pair!r} is not a (low, high) pair of numbers")
    if len(pairs) != int(np.prod(shape)):
        raise ValueError(f"bounds: {len(pairs)} pairs for {int(np.prod(shape))} variables")
    none = (-np.inf, np.inf)
    sides = [[none[i] if pair[i] is None else pair[i] for pair in pairs] for i in (0, 1)]
    return [
        jnp.stack([jnp.asarray(v) for v in side]).reshape(shape) if any_traced(side) else np.reshape(side, shape)
        for side in sides
    ]


def _check_sides(bounds: Any, n: int) -> None:
    """Raise where pairs are wanted, and the bounds are those below and those above."""
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        return
    # NumPy would make arrays of lists, which may be ragged or traced.
    several = [isinstance(side, (list, tuple)) or (is_array(side) and side.ndim > 0) for side in bounds]
    if not any(several):
        raise ValueError(
            f"bounds={bounds!r}: two numbers, not (low, high) pairs, one a variable; for the same bounds on all "
            "variables give jaxmin.Bounds(low, high)"
        )
    sizes = [len(side) if many else 1 for side, many in zip(bounds, several)]
    way_out = "give jaxmin.Bounds(lower, upper) for the bounds below and the bounds above"
    if n != 2 and max(sizes) > 2:
        raise ValueError(f"bounds: two arrays of sizes {sizes}, not {n} (low, high) pairs, one a variable; {way_out}")
    if n == 2 and all(is_array(side) and side.shape == (2,) for side in bounds):
        raise ValueError(
            f"bounds: two arrays of 2, which may be two (low, high) pairs, or the bounds below and above; {way_out}, "
            "or jnp.stack(bounds), one array [2, 2], for pairs"
        )


def _like(variables: Variables, x_static: Static) -> PyTree:
    """x0 as a pytree of shapes, with None for leaves that do not vary."""
    return x_static.only([jax.ShapeDtypeStruct(*shape) for shape in variables.shapes])


def _spread(name: str, side: PyTree, none: float, variables: Variables, x_static: Static) -> list[Any]:
    """The bounds of one side: an array in the shape of each leaf that varies."""
    like = _like(variables, x_static)
    if jax.tree_util.treedef_is_leaf(x_static.treedef) and isinstance(side, (list, tuple)):
        side = jnp.stack(list(map(jnp.asarray, side))) if any_traced(side) else np.asarray(side)
    above, tree = jax.tree.flatten(side, is_leaf=lambda node: node is None)
    try:
        below = tree.flatten_up_to(like)
    except (ValueError, TypeError) as error:
        raise ValueError(f"bounds: {name} is built as {tree}, x0 as {jax.tree.structure(like)}") from error
    leaves = []
    for bound, part in zip(above, below):
        for leaf in jax.tree.leaves(part):
            value: Any = none if bound is None else bound
            number = is_number(value) or (is_array(value) and np.issubdtype(value.dtype, np.number))
            if not number or np.iscomplexobj(value):
                raise TypeError(f"bounds: {name} holds {value!r}, not a real number")
            try:
                leaves.append(
                    jnp.broadcast_to(value, leaf.shape)
                    if isinstance(value, jax.Array)
                    else np.broadcast_to(value, leaf.shape)
                )
            except ValueError:
                raise ValueError(
                    f"bounds: {name} of shape {np.shape(value)} for a part of x0 of shape {leaf.shape}"
                ) from None
    return leaves


def _rounded(lower: Any, upper: Any, dtype: np.dtype) -> tuple[jax.Array, jax.Array]:
    """Both bounds of a leaf in its dtype, rounded inwards: the lower one up, the upper one down.

    If no number of the dtype lies between them, both become the nearest one. If lower is above upper, known values are
    an error, and traced values become NaN.
    """
    if dtype.kind == "c":
        raise TypeError("bounds: x0 has complex leaves, which have no order; give a real x0")
    if not any_traced((lower, upper)) and not bool(np.all(np.asarray(lower) <= np.asarray(upper))):
        raise ValueError(f"bounds: a lower bound is above its upper bound, or NaN: lower {lower}, upper {upper}")
    empty = ~(jnp.asarray(lower) <= jnp.asarray(upper))
    low, high = _inward(lower, dtype, up=True), _inward(upper, dtype, up=False)
    between = low <= high
    nearest = jnp.asarray(lower).astype(dtype)
    low, high = jnp.where(between, low, nearest), jnp.where(between, high, nearest)
    return jnp.where(empty, jnp.nan, low).astype(dtype), jnp.where(empty, jnp.nan, high).astype(dtype)


def _inward(bound: Any, dtype: np.dtype, up: bool) -> jax.Array:
    """The bound, rounded inwards to the dtype."""
    xp: Any = jnp if isinstance(bound, jax.Array) else np  # jax.numpy would round NumPy's float64 to float32
    given = xp.asarray(bound)
    rounded = given.astype(dtype)
    fixed = jax.lax.stop_gradient(rounded) if xp is jnp else rounded
    exactly = jax.lax.stop_gradient(given) if xp is jnp else given
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(given.dtype, dtype) if xp is jnp else np.promote_types(given.dtype, dtype)
    outside = fixed.astype(wide) < exactly if up else fixed.astype(wide) > exactly
    neighbour = jnp.nextafter(fixed, jnp.asarray(jnp.inf if up else -jnp.inf, dtype))
    # The change to the neighbour has derivative 0, so the sum has the derivative of the bound.
    return rounded + jnp.where(outside, neighbour - fixed, 0).astype(dtype)
