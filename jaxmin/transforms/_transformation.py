"""The type of a transformation, and what the optimizers share: a formula for one leaf is applied to all leaves."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from jaxmin._core import vector as vec
from jaxmin._core.pytree import check_tree
from jaxmin._core.typing import PyTree
from jaxmin.transforms._schedules import make_schedule


class Transformation(NamedTuple):
    """Optax's protocol: gradients in, updates out. The next point is ``params + updates``.

    ``init(params) -> state``, a pytree of arrays.
    ``update(grads, state, params=None, **extra) -> (updates, state)``; unused arguments are ignored.

    >>> import jax.numpy as jnp
    >>> from jaxmin.transforms import Transformation
    >>> halved = Transformation(lambda params: (), lambda grads, state, params=None, **extra: (grads / 2, state))
    >>> updates, state = halved.update(jnp.array([3.0, 4.0]), halved.init(jnp.zeros(2)))
    >>> print(updates)
    [1.5 2. ]
    """

    init: Callable[..., Any]
    update: Callable[..., Any]


def is_transformation(thing: Any) -> bool:
    """Whether it has Optax's two functions."""
    return callable(getattr(thing, "init", None)) and callable(getattr(thing, "update", None))


def taken(update: Callable[..., Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that an update accepts; its first three parameters are passed by position."""
    parameters = list(inspect.signature(update).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return extra
    names = [parameter.name for parameter in parameters[3:]]
    return {name: value for name, value in extra.items() if name in names}


def leafwise(
    State: Any, learning_rate: Any, start: Callable[[jax.Array], tuple[Any, ...]], step: Callable[..., tuple[Any, ...]]
) -> Transformation:
    """The transformation that applies one formula to every leaf.

    Args:
      State: a NamedTuple: the number of updates made, then fields built like params. The first of these
        holds one array for each leaf.
      learning_rate: a number, a traced scalar or a schedule.
      start: ``start(x) -> fields`` of a leaf x.
      step: ``step(eta, t, g, *fields) -> (update, *fields)``; eta is the rate at the iteration t - 1, and t counts
        from 1. Both are scalars of the dtype in which sums over g accumulate.

    Returns:
      A ``Transformation``. Its state has constant dtypes, and its updates have the dtypes of the gradients.
    """
    schedule = make_schedule(learning_rate)

    def init(params: PyTree) -> Any:
        leaves, tree = jax.tree.flatten(params)
        return State(jnp.zeros((), jnp.int32), *_by_field(tree, [start(x) for x in leaves], len(State._fields) - 1))

    def update(grads: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        del extra
        k, *fields = state
        check_tree("grads", grads, fields[0] if fields else params)
        leaves, tree = jax.tree.flatten(grads)
        leaves = [jnp.asarray(g, inexact_dtype(g)) for g in leaves]
        eta, of_leaf = schedule(k), [tree.flatten_up_to(field) for field in fields]

        rows = []
        for number, g in enumerate(leaves):
            dtype = vec.scalar_dtype(g)
            u, *new = step(jnp.asarray(eta, dtype), (k + 1).astype(dtype), g, *(field[number] for field in of_leaf))
            rows.append((u.astype(g.dtype), *new))
        updates, *new = _by_field(tree, rows, 1 + len(fields))
        return updates, State(k + 1, *jax.tree.map(lambda a, old: a.astype(old.dtype), new, fields))

    return Transformation(init, update)


def _by_field(tree: PyTreeDef, rows: Sequence[Sequence[Any]], count: int) -> list[PyTree]:
    """Turn rows, one per leaf, into fields, each with the structure of the tree."""
    return [tree.unflatten([row[number] for row in rows]) for number in range(count)]


def inexact_dtype(x: Any) -> np.dtype:
    """The dtype of x, or the default float dtype if x is an integer."""
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def zeros(x: Any) -> jax.Array:
    """Zeros like x, as the start of a moving average."""
    return jnp.zeros_like(x, dtype=inexact_dtype(x))


def real_zeros(x: Any) -> jax.Array:
    """Real zeros like x, of the same precision."""
    return jnp.zeros_like(x, dtype=jnp.finfo(inexact_dtype(x)).dtype)


def abs2(g: jax.Array) -> jax.Array:
    """The squared modulus of each element: real and never negative."""
    return jnp.square(g.real) + jnp.square(g.imag) if jnp.iscomplexobj(g) else jnp.square(g)


def quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def check_averages(**rates: float) -> None:
    """Raise unless each rate, the weight of the old value in a moving average, lies in [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"{name}={rate!r}: give a number in [0, 1)")


def check_eps(eps: float) -> None:
    """Raise unless eps may be added to a denominator."""
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps={eps!r}: give a finite number >= 0")


def check_mass(**masses: float) -> None:
    """Raise unless each is finite. Either sign is allowed: negative momentum is useful in games."""
    for name, mass in masses.items():
        if not abs(mass) < float("inf"):
            raise ValueError(f"{name}={mass!r}: give a finite number")
