"""Names for the types that annotations use."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax

# Python's types cannot say that two pytrees are built alike. Comments on shapes and docstrings say it.
PyTree: TypeAlias = Any
# An array, or a pytree of arrays, that a method works on. "like x" means: with the same structure, shapes and dtypes.
Vector: TypeAlias = Any
# An array of shape [].
Scalar: TypeAlias = jax.Array
# One value of a single solve, or one for each lane of a batch: a Python value, or an array or a list of them.
PerLane: TypeAlias = Any
# ``T | MaybeNone``: T, or None for some methods. Type checkers allow its use as a T. (Typeshed has the same name.)
MaybeNone: TypeAlias = Any


class TransformationLike(Protocol):
    """An object with Optax's two functions: an optax.GradientTransformation, a jaxmin ``Transformation``."""

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def update(self) -> Callable[..., Any]: ...


# (init, update, get_params), as ``jax.example_libraries.optimizers`` makes them.
Triple: TypeAlias = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]
