"""What a step tells the history and those who watch."""

from typing import Any, NamedTuple


class Report(NamedTuple):
    """The numbers of an iterate; f and x stand in the method's state."""

    gnorm: Any  # [] what the stopping test compares with gtol; None for a method without a gradient
    violation: Any  # [] the largest violation of a constraint; None without constraints
    nit: Any  # [] int32
    nfev: Any  # [] int32
