"""A method as an Optax transformation, for functions that need Optax's own types."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmin._core import vector as vec
from jaxmin._core.protocol import Method
from jaxmin._core.typing import PyTree, TransformationLike
from jaxmin.transforms._lookup import iterate
from jaxmin.transforms._transformation import is_transformation

if TYPE_CHECKING:
    import optax

# Loops for Optax pass the gradient. The other names have defaults.
_OFFERED = frozenset({"grad", "box", "set", "xtol", "ended"})


class AsOptaxState(NamedTuple):
    value: jax.Array  # [] inf: f at params, the next trial, is not known yet
    grad: PyTree  # like params: the gradient at the last accepted point
    inner: PyTree  # the method's state


def as_optax(method: TransformationLike) -> "optax.GradientTransformationExtraArgs":
    """A method, or a transformation of this package, as an ``optax.GradientTransformationExtraArgs``.

    Optax's ``chain`` and ``partition`` pass the value only to objects of that type. In a chain the method goes last.

    The state has a ``value`` and a ``grad``, which Optax looks up. The value is always inf, so
    ``optax.value_and_grad_from_state`` evaluates at the trial that it receives. The gradient is the one at the last
    accepted point, like params, for a test of its norm. In ``optax.partition`` both belong to one group only: evaluate
    with ``jax.value_and_grad`` there.

    Args:
      method: a ``Method`` (``jaxmin.lbfgs()``), or a transformation (``jaxmin.transforms.adam(0.1)``).

    Returns:
      An ``optax.GradientTransformationExtraArgs``. The ``update`` of a method needs ``value=``, the objective at
      params, a scalar of shape []. It raises a TypeError without; other keyword arguments are ignored.

    Raises:
      TypeError: if ``method`` is neither a method nor a transformation, or needs more or less than the value and the
        gradient (``trust_ncg``, ``nelder_mead``).
      ImportError: if Optax is not installed.

    >>> import jax, jax.numpy as jnp, jaxmin, optax
    >>> f = lambda x: jnp.sum((x - 3) ** 2)
    >>> tx, x = optax.chain(optax.identity(), jaxmin.as_optax(jaxmin.lbfgs())), jnp.zeros(2)
    >>> state = tx.init(x)
    >>> for _ in range(5):
    ...     value, grad = optax.value_and_grad_from_state(f)(x, state=state)
    ...     updates, state = tx.update(grad, state, x, value=value)
    ...     x = optax.apply_updates(x, updates)
    >>> jaxmin.iterate(state).x.round(3).tolist()
    [3.0, 3.0]
    """
    import optax

    if not is_transformation(method):
        raise TypeError(f"method={method!r}: a method or a transformation, such as jaxmin.lbfgs()")
    if not isinstance(method, Method):
        return optax.GradientTransformationExtraArgs(method.init, method.update)
    if "grad" not in method.wants or method.wants - _OFFERED:
        wants = ", ".join(sorted(method.wants)) or "only the value"
        raise TypeError(f"method={method!r}: it wants {wants}; a loop for Optax passes the value and the gradient")

    def init(params: PyTree) -> AsOptaxState:
        value = jnp.full((), jnp.inf, vec.scalar_dtype(params))
        return AsOptaxState(value, vec.zeros(params), method.init(params))

    def update(
        grads: PyTree, state: AsOptaxState, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> tuple[PyTree, AsOptaxState]:
        del extra
        if value is None or params is None:
            raise TypeError("value, params: a method needs both: tx.update(grads, state, params, value=value)")
        updates, inner = method.update(grads, state.inner, params, value=value)
        return updates, AsOptaxState(state.value, iterate(inner).g, inner)

    return optax.GradientTransformationExtraArgs(init, update)
