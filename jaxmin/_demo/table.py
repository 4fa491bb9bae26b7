"""The table of all fits, a line for each data set, and its sums."""

import textwrap
from collections.abc import Sequence

import numpy as np

import jaxmin
from jaxmin._demo import fit, minpack

WIDTH = 100
NOTHING_LEFT = 1e-20  # a residual sum of squares that is rounding, as Lanczos1 has it
STATUSES = (
    "CONVERGED: the residuals are orthogonal to the model's derivatives, to gtol; XTOL: the last step is within xtol; "
    "PRECISION: rounding leaves nothing to gain. All three are successes."
)
PASSES = (
    "A pass makes all the fits. The second pass is so much faster because each fit is compiled once, for its model and "
    "the sizes of its data, in the first (or loaded, if an earlier run has kept it)."
)


def paragraph(text: str) -> None:
    print(textwrap.fill(text, WIDTH))


def show_header(with_scipy: bool) -> None:
    """The two lines above the table."""
    starts = "".join(f"{'from start ' + number:>15}{'':10}" for number in "12")
    print(f"{'':27}{starts}{'s.d.':>7}" + f"{'SciPy, start':>15}" * with_scipy)
    columns = f"{'digits':>7}{'eval.':>6}  {'status':<10}" * 2
    print(f"{'name':<9}{'level':<8}{'par.':>5}{'obs.':>5}{columns}{'digits':>7}" + f"{'1':>9}{'2':>6}" * with_scipy)


def show_row(pair: fit.Pair, scipy: minpack.Pair | None) -> None:
    """The line of one data set."""
    data = pair.data
    line = f"{data.name:<9}{data.difficulty:<8}{data.certified.size:>5}{data.y.size:>5}"
    for one in pair.fits:
        name = jaxmin.Status(int(one.res.status)).name
        line += f"{one.digits:>7.1f}{int(one.res.nfev):>6}  {name:<10}"
    line += f"{min(one.error_digits for one in pair.fits):>7.1f}"
    if scipy is not None:
        line += "{:>9.1f}{:>6.1f}".format(*scipy.digits)
    print(line, flush=True)


def show_summary(pairs: Sequence[fit.Pair]) -> None:
    """What the statuses mean, how many fits agree, and the names of the others."""
    paragraph(STATUSES)
    for pair in pairs:
        if pair.data.rss < NOTHING_LEFT:
            name, rss = pair.data.name, pair.data.rss
            paragraph(f"{name} has no noise: its residuals are rounding, {rss:.0e} in all, and so are its s.d.")
    fits = [(f"{pair.data.name} start {i + 1}", one) for pair in pairs for i, one in enumerate(pair.fits)]
    others = [where for where, one in fits if one.digits < fit.ENOUGH]
    errors = sum(one.error_digits >= fit.ENOUGH for _, one in fits)
    agreed = (
        f"{len(fits) - len(others)} of {len(fits)} fits agree with every certified parameter to {fit.ENOUGH} digits"
    )
    print()
    paragraph(f"{agreed}, {errors} with every standard deviation." + f" Not so: {', '.join(others)}." * bool(others))
    print()


def show_passes(pairs: Sequence[fit.Pair], scipy: Sequence[minpack.Pair]) -> None:
    """The sums over all data sets, of jaxmin and of SciPy."""
    digits = [one.digits for pair in pairs for one in pair.fits]
    nfev = sum(int(one.res.nfev) for pair in pairs for one in pair.fits)
    print(f"{'':34}{'to ' + str(fit.ENOUGH) + ' digits':>12}{'mean digits':>13}{'evaluations':>13}", end="")
    print(f"{'first pass':>13}{'second pass':>13}")
    _show_sums("jaxmin", digits, nfev, (sum(pair.first for pair in pairs), sum(pair.second for pair in pairs)))
    if scipy:
        times = sum(pair.first for pair in scipy), sum(pair.second for pair in scipy)
        tight = [each for pair in scipy for each in pair.digits]
        _show_sums('SciPy least_squares(method="lm")', tight, sum(pair.nfev for pair in scipy), times)
    paragraph(PASSES)
    if not scipy:
        print("SciPy is not installed, so there is no comparison with it.")
        return
    settings = ", ".join(f"{name}={value:g}" for name, value in minpack.TIGHT.items())
    loose = sum(each >= fit.ENOUGH for pair in scipy for each in pair.loose)
    paragraph(
        f"SciPy's loop calls the compiled residuals and Jacobian from Python. Here it has {settings}; with its default "
        f"tolerances {loose} agree. jaxmin has its defaults."
    )


def _show_sums(name: str, digits: Sequence[float], nfev: int, times: tuple[float, float]) -> None:
    agreed = f"{sum(each >= fit.ENOUGH for each in digits)} of {len(digits)}"
    spent = "".join(f"{1e3 * each:>10,.{0 if each >= 0.1 else 1}f} ms" for each in times)
    print(f"{name:<34}{agreed:>12}{np.mean(digits):>13.1f}{nfev:>13,}{spent}")
