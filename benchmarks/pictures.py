"""Pictures of results for the site: lines, bars and profiles that are legible on a light page and on a dark one."""

import pathlib
from typing import Any, NamedTuple

import profiles

GREY = "#888888"
# By the beginning of a solver's name: a colour between light and dark, and a marker.
LIBRARIES = {
    "jaxmin": ("#e8552d", "o"),
    "jaxopt": ("#2f9e63", "^"),
    "jax.scipy": ("#d0559b", "X"),
    "jax-scipy": ("#d0559b", "X"),
    "optax": ("#3a87d6", "s"),
    "optimistix": ("#9a6bd6", "D"),
    "tfp": ("#2a9aa8", "P"),
    "scipy": ("#a8842a", "v"),
}
OURS = "jaxmin"
# The colours are those of the site.
COLOURS = pathlib.Path(__file__).parent.parent / "docs" / "pictures.mplstyle"
LOOK = {
    "font.size": 10, "axes.grid": True, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "svg.fonttype": "none", "svg.hashsalt": "jaxmin",
}  # fmt: skip


class Panel(NamedTuple):
    """One picture's part, or one table."""

    title: str
    what: str  # with its unit
    table: Any  # solver -> n, or the name of a group -> number
    scale: str = "log"


def number(value):
    """A tick on a logarithmic axis."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def style(solver):
    """The keywords of a line: the colour is the library's, the dashes are the method's; jaxmin's are thicker."""
    name = solver.lower()
    colour, marker = next((look for start, look in LIBRARIES.items() if name.startswith(start)), (GREY, "."))
    limited, matrix = "lbfgs" in name or "l-bfgs" in name, "bfgs" in name
    ours = name.startswith(OURS)
    return {
        "color": colour,
        "marker": marker,
        "linestyle": "-" if limited else "--" if matrix else ":",
        "linewidth": 2.8 if ours else 1.3,
        "markersize": 6 if ours else 4.5,
        "markerfacecolor": "none" if "minimize_many" in name or "bounds" in name else colour,
        "zorder": 3 if ours else 2,
    }


def _figure(panels, height=4.3):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.style.use([COLOURS, LOOK])

    figure, axes = pyplot.subplots(1, panels, figsize=(9, height), squeeze=False, layout="constrained")
    return figure, axes[0]


def _legend(figure, axes):
    """One for all panels, below them; a solver is there once."""
    found = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, fontsize=9, handlelength=3)


def lines(panels):
    """A line for each solver over n. A number that is not positive has no point: differences of times may be noise."""
    figure, axes = _figure(len(panels))
    for axis, panel in zip(axes, panels):
        for solver, row in panel.table.items():
            points = {n: value for n, value in row.items() if value > 0}
            if points:
                axis.plot(list(points), list(points.values()), label=solver, **style(solver))
        _axes(axis, panel)
    _legend(figure, axes)
    return figure


def _axes(axis, panel):
    axis.set(xscale="log", title=panel.title, xlabel="n", ylabel=panel.what)
    sizes = sorted({n for row in panel.table.values() for n in row})
    axis.set_xticks(sizes, [number(n) for n in sizes])
    axis.set_xticks([], minor=True)
    if panel.scale == "log" and axis.dataLim.y1 > 0:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: number(value))
    else:
        axis.set_ylim(bottom=0)


def bars(panels):
    """A group of bars for each column of the table."""
    (panel,) = panels
    figure, axes = _figure(1)
    groups = list(dict.fromkeys(group for row in panel.table.values() for group in row))
    width = 0.85 / len(panel.table)
    for i, (solver, row) in enumerate(panel.table.items()):
        at = [groups.index(group) + (i - (len(panel.table) - 1) / 2) * width for group in row]
        look = style(solver)
        fill = look["color"] if look["linestyle"] == "-" and look["markerfacecolor"] != "none" else "none"
        hatch = {"-": "", "--": "///", ":": ".."}[look["linestyle"]]
        axes[0].bar(
            at, list(row.values()), 0.85 * width, label=solver, facecolor=fill, edgecolor=look["color"], hatch=hatch
        )
    axes[0].set(xticks=range(len(groups)), xticklabels=groups, title=panel.title, ylabel=panel.what)
    axes[0].grid(axis="x", visible=False)
    _legend(figure, axes)
    return figure


def shares(solvers):
    """Performance profiles, of each cost."""
    figure, axes = _figure(len(profiles.COSTS))
    for axis, cost in zip(axes, profiles.COSTS):
        plain = lambda solver: {"label": solver, **style(solver), "marker": None}
        profiles.draw(axis, solvers, cost, plain)
        axis.xaxis.set_major_formatter(lambda value, _: number(value))
    _legend(figure, axes)
    return figure


def save(figure, path):
    """The same bytes for the same numbers."""
    from matplotlib import pyplot

    figure.savefig(path, transparent=True, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
