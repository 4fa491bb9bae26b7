"""JAX's standard promotion of dtypes and ranks, for jaxmin's own code."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def standard(function: F) -> F:
    """The function with the standard promotions, also where the user's functions are traced with the strict ones.

    The user's functions are traced before, by themselves, in the user's own setting.
    """

    @functools.wraps(function)
    def promoted(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return promoted  # type: ignore[return-value]
