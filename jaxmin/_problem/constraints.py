"""The user's constraints: checked, traced beside fun, and joined to one vector of rows."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.kkt import Rows
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import any_traced, is_array, is_number
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables


@jax.tree_util.register_pytree_with_keys_class
class NonlinearConstraint:
    """lb <= fun(x) <= ub, as ``scipy.optimize.NonlinearConstraint``; a pytree.

    Args:
      fun: ``fun(x)``, written with ``jax.numpy``, of an x built like x0. It returns a number, an array, or a pytree of
        arrays. The arrays of a callable pytree (``jax.tree_util.Partial``, an Equinox module) may be traced and
        batched.
      lb, ub: the limits: numbers, arrays that broadcast to what fun returns, or pytrees of these, built like it or like
        the top of its tree. Infinite limits are no limits; the defaults are -inf and inf. Equal limits make an
        equality. Limits may be traced and batched.
      jac: None (default) differentiates fun. A callable ``jac(x)`` returns what ``jax.jacobian(fun)(x)`` does.
      hess: None (default) differentiates. A callable ``hess(x, v)`` returns the Hessian of v . fun at an x that is an
        array, of shape [n, n], with a v like fun(x).
      keep_feasible: False only.

    Raises:
      TypeError, ValueError, NotImplementedError: from ``minimize``, for an argument that is not right.

    >>> import jax.numpy as jnp, jaxmin
    >>> disk = jaxmin.NonlinearConstraint(lambda x: x @ x, ub=1.0)
    >>> res = jaxmin.minimize(lambda x: jnp.sum((x - 2) ** 2), [0.1, 0.2], constraints=disk)
    >>> res.success, res.x.round(3).tolist(), res.v[0].round(3).tolist()
    (True, [0.707, 0.707], 1.828)
    """

    def __init__(
        self, fun: Callable[..., Any], lb: PyTree = -np.inf, ub: PyTree = np.inf, jac: Callable[..., Any] | None = None,
        hess: Callable[..., Any] | None = None, keep_feasible: bool = False,
    ) -> None:  # fmt: skip
        self.fun, self.lb, self.ub, self.jac, self.hess, self.keep_feasible = fun, lb, ub, jac, hess, keep_feasible

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        names = ("fun", "lb", "ub", "jac", "hess")
        children = [_as_node(getattr(self, name)) for name in names]
        return [(jax.tree_util.GetAttrKey(name), child) for name, child in zip(names, children)], self.keep_feasible

    @classmethod
    def tree_unflatten(cls, keep_feasible: Any, children: Any) -> "NonlinearConstraint":
        new = object.__new__(cls)
        new.__init__(*children, keep_feasible)  # type: ignore[misc]
        return new

    def __repr__(self) -> str:
        return f"NonlinearConstraint({self.fun!r}, lb={self.lb!r}, ub={self.ub!r})"


@jax.tree_util.register_pytree_with_keys_class
class LinearConstraint:
    """lb <= A x <= ub, as ``scipy.optimize.LinearConstraint``; a pytree.

    Args:
      A: an array [m, n], or [n] for one row, for an x0 of n numbers in C order. It may be traced and batched.
      lb, ub: the limits, numbers or arrays [m]; -inf and inf by default. Equal limits make an equality.
      keep_feasible: False only.

    Raises:
      TypeError, ValueError, NotImplementedError: from ``minimize``, for an argument that is not right.

    >>> import jax.numpy as jnp, jaxmin
    >>> shares = jaxmin.LinearConstraint(jnp.ones((1, 3)), lb=1.0, ub=1.0)
    >>> res = jaxmin.minimize(lambda x: x @ x, jnp.zeros(3), constraints=[shares])
    >>> res.x.round(3).tolist()
    [0.333, 0.333, 0.333]
    """

    def __init__(self, A: Any, lb: Any = -np.inf, ub: Any = np.inf, keep_feasible: bool = False) -> None:
        self.A, self.lb, self.ub, self.keep_feasible = A, lb, ub, keep_feasible

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        names = ("A", "lb", "ub")
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], self.keep_feasible

    @classmethod
    def tree_unflatten(cls, keep_feasible: Any, children: Any) -> "LinearConstraint":
        new = object.__new__(cls)
        new.__init__(*children, keep_feasible)  # type: ignore[misc]
        return new

    def __repr__(self) -> str:
        return f"LinearConstraint({self.A!r}, lb={self.lb!r}, ub={self.ub!r})"


def _as_node(function: Any) -> Any:
    """A function as a pytree whose leaves are arrays."""
    if not callable(function) or not jax.tree_util.all_leaves([function]):
        return function
    return jax.tree_util.Partial(function)


class ScipyConstraint(Protocol):
    """An object with the attributes of SciPy's constraints."""

    @property
    def lb(self) -> Any: ...

    @property
    def ub(self) -> Any: ...


# One constraint: ours, SciPy's, or SciPy's dictionary.
ConstraintLike: TypeAlias = NonlinearConstraint | LinearConstraint | ScipyConstraint | Mapping[str, Any]
ConstraintsLike: TypeAlias = ConstraintLike | Sequence[ConstraintLike]


class Part(NamedTuple):
    """One constraint, checked: a function, or a matrix A."""

    fun: Any = None
    jac: Any = None
    hess: Any = None
    args: tuple[Any, ...] = ()
    A: Any = None


class Constraints(NamedTuple):
    """All constraints of a call: what is traced, and the limits, each as given."""

    parts: tuple[Part, ...]
    limits: tuple[tuple[Any, Any], ...]  # (lb, ub) of each


NO_CONSTRAINTS = Constraints((), ())


class Shape(NamedTuple):
    """What one constraint returns."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]  # of its leaves

    @property
    def size(self) -> int:
        return sum(map(math.prod, self.shapes))


# ---- arguments


def checked(constraints: Any) -> Constraints | None:
    """The argument ``constraints`` of minimize; None if there are none.

    Raises:
      TypeError, ValueError, NotImplementedError: for a constraint that is not right; the message names it.
    """
    if constraints is None:
        return None
    one = isinstance(constraints, Mapping) or _is_object(constraints)
    if not one and not isinstance(constraints, (list, tuple)):
        raise TypeError(f"constraints={constraints!r}: {_FORMS}")
    given = [constraints] if one else list(constraints)
    if not given:
        return None
    parts, limits = zip(*(_checked(f"constraints[{i}]", each) for i, each in enumerate(given)))
    return Constraints(parts, limits)


_FORMS = (
    "give NonlinearConstraint(fun, lb, ub), LinearConstraint(A, lb, ub), SciPy's dictionary {'type': 'eq' or 'ineq', "
    "'fun': ...}, or a list of these"
)


def _is_object(constraint: Any) -> bool:
    return hasattr(constraint, "lb") and hasattr(constraint, "ub")


def _checked(name: str, constraint: Any) -> tuple[Part, tuple[Any, Any]]:
    if isinstance(constraint, Mapping):
        return _of_dictionary(name, constraint)
    if not _is_object(constraint) or not (hasattr(constraint, "A") or hasattr(constraint, "fun")):
        raise TypeError(f"{name}={constraint!r}: {_FORMS}")
    if np.any(getattr(constraint, "keep_feasible", False)):
        raise NotImplementedError(
            f"{name}: keep_feasible=True is not offered. Only bounds are kept at every point: write the limit as "
            "bounds, or return NaN from fun outside; such points are rejected"
        )
    limits = constraint.lb, constraint.ub
    if hasattr(constraint, "A"):
        return Part(A=_as_matrix(name, constraint.A)), limits
    ours = isinstance(constraint, NonlinearConstraint)
    # SciPy's defaults are finite differences and an approximate Hessian, for lack of automatic differentiation.
    jac = None if not ours and constraint.jac == "2-point" else constraint.jac
    hess = constraint.hess if ours or callable(constraint.hess) else None
    return Part(constraint.fun, _derivative(name, "jac", jac), _derivative(name, "hess", hess)), limits


def _of_dictionary(name: str, given: Mapping[str, Any]) -> tuple[Part, tuple[Any, Any]]:
    unknown = given.keys() - {"type", "fun", "jac", "args"}
    if unknown:
        raise ValueError(f"{name}: unknown {', '.join(map(repr, unknown))}; it has 'type', 'fun', 'jac', 'args'")
    kind = str(given.get("type")).lower()
    if kind not in ("eq", "ineq"):
        raise ValueError(f"{name}: its 'type' is {given.get('type')!r}; give 'eq' for fun = 0, or 'ineq' for fun >= 0")
    if not callable(given.get("fun")):
        raise TypeError(f"{name}: its 'fun' is {given.get('fun')!r}; give a callable, fun(x, *args)")
    args = given.get("args", ())
    args = args if isinstance(args, tuple) else (args,)
    jac = _derivative(name, "jac", given.get("jac"))
    return Part(given["fun"], jac, None, args), (0.0, 0.0 if kind == "eq" else np.inf)


def _derivative(name: str, which: str, given: Any) -> Any:
    if given is None or callable(given):
        return given
    raise ValueError(
        f"{name}: its {which} is {given!r}; give a callable, or omit it: automatic differentiation is exact, and "
        "finite differences and updates cannot beat it"
    )


def _as_matrix(name: str, A: Any) -> Any:
    if hasattr(A, "todense") or hasattr(A, "toarray"):
        raise TypeError(
            f"{name}: A is sparse; give A.toarray(), or a NonlinearConstraint with "
            "fun=lambda x: S @ x, where S = jax.experimental.sparse.BCOO.from_scipy_sparse(A)"
        )
    if not isinstance(A, jax.Array):
        A = np.asarray(A)
    if A.ndim not in (1, 2) or not (np.issubdtype(A.dtype, np.number) or A.dtype == bool):
        raise ValueError(f"{name}: A has the shape {A.shape} and the dtype {A.dtype}; give numbers [m, n]")
    return A.reshape(1, -1) if A.ndim == 1 else A


# ---- what is traced: functions of the leaves of x, by ``of_leaves(leaves) -> x``


def shape_of(part: Part, of_leaves: Callable[..., Any], leaves: Any) -> Shape:
    """What a constraint returns."""
    if part.A is not None:
        return Shape(jax.tree.structure(0), ((part.A.shape[0],),))
    out = jax.eval_shape(lambda leaves: part.fun(of_leaves(leaves), *part.args), leaves)
    shapes, tree = jax.tree.flatten(out)
    if any(leaf.dtype == bool for leaf in shapes):
        raise TypeError("fun: a constraint returns a number, and not whether it holds; for a <= b write b - a >= 0")
    return Shape(tree, tuple(leaf.shape for leaf in shapes))


def values(part: Part, of_leaves: Callable[..., Any], variables: Variables, leaves: Any) -> jax.Array:
    """c [m] of one constraint."""
    if part.A is not None:
        return jnp.asarray(part.A, variables.dtype) @ variables.ravel(leaves)
    out = jax.tree.leaves(part.fun(of_leaves(leaves), *part.args))
    return joined_leaves([jnp.asarray(leaf) for leaf in out], variables.dtype)


def joined_leaves(leaves: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """Arrays as one vector."""
    return jnp.concatenate([jnp.zeros(0, dtype), *(leaf.reshape(-1).astype(dtype) for leaf in leaves)])


def with_jacobian(
    part: Part, of_leaves: Callable[..., Any], variables: Variables, leaves: Any
) -> tuple[jax.Array, jax.Array]:
    """(c [m], J [m, n]) of one constraint; J by rows or by columns, whichever are fewer."""
    of = lambda leaves: values(part, of_leaves, variables, leaves)
    if part.A is not None:
        return of(leaves), jnp.asarray(part.A, variables.dtype)
    if part.jac is not None:
        return of(leaves), _by_hand(part, of_leaves, variables, leaves)
    c, pull = jax.vjp(of, leaves)
    if c.size <= variables.size:
        rows = jax.vmap(lambda v: _gradient(variables, pull(v)[0]))(jnp.eye(c.size, dtype=c.dtype))
        return c, rows
    push = lambda v: jax.jvp(of, (leaves,), (variables.unravel(v),))[1]
    return c, jax.vmap(push, out_axes=-1)(jnp.eye(variables.size, dtype=variables.dtype))


def _by_hand(part: Part, of_leaves: Callable[..., Any], variables: Variables, leaves: Any) -> jax.Array:
    shape = shape_of(part, of_leaves, leaves)
    given = part.jac(of_leaves(leaves), *part.args)
    wide = [(size, leaf.size) for size in map(math.prod, shape.shapes) for leaf in leaves]
    blocks = [jnp.asarray(block, variables.dtype) for block in jax.tree.leaves(given)]
    try:
        blocks = [block.reshape(size) for block, size in zip(blocks, wide, strict=True)]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"constraints: a jac of shapes {[block.shape for block in blocks]} for a fun of shapes "
            f"{list(shape.shapes)} and parts of x0 of shapes {[leaf.shape for leaf in leaves]}; return what "
            "jax.jacobian(fun) does"
        ) from error
    rows = [blocks[i : i + len(leaves)] for i in range(0, len(blocks), len(leaves))]
    return jnp.block(rows)


def joined(parts: Sequence[Part], of_leaves: Callable[..., Any], variables: Variables, leaves: Any) -> list[jax.Array]:
    """[c [m], J [m, n]] of all constraints."""
    none = jnp.zeros(0, variables.dtype), jnp.zeros((0, variables.size), variables.dtype)
    both = [none, *(with_jacobian(part, of_leaves, variables, leaves) for part in parts)]
    return [jnp.concatenate(each) for each in zip(*both)]


def with_pulls(
    parts: Sequence[Part], of_leaves: Callable[..., Any], variables: Variables, leaves: Any
) -> tuple[jax.Array, list[Any]]:
    """(c [m], pulls) of all constraints; pulls is a pytree for :func:`pulled`. J is not formed."""
    both = [_with_pull(part, of_leaves, variables, leaves) for part in parts]
    return jnp.concatenate([jnp.zeros(0, variables.dtype), *(c for c, _ in both)]), [pull for _, pull in both]


def _with_pull(part: Part, of_leaves: Callable[..., Any], variables: Variables, leaves: Any) -> tuple[jax.Array, Any]:
    of = lambda leaves: values(part, of_leaves, variables, leaves)
    if part.jac is not None:
        return of(leaves), jax.tree_util.Partial(_of_matrix, _by_hand(part, of_leaves, variables, leaves))
    c, pull = jax.vjp(of, leaves)
    return c, jax.tree_util.Partial(_of_vjp, pull)


def _of_matrix(J: jax.Array, variables: Variables, u: jax.Array) -> jax.Array:
    del variables
    return u @ J


def _of_vjp(pull: Any, variables: Variables, u: jax.Array) -> jax.Array:
    return _gradient(variables, pull(u)[0])


def pulled(pulls: Sequence[Any], shapes: Sequence[Shape], variables: Variables, u: jax.Array) -> jax.Array:
    """J^T u [n]."""
    total, start = jnp.zeros(variables.size, variables.dtype), 0
    for pull, shape in zip(pulls, shapes):
        total += pull(variables, u[start : start + shape.size])
        start += shape.size
    return total


def hessian_of(gradient: Callable[..., jax.Array], variables: Variables, leaves: Any) -> jax.Array:
    """The Hessian [n, n] of a function whose gradient [n] at leaves is given."""
    push = lambda v: jax.jvp(gradient, (leaves,), (variables.unravel(v),))[1]
    H = jax.vmap(push)(jnp.eye(variables.size, dtype=variables.dtype))
    return (H + H.T) / 2


def hessian_of_rows(
    parts: Sequence[Part], shapes: Sequence[Shape], of_leaves: Callable[..., Any], variables: Variables, leaves: Any,
    v: jax.Array,
) -> jax.Array:  # fmt: skip
    """The Hessian [n, n] of v . c."""
    H, start = jnp.zeros((variables.size, variables.size), variables.dtype), 0
    for part, shape in zip(parts, shapes):
        own = v[start : start + shape.size]
        start += shape.size
        if part.hess is not None:
            given = jnp.asarray(part.hess(of_leaves(leaves), as_returned(own, [shape])[0], *part.args), H.dtype)
            H += (given + given.T) / 2
        elif part.A is None:
            H += hessian_of(functools.partial(_pulled, part, of_leaves, variables, own), variables, leaves)
    return H


def _pulled(part: Part, of_leaves: Callable[..., Any], variables: Variables, v: jax.Array, leaves: Any) -> jax.Array:
    """J^T v [n] of one constraint."""
    _, pull = _with_pull(part, of_leaves, variables, leaves)
    return pull(variables, v)


def _gradient(variables: Variables, leaves: Sequence[jax.Array]) -> jax.Array:
    """The vector of a gradient's leaves, which JAX gives conjugated."""
    return variables.ravel([leaf.conj() for leaf in leaves])


# ---- limits


@standard
def rows(constraints: Constraints, shapes: Sequence[Shape], variables: Variables) -> Rows:
    """The limits of all constraints, in the dtype of the solve; c is 0.

    Raises:
      TypeError, ValueError: for limits that are not right; the message names them.
    """
    sides: list[list[Any]] = [[], []]
    for i, ((low, high), shape) in enumerate(zip(constraints.limits, shapes)):
        for side, name, limit in zip(sides, ("lb", "ub"), (low, high)):
            side.append(_spread(f"constraints[{i}]: {name}", limit, shape))
    lower, upper = (_end_to_end(side, variables.dtype) for side in sides)
    if not any_traced((lower, upper)) and not bool(np.all(np.asarray(lower) <= np.asarray(upper))):
        raise ValueError(f"constraints: a lower limit is above its upper limit, or NaN: lb {lower}, ub {upper}")
    return Rows(jnp.zeros(lower.shape, variables.dtype), lower, upper)


def _end_to_end(side: Sequence[Any], dtype: Any) -> Any:
    leaves = [leaf for part in side for leaf in part]
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return joined_leaves([jnp.asarray(leaf) for leaf in leaves], dtype)
    return np.concatenate([np.zeros(0, dtype), *(np.reshape(leaf, -1).astype(dtype) for leaf in leaves)])


def _spread(name: str, side: PyTree, shape: Shape) -> list[Any]:
    """The limits of one side of a constraint: an array in the shape of each leaf that fun returns."""
    like = jax.tree.unflatten(shape.tree, [jax.ShapeDtypeStruct(s, float) for s in shape.shapes])
    if jax.tree_util.treedef_is_leaf(shape.tree) and isinstance(side, (list, tuple)):
        side = jnp.stack(list(map(jnp.asarray, side))) if any_traced(side) else np.asarray(side)
    above, tree = jax.tree.flatten(side)
    try:
        below = tree.flatten_up_to(like)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is built as {tree}, and fun returns {jax.tree.structure(like)}") from error
    leaves: list[Any] = []
    for limit, part in zip(above, below):
        if not (is_number(limit) or is_array(limit)) or np.iscomplexobj(limit):
            raise TypeError(f"{name} holds {limit!r}; give real numbers")
        for leaf in jax.tree.leaves(part):
            xp: Any = jnp if isinstance(limit, jax.Array) else np
            try:
                leaves.append(xp.broadcast_to(limit, leaf.shape))
            except ValueError:
                raise ValueError(f"{name} has the shape {np.shape(limit)}, and fun returns {leaf.shape}") from None
    return leaves


def as_returned(vector: Any, shapes: Sequence[Shape]) -> list[PyTree]:
    """A vector [m], with any leading axes, as what the constraints return: a list with one entry for each."""
    parts, start = [], 0
    for shape in shapes:
        leaves = []
        for of_leaf in shape.shapes:
            stop = start + math.prod(of_leaf)
            leaves.append(vector[..., start:stop].reshape(*vector.shape[:-1], *of_leaf))
            start = stop
        parts.append(jax.tree.unflatten(shape.tree, leaves))
    return parts


def multipliers(v: jax.Array, rows: Rows, shapes: Sequence[Shape]) -> jax.Array | None:
    """v as SciPy's SLSQP has it: first the equalities, then the inequalities, in f - lambda . c with c >= 0.

    A row with two limits has two entries. The form depends on the limits, so it is None where these are traced.
    """
    if any_traced((rows.lower, rows.upper)) or np.ndim(rows.lower) != 1:
        return None
    lower, upper = np.asarray(rows.lower), np.asarray(rows.upper)
    equal, order = lower == upper, list[np.ndarray]()
    sides = ~equal & np.isfinite(lower), ~equal & np.isfinite(upper)
    start = 0
    for shape in shapes:
        here = np.arange(start, start + shape.size)
        order += [here[side[here]] for side in sides]
        start += shape.size
    at = np.concatenate([np.flatnonzero(equal), *order])
    sign = np.concatenate(
        [np.full(equal.sum(), 0), *(np.full(part.size, i % 2 * 2 - 1) for i, part in enumerate(order))]
    )
    u = v[..., at.astype(int)]
    side = jnp.broadcast_to(jnp.asarray(sign, u.dtype), u.shape)
    return jnp.where(side == 0, -u, jnp.maximum(u * side, 0))
