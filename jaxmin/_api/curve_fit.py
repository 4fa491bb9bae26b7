"""curve_fit: SciPy's call for fitting a curve, over minimize."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._api.minimize import minimize
from jaxmin._core.promotion import standard
from jaxmin._core.pytree import any_traced
from jaxmin._core.typing import PyTree
from jaxmin._problem.bounds import Bounds, BoundsLike


def curve_fit(
    f: Callable[..., Any], xdata: PyTree, ydata: Any, p0: Any = None, sigma: Any = None, absolute_sigma: bool = False,
    bounds: BoundsLike | tuple[Any, Any] | None = None, method: Any = "levenberg_marquardt",
    jac: Callable[..., Any] | None = None, *, full_output: bool = False, options: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:  # fmt: skip
    """Fit ``f(xdata, *params)`` to data: ``scipy.optimize.curve_fit`` for JAX, a few lines over ``minimize``.

    It works under ``jit`` and ``vmap``, over ydata or anything else. A second call with another ydata compiles nothing.

    Args:
      f: the model, ``f(xdata, *params)``, written with ``jax.numpy``. It returns an array like ydata.
      xdata: anything that f takes: an array, or a pytree. A list or tuple becomes an array, as in SciPy.
      ydata: the data, an array of any shape.
      p0: the start, p numbers; None (default): 1 for each parameter that f has by name.
      sigma: None (default); the standard deviations of ydata, a number or an array like it; or for an ydata [m] its
        covariance matrix [m, m].
      absolute_sigma: False (default): only ratios of sigma matter, and the covariance is scaled by the variance of the
        residuals. True: sigma is in units of ydata.
      bounds: None (default), a tuple (lower, upper) as in SciPy, each a number or p numbers; or what ``minimize``
        takes, such as a list of pairs.
      method: "levenberg_marquardt" (default), or another method for residuals.
      jac: None (default) differentiates f; or ``jac(xdata, *params)``, the derivatives of f, [m, p].
      full_output: False (default); True returns the result as a third value.
      options: the ``options`` of ``minimize``. Further keyword arguments are options too: ``loss="huber"``.

    Returns:
      ``popt`` [p] and ``pcov`` [p, p]: the parameters and their covariance; with ``full_output`` also the
      :class:`~jaxmin.OptimizeResult`. A fit that has not succeeded gives a RuntimeWarning, where its status is known;
      SciPy raises an error.

    Raises:
      ValueError, TypeError: for an invalid argument; the message names it.

    >>> import jax.numpy as jnp, jaxmin
    >>> x, y = jnp.array([0.0, 1.0, 2.0, 3.0]), jnp.array([2.0, 1.2, 0.7, 0.5])
    >>> popt, pcov = jaxmin.curve_fit(lambda x, a, k: a * jnp.exp(-k * x), x, y)
    >>> popt.round(2).tolist(), jnp.sqrt(jnp.diag(pcov)).round(2).tolist()
    ([1.99, 0.5], [0.04, 0.02])
    """
    if not callable(f):
        raise TypeError(f"f={f!r}: give a callable, f(xdata, *params)")
    ydata = jnp.asarray(ydata)
    xdata = jnp.asarray(xdata) if isinstance(xdata, (list, tuple)) else xdata
    start = _start(f, p0)
    with jax.numpy_dtype_promotion("standard"):
        start = start.astype(jnp.result_type(start, jnp.finfo(jnp.result_type(ydata, float)).dtype))
    scaled = _scaling(sigma, ydata)

    def residuals(params: jax.Array, x: PyTree, y: jax.Array, weights: Any) -> jax.Array:
        model = jnp.asarray(f(x, *params))
        if model.shape != y.shape:
            raise ValueError(f"f: it returns an array of shape {model.shape} for an ydata of shape {y.shape}")
        return scaled(weights, (model - y).reshape(-1))

    def derivatives(params: jax.Array, x: PyTree, y: jax.Array, weights: Any) -> jax.Array:
        assert jac is not None
        J = jnp.asarray(jac(x, *params)).reshape(y.size, -1)
        return jax.vmap(lambda column: scaled(weights, column), 1, 1)(J)

    res = minimize(
        residuals, start, (xdata, ydata, sigma), method, jac=None if jac is None else derivatives,
        bounds=_box(bounds, start.size), options=dict(options or {}) | settings,
    )  # fmt: skip
    if not any_traced(res.status) and not np.all(res.success):
        warnings.warn(f"curve_fit: {res.message}", RuntimeWarning, stacklevel=2)
    pcov = res.covariance(absolute_sigma)
    return (res.x, pcov, res) if full_output else (res.x, pcov)


def _start(f: Callable[..., Any], p0: Any) -> jax.Array:
    """The start [p]."""
    if p0 is not None:
        start = jnp.asarray(p0)
        if start.ndim > 1:
            raise ValueError(f"p0: an array of shape {start.shape}; give p numbers, or use minimize for a pytree")
        return jnp.atleast_1d(start)
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(named) < 2 or any(p.kind == p.VAR_POSITIONAL for p in parameters):
        raise ValueError("p0: the number of parameters cannot be seen from f; give a start")
    return jnp.ones(len(named) - 1)


def _scaling(sigma: Any, ydata: jax.Array) -> Callable[[Any, jax.Array], jax.Array]:
    """(sigma, r [m]) -> r in units of sigma."""
    if sigma is None:
        return lambda sigma, r: r
    shape = np.shape(sigma)
    if shape == () or shape == ydata.shape:
        return standard(lambda sigma, r: r / jnp.broadcast_to(jnp.asarray(sigma), ydata.shape).reshape(-1))
    if shape != (ydata.size, ydata.size):
        raise ValueError(
            f"sigma: an array of shape {shape} for an ydata of shape {ydata.shape}; give a number, standard deviations "
            "like ydata, or a covariance matrix [m, m]"
        )

    def whitened(sigma: Any, r: jax.Array) -> jax.Array:
        L = jnp.linalg.cholesky(jnp.asarray(sigma, r.dtype))
        return jax.scipy.linalg.solve_triangular(L, r, lower=True)

    return whitened


def _box(bounds: Any, size: int) -> Any:
    """SciPy's tuple of two arrays as ``Bounds``; a list is one of pairs."""
    if not isinstance(bounds, tuple) or isinstance(bounds, Bounds):
        return bounds
    if len(bounds) != 2:
        raise ValueError(f"bounds={bounds!r}: give (lower, upper), a list of pairs, or Bounds")
    lower, upper = bounds
    return Bounds(*(jnp.broadcast_to(jnp.asarray(side, float), (size,)) for side in (lower, upper)))
