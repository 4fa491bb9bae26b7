"""Solvers compared by the results of cutest.py: on the problems that both solve, and by performance profiles."""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import records

KEY = ("set", "problem", "dtype", "solver")


class Cost(NamedTuple):
    field: str
    least: Any  # below it, differences do not count
    label: str


COSTS = (
    Cost("nfev", 1, "evaluations"),
    # Shorter times are mostly those of the call.
    Cost("run", 1e-3, "time without compilation (at least 1 ms)"),
)


def read(paths):
    """The records of result files; of two with the same key the later one."""
    found = {}
    for path in paths:
        _, rows = records.read(pathlib.Path(path))
        found |= {tuple(row[name] for name in KEY): row for row in rows}
    return list(found.values())


def groups(rows):
    """(set, dtype) -> solver -> problem -> record."""
    found = {}
    for row in rows:
        found.setdefault((row["set"], row["dtype"]), {}).setdefault(row["solver"], {})[row["problem"]] = row
    return found


def both(first, second):
    """The problems that two solvers both solve."""
    return [name for name in first if name in second and first[name]["solved"] and second[name]["solved"]]


def costs(table, names, cost):
    return np.array([max(table[name][cost.field], cost.least) for name in names])


def mean(values):
    """The geometric one."""
    return math.exp(np.mean(np.log(values)))


def profiles(solvers, cost):
    """Dolan-Moré performance profiles: the factors within which each solver meets the best one, and their limit.

    A solver that does not solve a problem never meets it. The share of problems is that of all problems in the tables.
    """
    names = sorted(set().union(*solvers.values()))
    spent = lambda row: max(row[cost.field], cost.least) if row and row["solved"] else math.inf
    table = np.array([[spent(rows.get(name)) for name in names] for rows in solvers.values()])
    least = np.min(table, axis=0)
    ratios = table / np.where(np.isfinite(least), least, 1)
    widest = max(2.0, np.max(ratios[np.isfinite(ratios)], initial=1.0))
    met = {solver: np.sort(row[np.isfinite(row)]) for solver, row in zip(solvers, ratios)}
    return met, len(names), widest


def draw(axis, solvers, cost, style=lambda solver: {}):
    """The profiles of one cost, as steps; ``style(solver)`` has the keywords of its line."""
    met, total, widest = profiles(solvers, cost)
    for solver, steps in met.items():
        share = np.arange(1, len(steps) + 1) / total
        x, y = np.append(steps, widest), np.append(share, share[-1:] if len(steps) else 0)
        axis.step(x, y, where="post", **{"label": f"{solver} ({len(steps)})"} | style(solver))
    axis.set(xscale="log", xlim=(1, widest), ylim=(0, 1), xlabel=f"{cost.label},\nrelative to the best solver")
    axis.set_ylabel(f"share of {total} problems")
