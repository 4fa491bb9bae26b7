"""Second derivatives by hand: the arguments hess and hessp, and checks of the values that they return."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxmin._core.frames import stacklevel
from jaxmin._core.protocol import SECOND_ORDER
from jaxmin._core.pytree import Static
from jaxmin._core.typing import PyTree

Derivative: TypeAlias = Callable[..., Any]  # the user's hess or hessp


def checked(hess: Any, hessp: Any) -> tuple[Derivative | None, Derivative | None]:
    """Both arguments, as functions or None; raise for anything else."""
    for name, given, call in (("hess", hess, "hess(x, *args)"), ("hessp", hessp, "hessp(x, p, *args)")):
        if not (given is None or given is False or callable(given)):
            raise ValueError(
                f"{name}={given!r}: a callable {call}, or None (automatic differentiation, which is exact: finite "
                "differences and updates cannot beat it)"
            )
    return hess or None, hessp or None


def is_learnt(hess: Any) -> bool:
    """Whether ``hess`` asks for an approximation: "bfgs", or an update strategy of SciPy."""
    return (isinstance(hess, str) and hess.lower() == "bfgs") or (
        hasattr(hess, "initialize") and hasattr(hess, "update")
    )


def used(
    wants: frozenset[str], method: Any, hess: Derivative | None, hessp: Derivative | None
) -> tuple[Derivative | None, Derivative | None]:
    """(hess, hessp) with only the function that the method uses; SciPy's warning if it uses neither."""
    if "lagrangian_hessian" in wants and hessp is None:
        return hess, None
    if not wants & SECOND_ORDER or "gauss_newton" in wants:
        for name, given in (("hess", hess), ("hessp", hessp)):
            if given is not None:
                text = f"Method {method} does not use Hessian information ({name})."
                warnings.warn(text, RuntimeWarning, stacklevel=stacklevel())
        return None, None
    if "hv" in wants:
        return (None, hessp) if hessp is not None else (hess, None)
    return (hess, None) if hess is not None else (None, hessp)


def as_matrix(H: PyTree, leaves: Sequence[jax.Array], x_static: Static) -> jax.Array:
    """The user's Hessian as one symmetric matrix; H has a block for each pair of leaves, as in ``jax.hessian``."""
    if any(jnp.iscomplexobj(leaf) for leaf in leaves):
        raise TypeError("hess: x0 is complex, and its Hessian is not one complex matrix; give hessp, or omit both")
    if jax.tree_util.treedef_is_leaf(x_static.treedef):
        H = _as_array("hess", H)
        blocks = [[H]]
    else:
        try:
            blocks = [[_as_array("hess", block) for block in x_static.pick(row)] for row in x_static.pick(H)]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"hess: a Hessian built as {jax.tree.structure(H)} for x0 built as {x_static.treedef}; return what "
                "jax.hessian does, a tree like x0 whose parts are trees like x0"
            ) from error
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*leaves)
    rows = []
    for a, row in zip(leaves, blocks):
        for b, block in zip(leaves, row):
            if block.shape != a.shape + b.shape:
                raise ValueError(
                    f"hess: a Hessian of shape {block.shape} for parts of x0 of shapes {a.shape} and {b.shape}; "
                    f"{a.shape + b.shape} is expected"
                )
            if jnp.iscomplexobj(block):
                raise TypeError(f"hess: a complex Hessian ({block.dtype}) for a real x0")
        sides = [(math.prod(a.shape), math.prod(b.shape)) for b in leaves]
        rows.append([block.reshape(side).astype(dtype) for block, side in zip(row, sides)])
    H = jnp.block(rows)
    return (H + H.T) / 2


def _as_array(name: str, value: Any) -> jax.Array:
    try:
        return jnp.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: it must return an array of numbers, not {type(value).__name__}") from error
