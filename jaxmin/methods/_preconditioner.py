"""A preconditioner as the user writes it: a function r -> M^-1 r."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec


def known(*names: str) -> Callable[[Any], Any]:
    """A converter that lets None, a function and these names pass, and raises ValueError for all else."""

    def convert(value: Any) -> Any:
        if value is None or callable(value) or (isinstance(value, str) and value in names):
            return value
        choices = "".join(f"{name!r}, " for name in names)
        raise ValueError(f"preconditioner={value!r}: give None, {choices}or a function r -> M^-1 r")

    return convert


def given(preconditioner: Callable[[Any], Any], r: Any) -> Any:
    """What the user's function returns, in the dtypes of r; raises TypeError if it is not a vector like r."""
    shapes = lambda v: (jax.tree.structure(v), [jnp.shape(u) for u in jax.tree.leaves(v)])
    y = preconditioner(r)
    if shapes(y) != shapes(r):
        found = jax.tree.map(jnp.shape, y)
        raise TypeError(f"preconditioner returned shapes {found}; it must return M^-1 r, with the shapes of r")
    return jax.tree.map(lambda u, v: jnp.asarray(u).astype(v.dtype), y, r)


def usable(y: Any, ry: Any, r: Any, rr: Any) -> tuple[Any, Any]:
    """y = M^-1 r and the product r y; r and r r instead where r y is not positive, so that M is not."""
    sound = (ry > 0) & (ry < jnp.inf)
    return vec.where(sound, y, r), jnp.where(sound, ry, rr)
