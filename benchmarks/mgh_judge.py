"""What a point is for a problem of Moré, Garbow and Hillstrom: the least sum of squares, or a stationary point.

All is computed in float64, whatever the dtype of the solver.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from cutest_problems import x64

FITS = ("jaxmin", "minpack", "optimistix")  # the solvers of least squares
# What general minimizers are asked for: the largest entry of the gradient of half the sum of squares.
GTOL = {"float64": 1e-8, "float32": 1e-5}
# A sum of squares is least within this fraction of the least known sum.
NEAR = {"float64": 1e-6, "float32": 1e-4}
# Or within this, if the least known sum is 0: Powell's singular function has 1e-11 where its gradient is GTOL.
ZERO = 1e-10
# The cosines of the residuals and each column of J are at most this at a stationary point.
FLAT = {"float64": 1e-5, "float32": 1e-3}
# Or the Gauss-Newton step is at most this, relative to x, both in the scales of the columns.
SHORT = {"float64": 1e-8, "float32": 1e-5}
PRINTED = 1e-5  # the fraction to which the paper's six digits are known
ROUNDING = 4.0  # residuals are known to so many times their rounding
RANK = 1e-12  # singular values below this fraction of the largest one are 0
# A variable that changes the residuals by less than this fraction if it changes by its own size has no influence.
INFLUENCE = 1e-8
MEASURES = ("reached", "column", "step", "relative", "gradient", "rounding")


def measure(problem, x, dtype):
    """What a point is: the sum of squares, how far the residuals are from being orthogonal to J, their rounding."""
    with x64(True):
        x = jnp.asarray(np.asarray(x, dtype), float)
        r, J = (np.asarray(f(x)) for f in (problem.residuals, jax.jacfwd(problem.residuals)))
    found = dict.fromkeys(MEASURES, math.nan)
    if np.all(np.isfinite(r)) and np.all(np.isfinite(J)):
        rounding = np.sum((np.finfo(dtype).eps * (np.abs(J) @ np.abs(x))) ** 2)
        found = _slopes(np.asarray(x), r, J) | {"rounding": rounding}
    return {"sum": float(r @ r)} | {name: float(f"{value:.3g}") for name, value in found.items()}


def _slopes(x, r, J):
    """How far r is from being orthogonal to J: in four measures without units, and in one with units.

    The cosines of the angles between r and all that J reaches (``reached``), and the nearest column; the length of the
    Gauss-Newton step relative to x; the relative gradient of Dennis and Schnabel (1983, eq. (7.2.5)); and the largest
    entry of the gradient of half the sum of squares.
    """
    size = np.linalg.norm(r)
    J = np.where(np.linalg.norm(J, axis=0) * np.maximum(np.abs(x), 1) > INFLUENCE * size, J, 0)
    norms = np.linalg.norm(J, axis=0)
    U, s, _ = np.linalg.svd(J / np.where(norms > 0, norms, 1), full_matrices=False)
    along, g, whole = U.T[s > RANK * np.max(s)] @ r, J.T @ r, size if size > 0 else 1
    step, far = np.linalg.norm(along / s[s > RANK * np.max(s)]), np.linalg.norm(norms * x)
    return {
        "reached": np.linalg.norm(along) / whole,
        "column": np.max(np.abs(g) / np.where(norms > 0, norms, 1)) / whole,
        "step": step / (far if far > 0 else 1),
        "relative": np.max(np.abs(g) * np.maximum(np.abs(x), 1)) / whole**2,
        "gradient": np.max(np.abs(g)),
    }


def verdict(record, minima):
    """Which of "least", "stationary" and "unsolved" a record is.

    Rounding x alone changes the sum of squares by about ``rounding``. A point is stationary at a local minimum that
    the paper lists; where the residuals are orthogonal to each column of J; where the model r + J p promises a fall by
    a fraction of NEAR at most, or a short step; or where no variable changes the sum by more than NEAR if it changes by
    its own size, as it is near infinity. General minimizers have been asked for a gradient, which counts for them.
    """
    near, floor = NEAR[record["dtype"]], ROUNDING**2 * record["rounding"]
    if not math.isfinite(record["sum"]):
        return "unsolved"
    floor = floor if math.isfinite(floor) else 0
    least, *others = minima
    if record["sum"] <= least * (1 + near) + floor + (ZERO if least == 0 else 0):
        return "least"
    listed = any(abs(record["sum"] - other) <= (PRINTED + near) * other + floor for other in others)
    promised = record["reached"] ** 2
    model = promised <= near or promised * record["sum"] <= floor or record["step"] <= SHORT[record["dtype"]]
    slopes = record["column"] <= FLAT[record["dtype"]] or record["relative"] <= near
    asked = record["solver"] not in FITS and record["gradient"] <= 2 * GTOL[record["dtype"]]
    return "stationary" if listed or model or slopes or asked else "unsolved"
