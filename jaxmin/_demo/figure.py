"""The fits with their data and confidence bands, as small multiples."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmin
from jaxmin._demo.fit import Pair
from jaxmin._demo.progress import progress
from jaxmin.datasets import nist
from jaxmin.datasets._models import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = 200  # points of a curve
TIMES = 2  # the half width of a band, in standard errors
COLUMNS = 6


def obstacle(file: str) -> str | None:
    """Why no figure can be written to `file`, in a sentence; None if nothing is in the way."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "--plot draws with matplotlib, which is not installed; pip install 'jaxmin[plot]'"
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if os.path.splitext(file)[1].lstrip(".").lower() not in kinds:
        return f"--plot {file}: the name must end in one of {', '.join('.' + kind for kind in kinds)}"
    folder = os.path.dirname(file) or "."
    return None if os.path.isdir(folder) else f"--plot {file}: there is no folder {folder}"


def band(curve: Model, res: jaxmin.OptimizeResult, x: Any) -> tuple[jax.Array, jax.Array]:
    """The curve at x, and its standard errors by the delta method: the root of the diagonal of J C J^T."""
    J = jax.jacfwd(curve)(res.x, x)
    return curve(res.x, x), jnp.sqrt(jnp.sum((J @ res.covariance()) * J, axis=1))


def drawn(pairs: Sequence[Pair]) -> "Figure":
    """A figure with a panel for each data set."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(2.3 * columns, 1.9 * rows + 0.4), layout="constrained")
    figure.suptitle(f"NIST's certified regressions: data, fits, and bands of ±{TIMES} standard errors", fontsize=10)
    for number, pair in enumerate(pairs):
        with progress(f"{pair.data.name}, {number + 1} of {len(pairs)}: drawing"):
            _draw(figure.add_subplot(rows, columns, number + 1), pair)
    return figure


def _draw(axes: Any, pair: Pair) -> None:
    """One panel, with the better one of the two fits."""
    data = pair.data
    res = min(pair.fits, key=lambda fit: float(fit.res.fun)).res
    within = jax.jit(band, static_argnums=0)
    first = lambda x: x if x.ndim == 1 else x[:, 0]
    for number, (rows, grid) in enumerate(_curves(data.x)):
        y, error = map(np.asarray, within(nist.model(data.name), res, grid))
        color, width = f"C{number}", TIMES * error
        axes.plot(first(data.x[rows]), data.y[rows], ".", color=color, markeredgecolor="0.35", markersize=3)
        axes.plot(first(grid), y, color=color, linewidth=1)
        axes.fill_between(first(grid), y - width, y + width, color=color, alpha=0.3, linewidth=0)
    axes.set_title(data.name, fontsize=8)
    axes.tick_params(labelsize=6)


def _curves(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows of x, points over its range): of two predictors the first one varies, for each value of the second."""
    if x.ndim == 1:
        return [(np.full(x.size, True), np.linspace(x.min(), x.max(), GRID))]
    along = np.linspace(x[:, 0].min(), x[:, 0].max(), GRID)
    grid = lambda value: np.stack([along, np.full(GRID, value)], axis=1)
    return [(x[:, 1] == value, grid(value)) for value in np.unique(x[:, 1])]
