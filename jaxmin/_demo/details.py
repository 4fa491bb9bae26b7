"""One data set in full: how each fit ended, and every value beside the certified one."""

import textwrap

import numpy as np

from jaxmin._demo.fit import Pair, agreeing_digits
from jaxmin._demo.table import WIDTH


def show_details(pair: Pair) -> None:
    """Print one data set with both of its fits."""
    data = pair.data
    p = data.certified.size
    print(f"{data.name}: {data.y.size} observations, {p} parameters, {data.difficulty} difficulty")
    print(f"  y = {data.formula}")
    for i, fit in enumerate(pair.fits):
        counts = f"{int(fit.res.nit)} iterations, {int(fit.res.nfev)} evaluations"
        text = f"status {int(fit.res.status)}: {fit.res.message} {counts}"
        print(textwrap.fill(text, WIDTH, initial_indent=f"  start {i + 1}  ", subsequent_indent=" " * 11))
    print(f"  both in {1e3 * pair.first:.1f} ms at first, and in {1e3 * pair.second:.2f} ms the second time")
    print(f"  {'':6}{'certified':>17}{'start 1':>19}{'digits':>8}{'start 2':>19}{'digits':>8}")
    names = [f"b{i + 1}" for i in range(p)] + [f"s(b{i + 1})" for i in range(p)] + ["rss"]
    fitted = [np.concatenate([fit.res.x, fit.errors, [2 * float(fit.res.fun)]]) for fit in pair.fits]
    certified = np.concatenate([data.certified, data.deviation, [data.rss]])
    for name, value, *both in zip(names, certified, *fitted, strict=True):
        cells = "".join(f"{v:>19.10e}{agreeing_digits(v, value):>8.1f}" for v in both)
        print(f"  {name:6}{value:>17.10e}{cells}")
    print("  s(b): standard errors; rss: the residual sum of squares\n")
