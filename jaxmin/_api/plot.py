"""plot: how solves went, from the history in their results."""

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
    """Draw the convergence of one solve, or of several for comparison: f above its least, and the gradient norm.

    Args:
      results: an ``OptimizeResult`` with a history (``options={"history": N}``), or a list of them. f is drawn above
        the least f of them all; the iterates that have it are at -inf, and not drawn.
      labels: a name for each; "1", "2", ... by default.
      over: "evaluations" (default) or "iterations".
      fun: for two variables, the objective, ``fun(x, *args)``: the iterates are drawn on its contours too, which
        takes a history with ``options={"history_x": True}``.
      args: its further arguments.

    Returns:
      The figure, of matplotlib (``jaxmin[plot]``); ``figure.savefig("run.png")`` writes it.

    Raises:
      ValueError: where a result has no history, or is a batch.
      ImportError: where matplotlib is not installed.

    >>> import jax.numpy as jnp, jaxmin
    >>> def rosen(x):
    ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> kept = {"history": 100, "history_x": True}
    >>> runs = [jaxmin.minimize(rosen, [-1.2, 1.0], method=method, options=kept) for method in ("lbfgs", "bfgs")]
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

    least = min(np.nanmin(history.fun) for history in histories)
    rows = [("f − least f", [_positive(history.fun - least) for history in histories])]
    if not all(np.all(np.isnan(history.gnorm)) for history in histories):
        rows.append(("|g|", [_positive(history.gnorm) for history in histories]))
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


def _history(number: int, result: OptimizeResult) -> History:
    """The history of a result as NumPy arrays, without the rows that were never written."""
    history = getattr(result, "history", None)
    if history is None:
        raise ValueError(f"results[{number}]: it has no history; minimize(..., options={{'history': 200}}) keeps one")
    if np.ndim(result.status):
        raise ValueError(f"results[{number}]: a batch; jax.tree.map(lambda leaf: leaf[0], res) is its first lane")
    history = jax.tree.map(np.asarray, history)
    return jax.tree.map(lambda column: column[history.nit >= 0], history)


def _positive(curve: Any) -> np.ndarray:
    """What a logarithmic axis can show; the rest is left out."""
    return np.where(curve > 0, curve, np.nan)


def _path(result: OptimizeResult) -> np.ndarray:
    """The iterates of a result of two variables, [N, 2]."""
    if result.history.x is None:
        raise ValueError("fun: the path is drawn of a history with x; minimize(..., options={'history_x': True})")
    kept = np.asarray(result.history.nit) >= 0
    columns = [np.asarray(leaf)[kept].reshape(kept.sum(), -1) for leaf in jax.tree.leaves(result.history.x)]
    path = np.concatenate(columns, axis=1)
    if path.shape[1] != 2 or np.iscomplexobj(path):
        raise ValueError(f"fun: contours are drawn of two real variables, and x has {path.shape[1]}")
    return path


def _of_two(fun: Callable[..., Any], args: Any, result: OptimizeResult) -> Callable[[jax.Array], Any]:
    """fun as a function of the two numbers that x holds."""
    args = args if isinstance(args, tuple) else (args,)
    leaves, tree = jax.tree.flatten(result.history.x)
    if tree != jax.tree.structure(result.x):
        raise ValueError("fun: contours are drawn of an x whose arrays all vary")

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
    # Steps that grow with the height, so that the floor of a narrow valley has contours of its own.
    finite = np.isfinite(values)
    if np.any(finite):
        heights = np.where(finite, values, np.nan) - np.min(values[finite])
        logs = np.log10(heights + 1e-3 * np.nanmedian(heights) + np.finfo(float).tiny)
        axes.contour(u, v, logs, levels=20, colors="0.75", linewidths=0.7, linestyles="solid")
    for path, label in zip(paths, labels):
        (line,) = axes.plot(*path.T, marker=".", markersize=4, linewidth=1.2, label=label)
        axes.plot(*path[-1], marker="*", markersize=10, color=line.get_color(), linestyle="none")
    axes.set(xlabel="x[0]", ylabel="x[1]", xlim=u[[0, -1]], ylim=v[[0, -1]])
