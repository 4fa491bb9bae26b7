"""Many noisy copies of one data set, fitted as one batch: are the error bars right?"""

import jax
import numpy as np

import jaxmin
from jaxmin._demo.fit import program, seconds
from jaxmin._demo.progress import progress
from jaxmin.datasets import nist


def noisy_copies(data: nist.Regression, n: int, seed: int = 0) -> np.ndarray:
    """The certified curve with noise of NIST's standard deviation, `n` times: [n, observations]."""
    noise = data.rsd * np.random.default_rng(seed).standard_normal((n, data.y.size))
    return np.asarray(nist.model(data.name)(data.certified, data.x)) + noise


def show_batch(name: str, n: int) -> None:
    """Fit `n` noisy copies, and print the spread of the fits beside the errors that the fits give themselves."""
    data = nist.load(name)
    arguments = data.starts[1], data.x, noisy_copies(data, n)
    batch = jax.jit(jax.vmap(program(nist.model(name)), (None, None, 0)))
    with progress(f"{name}: compiling a batch"):
        compiled, to_compile = seconds(lambda: batch.lower(*arguments).compile())
    (res, errors), to_run = seconds(lambda: compiled(*arguments))

    print(f"{n:,} noisy copies of {name} as one batch, jax.vmap of the fit, from start 2")
    print(f"  compile {to_compile:.2f} s, run {1e3 * to_run:.1f} ms, {1e6 * to_run / n:.1f} us a fit")
    codes, counts = np.unique(np.asarray(res.status), return_counts=True)
    ended = ", ".join(f"{count:,} {jaxmin.Status(int(code)).name}" for code, count in zip(codes, counts))
    print(f"  {ended}; evaluations: median {np.median(res.nfev):.0f}, most {np.max(res.nfev)}")
    _show_errors(data, *(np.asarray(each)[np.asarray(res.success)] for each in (res.x, errors)))


def _show_errors(data: nist.Regression, b: np.ndarray, errors: np.ndarray) -> None:
    """The parameters [k, p] of the successful fits and their standard errors, beside NIST's."""
    print(f"  {'':3}{'certified':>14}{'mean of fits':>14}", end="")
    print(f"{'NIST s.d.':>13}{'s.d. of fits':>14}{'mean standard error':>21}{'ratio':>8}")
    for i, (value, deviation) in enumerate(zip(data.certified, data.deviation)):
        mean, spread, error = (b[:, i].mean(), b[:, i].std(ddof=1), errors[:, i].mean()) if len(b) > 1 else [np.nan] * 3
        cells = f"{deviation:>13.4e}{spread:>14.4e}{error:>21.4e}{error / spread:>8.3f}"
        print(f"  b{i + 1:<2}{value:>14.6e}{mean:>14.6e}{cells}")
    print("  ratio: mean standard error / s.d. of fits; near 1, the error bars of a single fit can be trusted\n")
