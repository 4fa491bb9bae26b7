"""A warm start: a solve that begins with the inverse Hessian, or the multipliers, of an earlier result."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache.registry import methods_that
from jaxmin._core.inverse_hessian import Compact, Core, Dense, InverseHessian, Unlimited
from jaxmin._core.kkt import Multipliers
from jaxmin._core.variables import Variables
from jaxmin._problem.constraints import joined_leaves
from jaxmin._problem.objective import Problem

_NAME = "options['warm_start']"


def warm(earlier: Any, method: Any, problem: Problem) -> Core | Multipliers:
    """What ``method.warm_start`` takes of an earlier result: its inverse Hessian, or with constraints its multipliers.

    Args:
      earlier: the value of ``options["warm_start"]``: any object with ``hess_inv``, or with ``v``.
      method: a ``Method`` or a ``Foreign``.
      problem: the ``Problem`` to solve.

    Raises:
      TypeError, ValueError: if it does not fit; the message names options["warm_start"].
    """
    if getattr(method, "warm_start", None) is None:
        raise ValueError(
            f"{_NAME}: this method cannot begin with an earlier result; 'bfgs' and 'lbfgs' begin with its hess_inv, "
            "methods for constraints with its multipliers v"
        )
    return _multipliers(earlier, problem) if "constraints" in method.wants else _inverse(earlier, problem.variables)


def _multipliers(earlier: Any, problem: Problem) -> Multipliers:
    """The multipliers of an earlier result."""
    v = getattr(earlier, "v", None)
    if not isinstance(v, (list, tuple)):
        raise TypeError(f"{_NAME}={earlier!r}: give a result of a solve with constraints; its v are the multipliers")
    *of_rows, of_bounds = v
    shapes, variables = problem.trace.shapes, problem.variables
    leaves = list(map(jnp.asarray, jax.tree.leaves(of_rows)))
    wanted = [shape for each in shapes for shape in each.shapes]
    if [leaf.shape for leaf in leaves] != wanted:
        raise ValueError(f"{_NAME}: multipliers of shapes {[u.shape for u in leaves]}, and constraints of {wanted}")
    w = list(map(jnp.asarray, jax.tree.leaves(of_bounds)))
    if [leaf.shape for leaf in w] != [shape for shape, _ in variables.shapes]:
        raise ValueError(f"{_NAME}: a result of an x of shapes {[u.shape for u in w]}, and an x0 of others")
    return Multipliers(joined_leaves(leaves, variables.dtype), joined_leaves(w, variables.dtype))


def _inverse(earlier: Any, variables: Variables) -> Core:
    """The inverse Hessian of an earlier result."""
    name = _NAME
    if not hasattr(earlier, "hess_inv"):
        raise TypeError(f"{name}={earlier!r}: give a result of minimize")
    H = earlier.hess_inv
    if H is None:
        raise ValueError(f"{name}: the result has no hess_inv; results of {those_with_curvature()} have one")
    if isinstance(H, InverseHessian):
        core = H.core(f"{name}: its hess_inv")
    elif isinstance(H, (jax.Array, np.ndarray)):
        if H.ndim != 2 or H.shape[0] != H.shape[1]:
            raise ValueError(f"{name}: a hess_inv of shape {list(H.shape)}, not [n, n]; of a batch, vmap over results")
        core = Dense(jnp.asarray(H))
    else:
        raise TypeError(f"{name}: a hess_inv that is a {type(H).__name__}, not an array or jaxmin.InverseHessian")
    if core.size != variables.size:
        raise ValueError(f"{name}: a result of {core.size} variables for an x0 of {variables.size}")
    shapes = [u.shape[1:] for u in jax.tree.leaves(core.S)] if isinstance(core, Compact) else None
    if isinstance(core, Unlimited):
        shapes = [(core.size,)]
    if shapes is not None:
        like = jax.tree.leaves(variables.from_array(np.empty(variables.size, variables.dtype)))
        if shapes != [u.shape for u in like]:
            form = "a tuple of the leaves of x0" if not variables.flat else "one flat vector"
            raise ValueError(f"{name}: its hess_inv is for arrays of shapes {shapes}, and this solve works on {form}")
    return jax.tree.map(lambda u: u if jnp.issubdtype(u.dtype, jnp.integer) else u.astype(variables.dtype), core)


def those_with_curvature() -> str:
    """The methods whose results have ``hess_inv``, in words."""
    return " and ".join(map(repr, methods_that(lambda method: method.inverse_hessian is not None)))
