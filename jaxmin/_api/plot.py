"""plot: the convergence of solves, from the history in their results."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._core.result import OptimizeResult
from jaxmin._driver.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OVER = {"evaluations": "nfev", "iterations": "nit"}
_GRID = 200  # points of the contours along each axis


def plot(
    results: OptimizeResult | list[OptimizeResult] | tuple[OptimizeResult, ...], *, labels: Sequence[str] | None = None,
    over: str = "evaluations", fun: Callable[..., Any] | None = None, args: Any = (),
) -> "Figure":  # fmt: skip
    """Plot the convergence of one solve, or of several: f minus the least f, the gradient norm, and the violation.

    Args:
      results: an ``OptimizeResult`` with a history (``options={"history": N}``), or a list of them. The plot shows f
        minus the least f of all the results, on a logarithmic axis; iterates with the least f are not drawn. With
        constraints f may be below its value at the solution, and the last f takes the place of the least.
      labels: a name for each result; "1", "2", ... by default.
      over: the horizontal axis, "evaluations" (default) or "iterations".
      fun: None (default); or for two variables the objective, ``fun(x, *args)``. The iterates are then also drawn on
        its contours; this needs histories with ``options={"history_x": True}``.
      args: further arguments of fun, a tuple; () by default.

    Returns:
      A ``matplotlib.figure.Figure`` (``jaxmin[plot]``); ``figure.savefig("run.png")`` writes it.

    Raises:
      ValueError: if results is empty, or a result has no history or is a batch; if there are not as many labels; for an
        unknown ``over``; or if ``fun`` is given and x is not two real numbers that a history holds.
      ImportError: if matplotlib is not installed.

    >>> import jax.numpy as jnp, jaxmin
    >>> def rosen(x):
    ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> options = {"history": 100, "history_x": True}
    >>> runs = [jaxmin.minimize(rosen, [-1.2, 1.0], method=method, options=options) for method in ("lbfgs", "bfgs")]
    >>> figure = jaxmin.plot(runs, labels=["L-BFGS", "BFGS"], fun=rosen)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['f − least f', '|g|', 'x[1]']
    """
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    if over not in _OVER:
        raise ValueError(f"over={over!r}: one of {', '.join(map(repr, _OVER))}")
    histories = [_history(number, result) for number, result in enumerate(results)]
    if not histories:
        raise ValueError("results: an empty list")
    labels = [str(number + 1) for number in range(len(results))] if labels is None else list(labels)
    if len(labels) != len(results):
        raise ValueError(f"labels={labels!r}: {len(labels)} names for {len(results)} results")
    paths = None if fun is None else [_path(result) for result in results]
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError("plot: it draws with matplotlib; pip install 'jaxmin[plot]'") from error

    rows = _rows(histories)
    panels = len(rows) + (paths is not None)
    figure = Figure(figsize=(4.2 * panels, 3.6), layout="constrained")
    for column, (name, curves) in enumerate(rows):
        axes = figure.add_subplot(1, panels, column + 1)
        axes.set(xlabel=over, ylabel=name, yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for history, curve, label in zip(histories, curves, labels):
            axes.plot(getattr(history, _OVER[over]), curve, marker=".", markersize=4, linewidth=1.2, label=label)
        axes.grid(alpha=0.3)
    if fun is not None and paths is not None:
        _draw_paths(figure.add_subplot(1, panels, panels), paths, labels, _of_two(fun, args, results[0]))
    if len(results) > 1:
        figure.axes[0].legend()
    return figure


def _rows(histories: list[History]) -> list[tuple[str, list[np.ndarray]]]:
    """The name of each panel, and its curves."""
    constrained = any(history.violation is not None for history in histories)
    if constrained:
        last = min(history.fun[-1] for history in histories)
        rows = [("|f − last f|", [_positive(np.abs(history.fun - last)) for history in histories])]
    else:
        least = min(np.nanmin(history.fun) for history in histories)
        rows = [("f − least f", [_positive(history.fun - least) for history in histories])]
    if not all(np.all(np.isnan(history.gnorm)) for history in histories):
        rows.append(("|∇L|" if constrained else "|g|", [_positive(history.gnorm) for history in histories]))
    if constrained:
        nothing = [np.full_like(history.fun, np.nan) for history in histories]
        violations = [none if h.violation is None else h.violation for h, none in zip(histories, nothing)]
        rows.append(("violation", [_positive(violation) for violation in violations]))
    return rows


def _history(number: int, result: OptimizeResult) -> History:
    """The history of a result as NumPy arrays, without unused entries."""
    history = getattr(result, "history", None)
    if history is None:
        raise ValueError(f"results[{number}]: it has no history; give minimize options={{'history': 200}}")
    if np.ndim(result.status):
        raise ValueError(f"results[{number}]: a batch; jax.tree.map(lambda leaf: leaf[0], res) is its first lane")
    history = jax.tree.map(np.asarray, history)
    return jax.tree.map(lambda column: column[history.nit >= 0], history)


def _positive(curve: Any) -> np.ndarray:
    """The curve for a logarithmic axis: NaN where it is not positive."""
    return np.where(curve > 0, curve, np.nan)


def _path(result: OptimizeResult) -> np.ndarray:
    """The iterates of a result of two variables, [N, 2]."""
    if result.history.x is None:
        raise ValueError("fun: the history has no points; give minimize options={'history': 200, 'history_x': True}")
    used = np.asarray(result.history.nit) >= 0
    columns = [np.asarray(leaf)[used].reshape(used.sum(), -1) for leaf in jax.tree.leaves(result.history.x)]
    path = np.concatenate(columns, axis=1)
    if path.shape[1] != 2 or np.iscomplexobj(path):
        raise ValueError(f"fun: contours need two real variables, and x has {path.shape[1]}; omit fun")
    return path


def _of_two(fun: Callable[..., Any], args: Any, result: OptimizeResult) -> Callable[[jax.Array], Any]:
    """fun as a function of the two numbers in x."""
    args = args if isinstance(args, tuple) else (args,)
    leaves, tree = jax.tree.flatten(result.history.x)
    if tree != jax.tree.structure(result.x):
        raise ValueError("fun: contours need an x whose arrays all vary; omit fun")

    def of_two(pair: jax.Array) -> Any:
        parts = jnp.split(pair, [leaves[0][0].size]) if len(leaves) == 2 else [pair]
        parts = [part.reshape(leaf.shape[1:]).astype(leaf.dtype) for part, leaf in zip(parts, leaves)]
        return fun(jax.tree.unflatten(tree, parts), *args)

    return of_two


def _draw_paths(axes: Any, paths: list[np.ndarray], labels: Sequence[str], fun: Callable[[jax.Array], Any]) -> None:
    every = np.concatenate(paths)
    low, high = every.min(axis=0), every.max(axis=0)
    edge = 0.15 * np.maximum(high - low, 1e-3 * np.maximum(np.abs(low), 1))
    u, v = (np.linspace(low[i] - edge[i], high[i] + edge[i], _GRID) for i in (0, 1))
    points = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    values = np.asarray(jax.jit(jax.vmap(fun))(points), float).reshape(_GRID, _GRID)
    # The levels grow with the height, so that the bottom of a narrow valley has contours too.
    finite = np.isfinite(values)
    if np.any(finite):
        heights = np.where(finite, values, np.nan) - np.min(values[finite])
        logs = np.log10(heights + 1e-3 * np.nanmedian(heights) + np.finfo(float).tiny)
        axes.contour(u, v, logs, levels=20, colors="0.75", linewidths=0.7, linestyles="solid")
    for path, label in zip(paths, labels):
        (line,) = axes.plot(*path.T, marker=".", markersize=4, linewidth=1.2, label=label)
        axes.plot(*path[-1], marker="*", markersize=10, color=line.get_color(), linestyle="none")
    axes.set(xlabel="x[0]", ylabel="x[1]", xlim=u[[0, -1]], ylim=v[[0, -1]])
