"""The arguments of many problems: pytrees in which some arrays have a row for each problem."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._api.options import as_arrays, choose, is_limit, parse
from jaxmin._core.pytree import is_array, is_count, is_number
from jaxmin._driver import compiled
from jaxmin._problem.bounds import Bounds, box, of_scipy
from jaxmin._problem.objective import as_argument


class Rows(NamedTuple):
    """A pytree in which some leaves have a leading axis of problems."""

    tree: Any
    leaves: list
    split: list  # of each leaf: whether it has

    def first(self):
        """The first problem's."""
        leaves = [_first(leaf) if split else leaf for leaf, split in zip(self.leaves, self.split)]
        return jax.tree.unflatten(self.tree, leaves)

    def each(self, function):
        """The function of every problem's, as ``vmap`` gives it."""
        axes = [0 if split else None for split in self.split]
        return jax.vmap(lambda *leaves: function(jax.tree.unflatten(self.tree, leaves)), axes)(*self.leaves)


def _first(leaf):
    # An array of no axes, not a NumPy number: a list of numbers would be one array.
    return leaf[0] if isinstance(leaf, jax.Array) else np.asarray(leaf[0])


class Given(NamedTuple):
    """The arguments of a call that may have rows."""

    x0: Rows
    args: Rows
    bounds: Rows
    settings: Rows  # (tol, options)
    starts: int


class Fed(NamedTuple):
    """What the solves are fed: (leaves of x0, inputs, limits), flat."""

    tree: Any
    every: tuple  # of each leaf: how many starts in a row share a row of it; 0: it is shared by all
    problems: list  # the leaves with rows
    shared: list  # the others
    fixed: list  # of x0: the arrays that do not vary, with rows


_SHARED = "in_axes says what is shared: (None, 0) x0, (0, None) all args, (0, (0, None)) the second of two"


def given(x0, args, bounds, tol, options, in_axes, best_of):
    """What the user gave, its axes of problems found, moved to the front and checked: a ``Given``."""
    args = args if isinstance(args, tuple) else (args,)
    axes = in_axes if isinstance(in_axes, (tuple, list)) else (in_axes, in_axes)
    if len(axes) != 2:
        raise ValueError(f"in_axes={in_axes!r}: one axis, or two entries, over (x0, args)")
    if axes[0] is not None and isinstance(x0, (list, tuple)) and all(map(is_number, jax.tree.leaves(x0))):
        x0 = np.asarray(x0)
    rows = {"x0": _rows("x0", x0, axes[0]), "args": _rows("args", args, axes[1])}
    if any(leaf.shape[0] == 0 for of in rows.values() for leaf, split in zip(of.leaves, of.split) if split):
        raise ValueError("x0: no problems at all; an axis of problems has the length 0")
    rows["bounds"] = _rows_of_bounds(bounds, rows["x0"].first())
    for name, value in options.items():
        if not is_limit(name) and isinstance(value, (np.ndarray, jax.Array)) and np.ndim(value) == 1:
            raise TypeError(
                f"options[{name!r}]: one for all problems; tolerances and limits alone may have a row for each"
            )
    lengths = [(name, leaf.shape[0]) for name, of in rows.items() for leaf, split in zip(of.leaves, of.split) if split]
    paths, tree = jax.tree_util.tree_flatten_with_path((tol, options))
    settings = Rows(tree, [leaf for _, leaf in paths], [np.ndim(leaf) == 1 for _, leaf in paths])
    lengths += [(_setting(path), leaf.shape[0]) for (path, leaf), split in zip(paths, settings.split) if split]

    starts = problems = None
    for name, size in lengths:
        if name == "x0" and starts is None:
            starts, problems = size, size // best_of
            if size % best_of:
                raise ValueError(f"best_of={best_of}: it does not divide the {size} starts in x0")
        problems = size if problems is None else problems
        wanted = starts if name == "x0" else problems
        if size != wanted:
            raise ValueError(
                f"{name}: an array with {size} rows, for {wanted} {'starts' if name == 'x0' else 'problems'}; "
                + (_SHARED if name in ("x0", "args") else "give one for all, or one row a problem")
            )
    if problems is None:
        raise ValueError(f"in_axes={in_axes!r}: neither x0 nor args have an axis of problems")
    starts = problems * best_of if starts is None else starts
    return Given(**rows, settings=settings, starts=starts)


def _setting(path):
    """The name of a leaf of (tol, options)."""
    part, *keys = path
    return f"options[{keys[0].key!r}]" if part.idx else "tol"


def _rows(name, tree, axes):
    """The ``Rows`` of an argument, by its part of in_axes."""
    flat, prefix = jax.tree.flatten(axes, is_leaf=lambda axis: axis is None)
    for axis in flat:
        if not (axis is None or is_count(axis)):
            raise TypeError(f"in_axes: {axis!r} is no axis; a whole number, or None for what is shared")
    try:
        below = prefix.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        shapes = jax.tree.map(np.shape, tree)
        raise ValueError(f"in_axes: {axes!r} for {name}, which is built otherwise: {shapes}") from error
    leaves, split = [], []
    for axis, part in zip(flat, below):
        for leaf in map(as_argument, jax.tree.leaves(part)):
            has = axis is not None and is_array(leaf) and np.ndim(leaf) > 0
            if has and not -leaf.ndim <= axis < leaf.ndim:
                raise ValueError(f"in_axes: axis {axis} of an array of shape {leaf.shape} in {name}")
            if has and axis != 0:
                leaf = (jnp if isinstance(leaf, jax.Array) else np).moveaxis(leaf, axis, 0)
            leaves.append(leaf)
            split.append(has)
    return Rows(jax.tree.structure(tree), leaves, split)


def _rows_of_bounds(bounds, x0):
    """Of arrays in ``Bounds`` those with more axes than what they bound have rows."""
    bounds = of_scipy(bounds)
    if not isinstance(bounds, Bounds):
        return Rows(jax.tree.structure(0), [bounds], [False])
    plain = jax.tree.structure(x0) == jax.tree.structure(0)
    sides = [np.asarray(side) if plain and isinstance(side, (list, tuple)) else side for side in bounds]
    leaves, split = [], []
    trees = []
    for side in sides:
        flat, tree = jax.tree.flatten(side, is_leaf=lambda bound: bound is None)
        trees.append(tree)
        try:
            below = tree.flatten_up_to(x0)
        except (ValueError, TypeError):  # refused where the box is made
            below = [None] * len(flat)
        for bound, part in zip(flat, below):
            most = max((np.ndim(leaf) for leaf in jax.tree.leaves(part)), default=np.inf)
            leaves.append(bound)
            split.append(is_array(bound) and np.ndim(bound) > most)
    marks = [jax.tree.unflatten(tree, [0] * tree.num_leaves) for tree in trees]
    return Rows(jax.tree.structure(Bounds(*marks)), leaves, split)


def fed(call, given, method, linesearch, best_of):
    """The inputs of the solves, a ``Fed``, from the user's arguments and the ``Call`` of the first problem."""
    problem = call.problem
    leaves, fixed = list(problem.leaves), list(problem.fixed)
    rows_of_leaves, rows_of_fixed = [0] * len(leaves), [0] * len(fixed)
    if any(given.x0.split):  # else x0 may have been made one array
        seen = [0, 0]
        for leaf, split, group in zip(given.x0.leaves, given.x0.split, problem.x_static.skeleton()[1]):
            if group is None:
                continue
            values, rows = ((leaves, rows_of_leaves), (fixed, rows_of_fixed))[group]
            if split:
                values[seen[group]], rows[seen[group]] = leaf, 1
            seen[group] += 1

    arrays, rows_of_arrays = list(problem.arrays), [0] * len(problem.arrays)
    of_args = [both for both in zip(given.args.leaves, given.args.split) if problem.is_argument(both[0])]
    for i, (leaf, split) in enumerate(of_args, len(arrays) - len(of_args)):
        if split:
            arrays[i], rows_of_arrays[i] = leaf, best_of

    within, limits = call.box, call.limits
    rows_of_box = jax.tree.map(lambda _: 0, within)
    if any(given.bounds.split):
        within = given.bounds.each(lambda bounds: box(bounds, problem.variables, problem.x_static))
        rows_of_box = jax.tree.map(lambda _: best_of, within)
    rows_of_limits = jax.tree.map(lambda _: 0, limits)
    if any(given.settings.split):

        def of(settings):
            tol, options = settings
            chosen = choose(method, linesearch, tol, parse(options), within.bounded)
            return as_arrays(chosen[1], problem.variables)

        limits = given.settings.each(of)
        rows_of_limits = jax.tree.map(lambda _: best_of, limits)

    inputs = compiled.inputs(problem._replace(fixed=fixed, arrays=arrays), within)
    shared = jax.tree.map(lambda _: 0, inputs)
    rows_of_inputs = shared._replace(fixed=rows_of_fixed, arrays=rows_of_arrays, box=rows_of_box)
    flat, tree = jax.tree.flatten((leaves, inputs, limits))
    every = tuple(jax.tree.leaves((rows_of_leaves, rows_of_inputs, rows_of_limits)))
    problems, shared = ([leaf for leaf, n in zip(flat, every) if bool(n) == has] for has in (True, False))
    fixed = [
        leaf if has else np.broadcast_to(leaf, (given.starts, *np.shape(leaf)))
        for leaf, has in zip(fixed, rows_of_fixed)
    ]
    return Fed(tree, every, problems, shared, fixed)
