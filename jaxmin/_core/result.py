"""What a solve found: OptimizeResult."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core import vector as vec
from jaxmin._core.covariance import Covariance, in_blocks, of_hessian, of_residuals
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import Static, is_array, is_number
from jaxmin._core.status import AT_X0, CONSTRAINED, OF_RESIDUALS, RELATIVE, SUCCESSES, WITHOUT_GRADIENT, Status
from jaxmin._core.typing import MaybeNone, PerLane, PyTree


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class OptimizeResult:
    """What a solve found: a pytree that reads like SciPy's result (``res.x``, ``res["x"]``, ``res.keys()``).

    Fields (under ``vmap`` each has a leading batch axis):

    - ``x``: the point returned, like x0: its structure, shapes and dtypes.
    - ``fun``: the objective there, a scalar of shape [] in the dtype that fun returns.
    - ``jac``: the gradient there, like x0 (None for leaves that do not vary), in ``jax.grad``'s convention.
    - ``nit``: iterations, that is points accepted after x0; int32, shape [].
    - ``nfev``, ``njev``: evaluations of the objective and of its gradient; int32, shape []. -1 where a
      transformation's own search does not report its evaluations.
    - ``history``: a :class:`~jaxmin.History`, with ``options={"history": N}``; else None.
    - ``gnorm``: with bounds, the infinity norm of the projected gradient, which the stopping test compares with gtol;
      in a set that of P(x - g) - x; shape []; else None.
    - ``nhev``: Hessian-vector products, for methods that use them, else None; int32, shape [].
    - ``status``: a :class:`~jaxmin.Status`; int32, shape [].
    - ``hess_inv``: the approximate inverse Hessian of a quasi-Newton method, else None: an array [n, n] for
      ``bfgs`` on an array x0 of n numbers, else an :class:`~jaxmin.InverseHessian`.
    - ``active_mask``: with bounds, int32 like x0: -1 where the lower bound holds x, 1 where the upper bound does,
      else 0; without bounds, and in a set, None.
    - ``v``: of a constrained solve, the multipliers in f + v . c + w . x: a list with one entry for each constraint,
      built as it returns, then one for the bounds, built like x0. It is positive at an upper limit, negative at a lower
      one, as in SciPy's trust-constr: a price, what f loses for one unit more of an upper limit. Without constraints
      None.
    - ``multipliers``: the same as SciPy's SLSQP orders and signs them, one array without the bounds: first the
      equalities, then the inequalities as c - lb >= 0 and ub - c >= 0, each constraint's in turn, of f - lambda . c.
      None where the limits of the constraints are traced.
    - ``constr``: the values of the constraints, a list built in the same way, without bounds.
    - ``constr_violation``: the largest violation of a constraint, in its own units; shape [].
    - ``optimality``: the infinity norm of the gradient of the Lagrangian; shape [].
    - ``gnorm0``: with ``options={"gtol_relative": r}``, the norm of the gradient at x0 (with bounds of the projected
      gradient); shape []; else None.
    - ``cosine``: of a fit by residuals, the cosine of the angle between them and all that their Jacobian reaches, which
      the stopping test compares with gtol; shape []; else None.
    - ``aux``: the second value that fun returned at x (``has_aux=True``), else None.

    ``success`` (bool) and ``message`` (str) follow from the status. A batch has one for each lane: an array of bools
    in the shape of the status, and nested lists of sentences.

    The leaves of the pytree are the arrays. Leaves of x and of aux that are not arrays (an activation function, a
    label) are part of its structure: they pass through ``jit`` and ``vmap`` unchanged.

    Raises:
      KeyError: from ``res[name]``, for a name that is not in ``res.keys()``.
      TypeError: from ``res.message`` in a traced function, where the numbers of the text are unknown.

    >>> import jax, jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2))
    >>> res.x.round(3).tolist(), res["success"], "aux" in res
    ([1.0, 1.0], True, False)
    >>> jax.tree.map(jnp.shape, res).jac
    (2,)
    """

    x: PyTree
    fun: jax.Array
    jac: PyTree
    nit: jax.Array
    nfev: jax.Array
    njev: jax.Array | MaybeNone
    status: jax.Array
    hess_inv: Any = None  # jax.Array, InverseHessian or None
    aux: PyTree = None
    active_mask: PyTree = None
    gnorm: jax.Array | MaybeNone = None
    nhev: jax.Array | MaybeNone = None
    history: Any = None  # History or None
    v: Any = None  # of a constrained solve
    constr: Any = None
    constr_violation: jax.Array | MaybeNone = None
    optimality: jax.Array | MaybeNone = None
    multipliers: jax.Array | MaybeNone = None
    cosine: jax.Array | MaybeNone = None
    gnorm0: jax.Array | MaybeNone = None
    # The structures of x and of aux, if some of their leaves are not arrays; else None. They are set when the result is
    # made. The leaves cannot tell later, since JAX puts any object in the place of an array.
    _static: tuple[Static | None, Static | None] = dataclasses.field(default=(None, None), kw_only=True)
    # () -> the exact Hessian at x [n, n]. It is not part of the pytree: jit and vmap lose it.
    _hessian: Callable[[], jax.Array] | None = dataclasses.field(default=None, kw_only=True)

    @property
    def success(self) -> PerLane:
        """Whether a stopping test held at x: a bool; for a batch, or under a trace, an array of them."""
        if isinstance(self.status, jax.core.Tracer):
            return jnp.isin(self.status, jnp.asarray(SUCCESSES))
        won = np.isin(np.asarray(self.status), SUCCESSES)
        return bool(won) if won.ndim == 0 else won

    @property
    def message(self) -> PerLane:
        """The status in words, with the numbers of the point returned; nested lists for a batch.

        Raises:
          TypeError: in a traced function, where the numbers are unknown.
        """
        if not self._is_known():
            raise TypeError(
                "res.message: text cannot come out of a traced function; read it outside jit and vmap, "
                "where the result holds numbers"
            )
        status, sentence = np.asarray(self.status), self._sentences()

        def nested(index: tuple[int, ...], shape: tuple[int, ...]) -> Any:
            if not shape:
                return sentence(index)
            return [nested((*index, i), shape[1:]) for i in range(shape[0])]

        return nested((), status.shape)

    def _sentences(self) -> Callable[[tuple[int, ...]], str]:
        """The function from a lane's index to its status in words."""
        status, fun, gnorm = np.asarray(self.status), np.asarray(self.fun), self._norms()
        at_x0 = np.broadcast_to(np.asarray(self.nit) == 0, status.shape)
        gnorm0 = np.full(status.shape, np.nan) if self.gnorm0 is None else np.asarray(self.gnorm0, float)
        cosine = np.full(status.shape, np.nan) if self.cosine is None else np.asarray(self.cosine, float)
        constrained = self.constr_violation is not None
        violation, optimality = np.asarray(self.constr_violation), np.asarray(self.optimality)
        # An intermediate result has no v.
        largest = _gradient_norm(self.v[:-1], status.shape) if constrained and self.v else np.full(status.shape, np.nan)

        def sentence(index: tuple[int, ...]) -> str:
            f = fun[index]
            ulp = float(jnp.finfo(fun.dtype).eps) * abs(float(f))
            ended = Status(int(status[index]))
            text = self._texts().get(ended, ended.sentence)
            if at_x0[index] and self.jac is not None and not constrained:
                text += AT_X0.get(ended, "")
            numbers = {"gnorm": gnorm[index], "gnorm0": gnorm0[index], "cosine": cosine[index], "fun": f, "ulp": ulp}
            if constrained:
                numbers |= {"violation": violation[index], "optimality": optimality[index]}
                numbers["multiplier"] = largest[index]
            return text.format(**{name: float(value) for name, value in numbers.items()}, advice=_advice(fun.dtype))

        return sentence

    def _texts(self) -> dict[Status, str]:
        """The sentences of this kind of solve."""
        if self.constr_violation is not None:
            return CONSTRAINED
        if self.cosine is not None:
            return OF_RESIDUALS
        if self.jac is None:
            return WITHOUT_GRADIENT
        return {} if self.gnorm0 is None else RELATIVE

    def _norms(self) -> np.ndarray:
        """The norm that the stopping test compares with gtol, for each lane."""
        shape = np.shape(self.status)
        return _gradient_norm(self.jac, shape) if self.gnorm is None else np.asarray(self.gnorm, float)

    def _summary(self) -> list[str]:
        """For each status of a batch, the number of its lanes, and the message of the one with the largest gradient."""
        status, sentence = np.asarray(self.status), self._sentences()
        norms = np.nan_to_num(self._norms(), nan=np.inf)
        lines = []
        for code, count in zip(*np.unique(status, return_counts=True)):
            lanes = np.argwhere(status == code)
            worst = tuple(lanes[np.argmax(norms[tuple(lanes.T)])])
            lines.append(f"{count} of {status.size} lanes, status {code}, such as [{', '.join(map(str, worst))}]: ")
            lines[-1] += sentence(worst)
        return lines

    def covariance(self, absolute_sigma: bool = False) -> PyTree:
        r"""The covariance of the parameters x, from the curvature of the objective at x.

        Of a fit by residuals it is :math:`(J^T J)^{-1} s^2` with :math:`s^2 = 2 f / (m - n)` for m residuals and the n
        parameters that no bound holds, as ``scipy.optimize.curve_fit`` has it. Of any other solve fun counts as a
        negative log-likelihood, and it is the inverse of the exact Hessian by automatic differentiation.

        Args:
          absolute_sigma: False (default); True: the residuals are divided by their standard deviations, so that
            :math:`s^2 = 1`. Of any other solve it changes nothing.

        Returns:
          For an array x of shape [n] an array [n, n]; for a pytree x built like x, of trees built like x. Directions
          that the data do not determine are infinite, with a RuntimeWarning that names their parameters. Parameters at
          a bound, or fixed, have 0. Where m is not above n, all is infinite, with a RuntimeWarning. Where the Hessian
          has a negative eigenvalue it is NaN. It means something only at a minimum: look at ``success`` first. Under
          ``vmap`` call it inside, or of a batch: each lane has its own.

        Raises:
          ValueError: of a result without residuals that has left ``jit`` or ``vmap``: call it inside.
          NotImplementedError: for complex parameters, and within constraints.

        >>> import jax.numpy as jnp, jaxmin
        >>> t, y = jnp.arange(5.0), jnp.array([0.1, 0.9, 2.1, 2.9, 4.1])
        >>> res = jaxmin.minimize(lambda b: b[0] + b[1] * t - y, [0.0, 0.0], method="levenberg_marquardt")
        >>> print(res.covariance().round(4), res.standard_errors().round(3))
        [[ 0.0096 -0.0032]
         [-0.0032  0.0016]] [0.098 0.04 ]
        """

        def in_trees(C: jax.Array, leaves: Sequence[jax.Array], tree: Any) -> PyTree:
            blocks = in_blocks(C, [leaf.shape for leaf in leaves])
            return jax.tree.unflatten(tree, [jax.tree.unflatten(tree, row) for row in blocks])

        return self._of_lanes(absolute_sigma, in_trees)

    def standard_errors(self, absolute_sigma: bool = False) -> PyTree:
        """The standard errors of the parameters, built like x: the roots of the variances in :meth:`covariance`.

        >>> import jax.numpy as jnp, jaxmin
        >>> t, y = jnp.arange(5.0), jnp.array([0.1, 0.9, 2.1, 2.9, 4.1])
        >>> fit = lambda b: b["level"] + b["slope"] * t - y
        >>> res = jaxmin.minimize(fit, {"level": 0.0, "slope": 0.0}, method="levenberg_marquardt")
        >>> round(float(res.standard_errors()["slope"]), 3)
        0.04
        """

        def in_a_tree(C: jax.Array, leaves: Sequence[jax.Array], tree: Any) -> PyTree:
            variances, start, errors = jnp.diagonal(C), 0, []
            for leaf in leaves:
                errors.append(jnp.sqrt(variances[start : start + leaf.size]).reshape(leaf.shape))
                start += leaf.size
            return jax.tree.unflatten(tree, errors)

        return self._of_lanes(absolute_sigma, in_a_tree)

    def _of_lanes(self, absolute: bool, built: Callable[[jax.Array, Sequence[jax.Array], Any], PyTree]) -> PyTree:
        """``built(C, the leaves that vary, their tree)`` with the covariance C, of each lane of a batch."""
        if np.ndim(self.status) and not isinstance(self.status, jax.core.Tracer):
            each = lambda lane: lane._of_lanes(absolute, built)
            for _ in range(np.ndim(self.status)):
                each = jax.vmap(each)
            return each(self)
        found = self._covariance(absolute)
        self._warn_of(found)
        return built(found.C, *jax.tree.flatten(self._varying()))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hessian": None}  # it holds functions, which need not be stored

    def _varying(self) -> PyTree:
        """x without the leaves that do not vary."""
        varying = self.jac
        if varying is None:  # of a method without a gradient
            inexact = lambda leaf: is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
            varying = jax.tree.map(lambda leaf: leaf if inexact(leaf) else None, self.x)
        if any(map(jnp.iscomplexobj, jax.tree.leaves(varying))):
            raise NotImplementedError("covariance: x has complex numbers; fit their real and imaginary parts")
        return varying

    def _covariance(self, absolute: bool) -> Covariance:
        if self.constr_violation is not None:
            raise NotImplementedError("covariance: within constraints it is not offered")
        leaves = jax.tree.leaves(self._varying())
        active = [] if self.active_mask is None else [leaf.reshape(-1) for leaf in jax.tree.leaves(self.active_mask)]
        size = sum(leaf.size for leaf in leaves)
        held = jnp.concatenate(active) != 0 if active else jnp.zeros(size, bool)
        if self.cosine is not None:
            if self.hess_inv is None:
                raise ValueError("covariance: this result holds no hess_inv; give minimize_many hess_inv=True")
            return of_residuals(self.hess_inv.core(), self.fun, held, absolute)
        if self._hessian is None:
            raise ValueError(
                "covariance: this result has left jit or vmap, and its function is not at hand; call res.covariance() "
                "inside, or fit residuals with method='levenberg_marquardt'"
            )
        return of_hessian(self._hessian(), held)

    def _warn_of(self, found: Covariance) -> None:
        """Say why variances are infinite, where it is known."""
        if isinstance(found.undetermined, jax.core.Tracer):
            return
        if np.any(found.undetermined):
            text = f"the data do not determine {', '.join(self._names(found.undetermined))}: variances are infinite"
        elif found.unscaled:
            text = (
                "there are as many parameters as residuals, whose variance is not known: variances are infinite; "
                "where each residual is in units of its standard deviation, give absolute_sigma=True"
            )
        else:
            return
        warnings.warn(text, RuntimeWarning, stacklevel=4)

    def _names(self, chosen: Any) -> list[str]:
        """What the parameters for which ``chosen`` [n] holds are called: x[0], x['a']."""
        names = []
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._varying()):
            name = f"x{jax.tree_util.keystr(path)}"
            indices = np.ndindex(np.shape(leaf))
            names += [f"{name}[{', '.join(map(str, index))}]" if index else name for index in indices]
        return [name for name, is_chosen in zip(names, np.asarray(chosen)) if is_chosen]

    def keys(self) -> list[str]:
        """The names of the entries: fields that are not None, ``success`` and ``message``."""
        return [*(name for name in _FIELDS if getattr(self, name) is not None), "success", "message"]

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(f"{key!r}: the result holds {', '.join(self.keys())}")
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """``res[key]``, or the default where the result has no such entry."""
        return self[key] if key in self else default

    def values(self) -> list[Any]:
        """The entries, in the order of ``keys()``."""
        return [self[key] for key in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """(name, entry) pairs, in the order of ``keys()``."""
        return [(key, self[key]) for key in self.keys()]

    def __repr__(self) -> str:
        order = [
            "message",
            "success",
            "status",
            "fun",
            "x",
            "nit",
            "jac",
            "nfev",
            "njev",
            "nhev",
            "hess_inv",
            "active_mask",
            "gnorm",
            "constr",
            "v",
            "multipliers",
            "constr_violation",
            "optimality",
            "gnorm0",
            "cosine",
            "history",
            "aux",
        ]
        if not self._is_known():
            order = order[2:]
        width = max(map(len, order))
        lines = []
        # A batch of many lanes is summarised.
        lanes = np.size(self.status) if self._is_known() else 1
        short = {"message": self._summary, "success": lambda: _count(self.success)} if lanes > _LANES_SHOWN else {}
        for name in (name for name in order if name in short or getattr(self, name) is not None):
            text = _readable(short[name]() if name in short else getattr(self, name))
            text = text.replace("\n", "\n" + " " * (width + 2))
            lines.append(f"{name:>{width}}: {text}")
        return "\n".join(lines)

    def _is_known(self) -> bool:
        """Whether the fields hold numbers, not tracers, shapes or axes."""
        numbers = [self.status, self.fun, *jax.tree.leaves(self.jac)]
        if any(isinstance(u, (jax.core.Tracer, jax.ShapeDtypeStruct)) for u in numbers):
            return False
        if not all(is_array(u) or is_number(u) for u in numbers):
            return False
        real = jnp.issubdtype(np.asarray(self.fun).dtype, jnp.floating)
        return real and bool(np.isin(np.asarray(self.status), list(Status)).all())

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        values = {name: getattr(self, name) for name in _FIELDS}
        x, aux = self._static
        values["x"], x = _take_out(values["x"], x)
        values["aux"], aux = _take_out(values["aux"], aux)
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in values.items()], (x, aux)

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> "OptimizeResult":
        values = dict(zip(_FIELDS, children))
        for name, rest in zip(("x", "aux"), static):
            if rest is not None:
                values[name] = rest.combine(values[name])
        return cls(**values, _static=static)


_LANES_SHOWN = 6  # a batch of up to this many lanes shows the message of each
_FIELDS = tuple(field.name for field in dataclasses.fields(OptimizeResult) if not field.name.startswith("_"))


def _take_out(tree: PyTree, static: Static | None) -> tuple[PyTree, Static | None]:
    """The array leaves of a tree in a list, and the rest of the tree; ``static`` says which leaves these are.

    A tree with another structure, from ``dataclasses.replace``, comes back whole.
    """
    if static is None:
        return tree, None
    treedef, groups = static.skeleton()
    try:
        leaves = list(zip(treedef.flatten_up_to(tree), groups))
    except (ValueError, TypeError):
        return tree, None
    rest = [leaf for leaf, group in leaves if group is None]
    first = [None if group is None else 0 for group in groups]
    return [leaf for leaf, group in leaves if group is not None], Static(treedef, rest, first)


def _advice(dtype: np.dtype) -> str:
    """Advice for a solve that rounding limits."""
    if dtype.itemsize < 8:
        return "If rounding is in the way: float64, or a scaling of fun and x near 1."
    return "If rounding is in the way: a scaling of fun and x near 1."


@standard
def _gradient_norm(jac: PyTree, lanes: Sequence[int]) -> np.ndarray:
    """The norm that the stopping test compares with gtol, for each lane; a complex number counts as its two parts."""
    parts = [np.zeros(lanes, np.float32)]
    for leaf in map(np.asarray, jax.tree.leaves(jac)):
        parts += [leaf.real, leaf.imag] if np.iscomplexobj(leaf) else [leaf]
    norm = vec.max_abs
    for _ in lanes:
        norm = jax.vmap(norm)
    with jax.ensure_compile_time_eval():  # gives numbers even inside a traced function
        return np.asarray(norm(parts), float)


def _count(flags: Any) -> str:
    return f"{np.sum(flags)} of {np.size(flags)} lanes"


def _readable(value: Any) -> str:
    """An entry as text."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a ``History``
        shapes = ", ".join(f"{name}{list(np.shape(u))}" for name, u in zip(value._fields, value) if is_array(u))
        return f"{type(value).__name__}({shapes})"
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        if not value.is_fully_addressable and not value.is_fully_replicated:  # over several processes
            return f"{value.dtype}{list(value.shape)} on {len(value.sharding.device_set)} devices"
        edge = max(4 // max(value.ndim, 1), 1)
        return np.array2string(np.asarray(value), precision=6, threshold=12, edgeitems=edge)
    if isinstance(value, list):
        return "\n".join(map(str, value[:6])) + ("\n..." if len(value) > 6 else "")
    return str(value)
