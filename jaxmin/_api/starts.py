"""starts: points to start from, for the best of several solves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._api import sobol
from jaxmin._core.convex_set import ConvexSet
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import any_traced, is_array, is_count, is_number
from jaxmin._core.typing import PyTree
from jaxmin._problem.bounds import Bounds, BoundsLike, of_scipy

# By default bounds are so many standard deviations from the mean.
_DEVIATIONS = 2.0


@standard
def starts(
    key: jax.Array, bounds: BoundsLike | None, n: int, kind: str = "sobol", *, mean: PyTree = None, scale: PyTree = None
) -> PyTree:
    r"""Draw n points within bounds, to start ``minimize_many(best_of=n)`` or ``vmap`` of ``minimize`` from.

    It works under ``jit``, where n and kind are static, and under ``vmap`` over keys and bounds. The same key gives the
    same points.

    Args:
      key: a key, ``jax.random.key(0)``.
      bounds: a list of d pairs (low, high), or :class:`~jaxmin.Bounds` or SciPy's, with numbers, arrays or pytrees;
        a number holds for all leaves of the other side. "sobol" and "latin" need finite ones. None, for "normal",
        means no bounds.
      n: the number of points, at least 1.
      kind: how they are drawn:

        - "sobol" (default): the first n points of a scrambled Sobol sequence, for up to 37 variables. They are the most
          even where n is a power of 2;
        - "latin": a Latin hypercube, for any number of variables. Of the n equal parts between the bounds of a
          variable, each holds one point;
        - "normal": independent normal draws, and of these only what is within the bounds.
      mean, scale: for "normal", numbers, arrays or pytrees like the bounds: the mean and the standard deviation of the
        normal distribution before the bounds cut it. None (default): the midpoint between the bounds and a
        quarter of their distance, which must be finite.

    Returns:
      An array [n, d], or a pytree like the bounds whose leaves have a leading axis [n], in the dtype of the bounds;
      numbers have the default dtype of JAX. Equal bounds fix a variable.

    Raises:
      TypeError: for a key that is not one, a set of ``jaxmin.sets``, or a bound that is not a real number.
      ValueError: for another n or kind, bounds that do not fit each other or are not finite, too many variables for
        "sobol", and a mean or scale for another kind or a negative scale; where they are traced, the points are NaN.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> points = jaxmin.starts(jax.random.key(0), [(-2, 2), (0, 10)], 64)
    >>> res = jaxmin.minimize_many(lambda x: (x[0] ** 2 - 1) ** 2 + x[0] / 5 + x[1] ** 2, points, best_of=64)
    >>> points.shape, bool(res.x[0, 0] < 0)
    ((64, 2), True)

    References:
      Joe and Kuo, Constructing Sobol sequences with better two-dimensional projections, SIAM J. Sci. Comput. 30 (2008).
      Matousek, On the L2-discrepancy for anchored boxes, J. Complexity 14 (1998). McKay, Beckman and Conover, A
      comparison of three methods for selecting values of input variables, Technometrics 21 (1979).
    """
    if not isinstance(key, jax.Array):
        raise TypeError(f"key={key!r}: give a random key, jax.random.key(0)")
    if not (is_count(n) and n >= 1):
        raise ValueError(f"n={n!r}: a whole number, at least 1")
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(map(repr, _KINDS))}")
    if kind != "normal" and not (mean is None and scale is None):
        raise ValueError(f"mean, scale: they are for kind='normal', not for {kind!r}")
    tree, (lower, upper, centre, width) = _together(*_sides(bounds), mean, scale)
    dtypes = [_dtype(*parts) for parts in zip(lower, upper, centre, width, strict=True)]
    box = _Box([_alike(*sides) for sides in zip(lower, upper, dtypes, strict=True)])
    leaves = _normal(key, int(n), box, centre, width) if kind == "normal" else _even(key, int(n), box, kind)
    return jax.tree.unflatten(tree, leaves)


class _Box:
    """The leaves of both sides of the bounds, in one dtype and shape each."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self.lower, self.upper = [low for low, _ in pairs], [high for _, high in pairs]
        self.is_known = not any_traced(pairs)
        if self.is_known and not all(np.all(low <= high) for low, high in pairs):
            raise ValueError("bounds: a lower bound is above its upper bound, or NaN")

    def check_finite(self, why: str) -> None:
        """An error where a known bound is infinite."""
        if self.is_known and not all(np.isfinite(side).all() for side in self.lower + self.upper):
            raise ValueError(f"bounds: {why} needs finite bounds for each variable")

    def clipped(self, i: int, points: jax.Array) -> jax.Array:
        """Points for leaf i, [n, ...], where rounding led them outside; NaN where the bounds have no inside."""
        low, high = self.lower[i], self.upper[i]
        return jnp.where(low <= high, jnp.clip(points, low, high), jnp.nan).astype(low.dtype)


def _sides(bounds: BoundsLike | None) -> tuple[PyTree, PyTree]:
    """The lower and the upper bounds."""
    if bounds is None:
        return -np.inf, np.inf
    if isinstance(bounds, ConvexSet):
        raise TypeError("bounds: a set; starts are drawn in a box, and minimize projects them onto the set")
    given: Any = of_scipy(bounds)
    if isinstance(given, Bounds):
        return given.lower, given.upper
    pairs = [tuple(pair) if np.ndim(pair) or isinstance(pair, (tuple, list)) else (pair,) for pair in given]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"bounds={bounds!r}: give (low, high) pairs, one a variable, or Bounds(lower, upper)")
    none = (-np.inf, np.inf)
    lower, upper = ([none[i] if pair[i] is None else pair[i] for pair in pairs] for i in (0, 1))
    return lower, upper


def _together(*trees: PyTree) -> tuple[Any, list[list[Any]]]:
    """The structure of the trees, and the leaves of each; one that is a leaf holds for all."""
    trees = tuple(_stacked(tree) for tree in trees)
    flat = [jax.tree.flatten(tree, is_leaf=lambda node: node is None) for tree in trees]
    structure = next((tree for _, tree in flat if not jax.tree_util.treedef_is_leaf(tree)), flat[0][1])
    spread = []
    for leaves, tree in flat:
        if tree != structure and not jax.tree_util.treedef_is_leaf(tree):
            raise ValueError(f"bounds: one part is built as {tree}, another as {structure}")
        spread.append(leaves if tree == structure else leaves * structure.num_leaves)
    return structure, spread


def _stacked(tree: PyTree) -> PyTree:
    """A list of numbers as an array."""
    if isinstance(tree, (list, tuple)) and all(is_number(item) or (is_array(item) and item.ndim == 0) for item in tree):
        dtype, xp = jnp.result_type(*tree), jnp if any_traced(tree) else np
        return xp.stack([_known(item, dtype) for item in tree])
    return tree


def _dtype(*parts: Any) -> Any:
    """The floating dtype of the numbers of a leaf, without those that are None."""
    given = [part for part in parts if part is not None]
    for part in given:
        if not (is_number(part) or is_array(part)) or np.iscomplexobj(part):
            raise TypeError(f"bounds, mean or scale: {part!r} is not a real number")
    dtype = jnp.result_type(*given) if given else jnp.result_type(float)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def _alike(low: Any, high: Any, dtype: Any) -> tuple[Any, Any]:
    """Both sides of a leaf in one shape and dtype; NumPy's arrays if they are known, also under jit."""
    low, high = (_known(none if side is None else side, dtype) for side, none in ((low, -np.inf), (high, np.inf)))
    try:
        shape = np.broadcast_shapes(low.shape, high.shape)
    except ValueError:
        raise ValueError(f"bounds: lower of shape {low.shape}, upper of shape {high.shape}") from None
    xp: Any = jnp if any_traced((low, high)) else np
    return xp.broadcast_to(low, shape), xp.broadcast_to(high, shape)


def _known(value: Any, dtype: Any) -> Any:
    """An array, NumPy's if it is known."""
    return jnp.asarray(value, dtype) if any_traced(value) else np.asarray(value).astype(dtype)


# ---- the kinds


def _even(key: jax.Array, n: int, box: _Box, kind: str) -> list[jax.Array]:
    """Points of the unit cube, stretched to the box."""
    box.check_finite(f"kind={kind!r}")
    sizes = [side.size for side in box.lower]
    d = sum(sizes)
    wide = any(side.dtype == jnp.float64 for side in box.lower)
    unit = _KINDS[kind](key, n, d, jnp.dtype("float64" if wide else "float32"))
    parts = jnp.split(unit, np.cumsum(sizes)[:-1], axis=1)
    leaves = []
    for i, (part, low, high) in enumerate(zip(parts, box.lower, box.upper)):
        share = part.reshape(n, *low.shape)
        leaves.append(box.clipped(i, (1 - share) * low + share * high))
    return leaves


def _sobol(key: jax.Array, n: int, d: int, dtype: Any) -> jax.Array:
    if d > sobol.DIMENSIONS:
        raise ValueError(f"bounds: {d} variables; kind='sobol' has up to {sobol.DIMENSIONS}, kind='latin' any number")
    if n > 2**32:
        raise ValueError(f"n={n}: kind='sobol' has up to 2**32 points")
    digits = min(32, jnp.finfo(dtype).nmant + 1)  # more would be rounded, up to 1
    return (sobol.scrambled(key, n, d) >> (32 - digits)).astype(dtype) / 2**digits


def _latin(key: jax.Array, n: int, d: int, dtype: Any) -> jax.Array:
    for_order, for_place = jax.random.split(key)
    part = jax.vmap(lambda key: jax.random.permutation(key, n), out_axes=1)(jax.random.split(for_order, d))
    return (part.astype(dtype) + jax.random.uniform(for_place, (n, d), dtype)) / n


def _normal(key: jax.Array, n: int, box: _Box, mean: list[Any], scale: list[Any]) -> list[jax.Array]:
    """Normal draws between the bounds."""
    if any(part is None for part in mean + scale):
        box.check_finite("kind='normal' without a mean and a scale")
    leaves = []
    for i, (key_of, low, high) in enumerate(zip(jax.random.split(key, len(mean)), box.lower, box.upper)):
        at = low / 2 + high / 2 if mean[i] is None else _known(mean[i], low.dtype)
        by = (high / 2 - low / 2) / _DEVIATIONS if scale[i] is None else _known(scale[i], low.dtype)
        if not any_traced(by) and not np.all(by >= 0):
            raise ValueError(f"scale={scale[i]!r}: it must not be negative")
        by = jnp.where(by >= 0, by, jnp.nan)
        shape = np.broadcast_shapes(low.shape, at.shape, by.shape)
        unit = jnp.where(by > 0, by, 1)  # equal bounds fix a variable
        least, most = (jnp.broadcast_to((side - at) / unit, shape) for side in (low, high))
        drawn = jax.random.truncated_normal(key_of, least, most, (n, *shape), low.dtype)
        leaves.append(box.clipped(i, at + by * drawn))
    return leaves


_KINDS: dict[str, Callable[..., Any]] = {"sobol": _sobol, "latin": _latin, "normal": _normal}
