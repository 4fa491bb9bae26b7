"""How a solve ended: the statuses, their sentences, and which of them are successes."""

import enum
from typing import Any


class Status(enum.IntEnum):
    """How a solve ended: ``res.status`` holds the number, and ``Status(res.status)`` is its name.

    A status is an ``int``. ``status.success`` says whether a stopping test held at the returned point, and
    ``status.sentence`` is the status in words.

    >>> import jax.numpy as jnp, jaxmin
    >>> res = jaxmin.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2))
    >>> jaxmin.Status(res.status).name, bool(res.status == jaxmin.Status.CONVERGED)
    ('CONVERGED', True)
    """

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
    SPREAD = 10
    PRECISION = 11
    INFEASIBLE = 12
    MULTIPLIERS = 13
    BOUNDS = 14
    MAXHEV = 15
    CALLBACK = 99

    @property
    def success(self) -> bool:
        """Whether a stopping test held at the returned point."""
        return self in SUCCESSES

    @property
    def sentence(self) -> str:
        """The status in words; ``{gnorm}``, ``{fun}``, ``{ulp}`` and ``{advice}`` stand for the point's numbers."""
        return _SENTENCES[self]


SUCCESSES = (
    Status.CONVERGED,
    Status.FTOL,
    Status.XTOL,
    Status.PRECISION_FLOOR,
    Status.SPREAD,
    Status.PRECISION,
)

# No step leads on from the point, though no stopping test holds there.
STUCK = (Status.PRECISION_LOSS, Status.SEARCH_FAILED)


def is_stuck(status: Any) -> Any:
    """Whether it is one of ``STUCK``; an int, or an array."""
    one, other = STUCK
    return (status == one) | (status == other)


_SENTENCES = {
    Status.RUNNING: "The solve has not ended.",
    Status.CONVERGED: "Converged: the gradient norm {gnorm:.3g} is within gtol.",
    Status.MAXITER: "Stopped: maxiter iterations were made; the gradient norm is {gnorm:.3g}.",
    Status.PRECISION_LOSS: "Stopped by rounding with the gradient norm at {gnorm:.3g}, above what gtol asks for: "
    "fun = {fun:.8g}, rounded to about {ulp:.1g}, shows no more decrease. {advice}",
    Status.NAN: "Stopped: fun or its gradient is NaN or infinite at the returned point, or where the method went next.",
    Status.FTOL: "Converged: the relative decrease of fun is within ftol.",
    Status.XTOL: "Converged: the relative change of x is within xtol.",
    Status.MAXFUN: "Stopped: maxfun evaluations were made; the gradient norm is {gnorm:.3g}.",
    Status.MAXHEV: "Stopped: maxhev Hessians, or products with them, were evaluated; the gradient norm is {gnorm:.3g}.",
    Status.PRECISION_FLOOR: "Converged to rounding: the gradient norm {gnorm:.3g} is within gtol * max(1, |fun|), and "
    "the decrease still to be expected is below the rounding of fun = {fun:.8g}, about {ulp:.1g}.",
    Status.SEARCH_FAILED: "Stopped: the line search found no lower point, along steepest descent neither; the gradient "
    "norm is {gnorm:.3g}. Is the gradient right and fun smooth here? jaxmin.check_derivatives tells. {advice}",
    Status.UNBOUNDED: "Stopped: fun is unbounded below; it reached -inf.",
    Status.SPREAD: "Converged: the spread of f is within ftol, and that of x within xtol.",
    Status.PRECISION: "Converged to the precision of fun: Newton's step from here would lower fun = {fun:.8g} by less "
    "than its rounding, about {ulp:.1g}. The gradient norm is {gnorm:.3g}.",
    Status.INFEASIBLE: "Locally infeasible: the violation of the constraints cannot be lowered near x.",
    Status.MULTIPLIERS: "Stopped: the multipliers of the constraints grow without bound.",
    Status.BOUNDS: "Not begun: a lower bound is above its upper bound, or a bound is NaN. fun was not evaluated.",
    Status.CALLBACK: "Stopped: callback asked for it.",
}
# For methods without gradients.
WITHOUT_GRADIENT = _SENTENCES | {
    Status.MAXITER: "Stopped: maxiter iterations were made.",
    Status.MAXFUN: "Stopped: maxfun evaluations were made.",
    Status.PRECISION_LOSS: "Stopped: fun = {fun:.8g} has the same value at all points near x0. Is fun constant there, "
    "or rounded to about {ulp:.1g}? {advice}",
}
# For constrained solves.
_AT = "the gradient of the Lagrangian is {optimality:.3g}, the violation of the constraints {violation:.3g}."
CONSTRAINED = _SENTENCES | {
    Status.CONVERGED: "Converged: within gtol, ctol and barrier_tol, " + _AT,
    Status.MAXITER: "Stopped: maxiter iterations were made; " + _AT,
    Status.MAXFUN: "Stopped: maxfun evaluations were made; " + _AT,
    Status.MAXHEV: "Stopped: maxhev Hessians, or products with them, were evaluated; " + _AT,
    Status.NAN: "Stopped: fun, a constraint or a derivative is NaN or infinite at the returned point.",
    Status.INFEASIBLE: "Locally infeasible: the violation {violation:.3g} of the constraints cannot be lowered near x. "
    "Look at the rows that res.constr shows outside of their limits, or start elsewhere.",
    Status.MULTIPLIERS: "Stopped: the multipliers grow without bound (the largest in v is {multiplier:.3g}), so the "
    "gradients of f and of the constraints cannot balance; "
    + _AT
    + " Where the gradient of an active constraint is 0, "
    "as that of x**2 <= 0, write it otherwise, or allow a small violation.",
    Status.FTOL: "Converged: x is feasible, and the relative decrease of fun is within ftol.",
    Status.XTOL: "Converged: x is feasible, and the relative change of x is within xtol.",
    Status.SEARCH_FAILED: "Stopped: no step makes progress; " + _AT + " Are fun and the constraints smooth here, and "
    "their derivatives right? jaxmin.check_derivatives tells. {advice}",
}
# For fits by residuals.
OF_RESIDUALS = _SENTENCES | {
    Status.CONVERGED: "Converged: the cosine {cosine:.3g} of the angle between the residuals and all that their "
    "Jacobian reaches is within gtol.",
    Status.XTOL: "Converged: the Gauss-Newton step from x is within xtol of x.",
    Status.FTOL: "Converged: the decrease of the sum of squares is within ftol of it.",
    Status.PRECISION: "Converged to the precision of the residuals: Newton's step from here would lower fun = "
    "{fun:.8g} by less than its rounding. The cosine of the residuals and their Jacobian is {cosine:.3g}.",
    Status.PRECISION_LOSS: "Stopped by rounding: no step lowers fun = {fun:.8g}; the cosine of the residuals and their "
    "Jacobian is {cosine:.3g}. {advice}",
    Status.SEARCH_FAILED: "Stopped: no step lowers fun = {fun:.8g}, however short; the cosine of the residuals and "
    "their Jacobian is {cosine:.3g}. Is the Jacobian right, and are the residuals smooth here? {advice}",
}
# For solves with gtol_relative.
RELATIVE = {
    Status.CONVERGED: "Converged: the gradient norm {gnorm:.3g} is within gtol, or within gtol_relative times that at "
    "x0, {gnorm0:.3g}.",
    Status.PRECISION_LOSS: "Stopped by rounding with the gradient norm at {gnorm:.3g}, {gnorm0:.3g} at x0, above what "
    "gtol and gtol_relative ask for: fun = {fun:.8g}, rounded to about {ulp:.1g}, shows no more decrease. {advice}",
    Status.PRECISION_FLOOR: "Converged to rounding: the gradient norm {gnorm:.3g} is within gtol * max(1, |fun|) or "
    "gtol_relative * |fun|, and the decrease still to be expected is below the rounding of fun = {fun:.8g}, about "
    "{ulp:.1g}.",
}
# Added for a solve that ended at x0.
AT_X0 = {
    Status.CONVERGED: " No step was made from x0. If it may be a maximum or a saddle point, start elsewhere, or use "
    "'trust_exact', which looks at the Hessian.",
    Status.NAN: " No step was made from x0: it is so there, or at every point near it.",
}
