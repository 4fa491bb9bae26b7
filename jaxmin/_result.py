"""How a solve ended (Status) and what it found (OptimizeResult)."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._partition import is_array, partition


class Status(NamedTuple):
    """One way for a solve to end."""

    code: int
    sentence: str  # may name {gnorm}, {fun}, {ulp}: the figures of the returned point
    success: bool = False


RUNNING = -1
CONVERGED = 0
MAXITER = 1
PRECISION_LOSS = 2
NAN = 3
FTOL = 4
XTOL = 5
MAXFUN = 6
PRECISION_FLOOR = 7
SEARCH_FAILED = 8
UNBOUNDED = 9
CALLBACK = 99

_ROWS = (
    Status(RUNNING, "The solve has not ended."),
    Status(CONVERGED, "Converged: the gradient norm {gnorm:.3g} is within gtol.", success=True),
    Status(MAXITER, "Stopped: maxiter iterations were made; the gradient norm is {gnorm:.3g}."),
    Status(
        PRECISION_LOSS,
        "Stopped by rounding with the gradient norm at {gnorm:.3g}, above gtol * max(1, |fun|): the decrease "
        "still to be expected is below what fun = {fun:.8g} resolves ({ulp:.1g}). Try float64, or a scaling "
        "of fun and x near 1.",
    ),
    Status(NAN, "Stopped: fun or its gradient is NaN or infinite at the returned point."),
    Status(FTOL, "Converged: the relative decrease of fun is within ftol.", success=True),
    Status(XTOL, "Converged: the relative change of x is within xtol.", success=True),
    Status(MAXFUN, "Stopped: maxfun evaluations were made; the gradient norm is {gnorm:.3g}."),
    Status(
        PRECISION_FLOOR,
        "Converged to rounding: the gradient norm {gnorm:.3g} is within gtol * max(1, |fun|), and the decrease "
        "still to be expected is below what fun = {fun:.8g} resolves ({ulp:.1g}).",
        success=True,
    ),
    Status(
        SEARCH_FAILED,
        "Stopped: the line search found no lower point, along steepest descent neither; the gradient norm is "
        "{gnorm:.3g}. Is the gradient right and fun smooth here?",
    ),
    Status(UNBOUNDED, "Stopped: fun is unbounded below; it reached -inf."),
    Status(CALLBACK, "Stopped: callback asked for it."),
)
STATUS = {row.code: row for row in _ROWS}


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, repr=False)
class OptimizeResult:
    """What a solve found: a pytree that reads like SciPy's result (``res.x``, ``res["x"]``, ``res.keys()``).

    Fields (each with a leading batch axis under ``vmap``):

    - ``x``: the point returned, like x0.
    - ``fun``: the objective there, a scalar.
    - ``jac``: the gradient there, like x0 (None for leaves that do not vary), in ``jax.grad``'s convention.
    - ``nit``: iterations: points accepted after x0.
    - ``nfev``, ``njev``: evaluations of the objective and of its gradient.
    - ``status``: an integer, a row of ``jaxmin.STATUS``.
    - ``hess_inv``: the approximate inverse Hessian of a quasi-Newton method, else None: an array for
      ``bfgs`` on an array x0, else an operator (``@``, ``todense()``, ``diagonal()``).
    - ``aux``: what fun returned beside its value at x (``has_aux=True``), else None.

    ``success`` and ``message`` follow from the status: one for a single solve, one a lane for a batch.
    """

    x: Any
    fun: Any
    jac: Any
    nit: Any
    nfev: Any
    njev: Any
    status: Any
    hess_inv: Any = None
    aux: Any = None

    @property
    def success(self):
        """Whether the stopping test that the status names held at x."""
        wins = [code for code, row in STATUS.items() if row.success]
        if isinstance(self.status, jax.core.Tracer):
            return jnp.isin(self.status, jnp.asarray(wins))
        won = np.isin(np.asarray(self.status), wins)
        return bool(won) if won.ndim == 0 else won

    @property
    def message(self):
        """The status in words, with the figures of the point returned; nested lists for a batch."""
        if isinstance(self.status, jax.core.Tracer):
            raise TypeError("res.message: text cannot come out of a traced function; read it outside jit and vmap")
        status = np.asarray(self.status)
        fun = np.asarray(self.fun)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.jac)]
        gnorm = np.zeros(status.shape)
        for leaf in leaves:
            lanes = np.abs(leaf.reshape(*status.shape, -1)).astype(float)
            gnorm = np.maximum(gnorm, lanes.max(axis=-1, initial=0))

        def sentence(index):
            f = fun[index]
            ulp = float(jnp.finfo(fun.dtype).eps) * abs(float(f))
            row = STATUS[int(status[index])]
            return row.sentence.format(gnorm=float(gnorm[index]), fun=float(f), ulp=ulp)

        def nested(index, shape):
            if not shape:
                return sentence(index)
            return [nested((*index, i), shape[1:]) for i in range(shape[0])]

        return nested((), status.shape)

    def keys(self):
        """The names of what there is: fields that are not None, ``success`` and ``message``."""
        present = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]
        return [*present, "success", "message"]

    def __getitem__(self, key):
        if key not in self.keys():
            raise KeyError(f"{key!r}: the result holds {', '.join(self.keys())}")
        return getattr(self, key)

    def __contains__(self, key):
        return key in self.keys()

    def __iter__(self):
        return iter(self.keys())

    def get(self, key, default=None):
        """``res[key]``, or the default where the result has no such entry."""
        return self[key] if key in self else default

    def values(self):
        """The entries, in the order of ``keys()``."""
        return [self[key] for key in self.keys()]

    def items(self):
        """(name, entry) pairs, in the order of ``keys()``."""
        return [(key, self[key]) for key in self.keys()]

    def __repr__(self):
        order = ["message", "success", "status", "fun", "x", "nit", "jac", "nfev", "njev", "hess_inv", "aux"]
        if isinstance(self.status, jax.core.Tracer):
            order.remove("message")
        width = max(map(len, order))
        lines = []
        for name in (name for name in order if getattr(self, name) is not None):
            text = _readable(getattr(self, name)).replace("\n", "\n" + " " * (width + 2))
            lines.append(f"{name:>{width}}: {text}")
        return "\n".join(lines)

    def tree_flatten_with_keys(self):
        names = [f.name for f in dataclasses.fields(self)]
        children, rest = [], []
        for name in names:
            arrays, static = partition(getattr(self, name), _is_child)
            children.append((jax.tree_util.GetAttrKey(name), arrays))
            rest.append(static)
        return children, tuple(rest)

    @classmethod
    def tree_unflatten(cls, rest, children):
        return cls(*(static.combine(arrays) for static, arrays in zip(rest, children)))


def _is_child(leaf):
    """Arrays, and what JAX puts in their place while it matches structures."""
    return is_array(leaf) or type(leaf) is object


def _readable(value):
    """An entry as a person wants to read it."""
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        return np.array2string(np.asarray(value), precision=6, threshold=12, edgeitems=4)
    if isinstance(value, list):
        return "\n".join(map(str, value[:6])) + ("\n..." if len(value) > 6 else "")
    return str(value)
