"""What a point is worth as the solution of a constrained problem. NumPy and SciPy alone, in float64."""

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize


class Rules(NamedTuple):
    feasible: float  # of the violation
    stationary: float  # of the KKT residual
    active: float  # how near to its bound a row or a variable may have a multiplier
    best: float = 1e-3  # of f above the least known, relative to max(1, |f|)


# A row steeper than this is measured as if it were as steep: where x runs off to infinity, as on TRO11X3, gradients
# grow with it, and hide any violation.
STEEPEST = 1e3
RULES = {"float64": Rules(1e-6, 1e-4, 1e-5), "float32": Rules(1e-3, 1e-2, 1e-3)}


class Values(NamedTuple):
    """Of a problem at x: min f with c[:m_eq] = 0, c[m_eq:] >= 0, lower <= x <= upper."""

    f: Any
    c: Any  # [m]
    g: Any  # [n], gradient of f
    J: Any  # [m, n], Jacobian of c


def verdict(x, values, m_eq, bounds, rules=RULES["float64"]):
    """f, violation and KKT residual at x, and whether it is feasible and a KKT point. Not finite: neither.

    A row of c is measured relative to the largest entry of its gradient, within [1, STEEPEST]; a bound is measured as
    it is. The residual is relative to max(1, |f|, the largest entry of f's gradient).
    """
    finite = all(np.all(np.isfinite(part)) for part in (x, *values))
    if not finite:
        return {"f": None, "violation": None, "residual": None, "feasible": False, "kkt": False}
    violation = violation_of(x, values, m_eq, bounds)
    residual = residual_of(x, values, m_eq, bounds, rules.active)
    feasible = violation <= rules.feasible
    kkt = feasible and residual <= rules.stationary
    return {"f": float(values.f), "violation": violation, "residual": residual, "feasible": feasible, "kkt": kkt}


def is_best(found, known, rules=RULES["float64"]):
    """Whether a verdict is of a feasible point that is as good as the least f known."""
    if known is None or not found.get("feasible"):
        return False
    return found["f"] <= known + rules.best * max(1, abs(known))


def _scales(J):
    return np.maximum(1, np.max(np.abs(J), axis=1, initial=0))


def violation_of(x, values, m_eq, bounds):
    """The largest violation of a row or a bound."""
    lower, upper = bounds
    missed = np.where(np.arange(values.c.size) < m_eq, np.abs(values.c), np.maximum(0, -values.c))
    parts = missed / np.minimum(_scales(values.J), STEEPEST), lower - x, x - upper
    return float(max(np.max(part, initial=0) for part in parts))


def residual_of(x, values, m_eq, bounds, active):
    """The largest entry of g minus the best combination of active gradients; inequalities have weights >= 0."""
    lower, upper = bounds
    near = active * np.maximum(1, np.abs(x))
    rows = values.c[m_eq:] <= active * _scales(values.J[m_eq:])
    unit = np.eye(x.size)
    parts = (values.J[:m_eq], values.J[m_eq:][rows], unit[x - lower <= near], -unit[upper - x <= near])
    gradients = np.concatenate(parts)
    residual = np.max(np.abs(values.g), initial=0)
    lengths = np.linalg.norm(gradients, axis=1)
    free = np.arange(lengths.size) < m_eq
    used = lengths > 0
    if np.any(used):
        A = (gradients[used] / lengths[used, None]).T
        least = np.where(free[used], -np.inf, 0.0)
        fit = scipy.optimize.lsq_linear(A, values.g, bounds=(least, np.inf), method="bvls", tol=1e-14, max_iter=500)
        residual = min(residual, np.max(np.abs(A @ fit.x - values.g)))
    return float(residual / max(1, abs(values.f), np.max(np.abs(values.g), initial=0)))
