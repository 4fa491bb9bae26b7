"""`python -m jaxmin`: certified regressions, fitted from their official starts, then many fits at once."""

import argparse
import functools
import os
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmin
from jaxmin.datasets import nist
from jaxmin.datasets.nist import Regression

WIDTH = 100
ENOUGH = 6  # digits that count as agreement; NIST certifies eleven
# The options for every data set. A residual is a difference, so rounding changes the objective by more than its own
# last digit. Gradients much below this gtol are noise.
OPTIONS = {"gtol": 5e-9, "maxiter": 5_000, "maxfun": 10_000}
CACHE_HELP = "where compiled programs are kept for the next run (default: %(default)s; '' for nowhere)"
CERTIFIED, ELSEWHERE, SHORT = "certified", "another stationary point", "not reached"

# The data sets that are fitted by default.
EIGHT = ("Misra1a", "Chwirut2", "MGH17", "Eckerle4", "MGH09", "Thurber", "BoxBOD", "Rat43")


class Fit(NamedTuple):
    """The fit from one start."""

    b: np.ndarray  # [p] parameters in their own units
    rss: float  # residual sum of squares
    digits: np.ndarray  # [p] decimal digits that agree with the certified parameters
    verdict: str  # CERTIFIED, ELSEWHERE or SHORT


@functools.cache  # one function object for each model, so that a second start compiles nothing
def objective(name: str) -> Callable[..., jax.Array]:
    """f(u, scale, x, y) = 1 - R^2 at b = scale*u: the part of the variance of y that the model does not explain."""
    model = nist.model(name)

    def unexplained(u: jax.Array, scale: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        r = y - model(scale * u, x)
        return r @ r / jnp.sum((y - jnp.mean(y)) ** 2)

    return unexplained


def solve(data: Regression, scale: np.ndarray, y: Any) -> jaxmin.OptimizeResult:
    """Fit `y` on the predictor of `data`, with the parameters in units of `scale`, from `scale`."""
    ones = np.ones_like(scale)
    return jaxmin.minimize(objective(data.name), ones, args=(scale, data.x, y), options=OPTIONS)


def agreeing_digits(fitted: Any, certified: Any) -> np.ndarray:
    """Decimal digits that agree, by the relative error: from 0 to 11, as many as NIST gives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = -np.log10(np.abs(fitted - certified) / np.abs(certified))
    return np.clip(np.nan_to_num(digits, nan=0.0, posinf=11.0), 0.0, 11.0)


def judge(data: Regression, start: int, result: jaxmin.OptimizeResult) -> Fit:
    """Compare a result with the certified values.

    Returns:
      A `Fit`. If fewer than `ENOUGH` digits agree, a success with a larger residual is another stationary point, and
      any other result did not reach the certified one.
    """
    b = data.starts[start] * np.asarray(result.x)
    rss = float(np.sum((data.y - np.asarray(nist.model(data.name)(b, data.x))) ** 2))
    digits = agreeing_digits(b, data.certified)
    if digits.min() >= ENOUGH:
        verdict = CERTIFIED
    elif bool(result.success) and rss > data.rss * (1 + 1e-6):
        verdict = ELSEWHERE
    else:
        verdict = SHORT
    return Fit(b, rss, digits, verdict)


def seconds(call: Callable[[], Any]) -> tuple[Any, float]:
    """Call `call` once; return its result, and the seconds until it was ready."""
    begin = time.perf_counter()
    answer = jax.block_until_ready(call())
    return answer, time.perf_counter() - begin


def paragraph(label: str, text: str) -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=f"  {label:<9}", subsequent_indent=" " * 11))


def show_regression(data: Regression) -> list[Fit]:
    """Fit one data set from both starts, print the table, and return the two fits."""
    sizes = f"{data.y.size} observations, {data.certified.size} parameters"
    print(f"{data.name}: {sizes}, {data.difficulty} difficulty")
    print(f"  y = {data.formula}")
    fits = []
    for start in (0, 1):
        call = functools.partial(solve, data, data.starts[start], data.y)
        _, first = seconds(call)
        result, second = seconds(call)
        one = judge(data, start, result)
        paragraph(f"start {start + 1}", f"status {int(result.status)}: {result.message}")
        counts = f"{int(result.nit)} iterations, {int(result.nfev)} evaluations"
        paragraph("", f"{counts}; first call {1e3 * first:.1f} ms, second {1e3 * second:.2f} ms")
        if one.verdict == CERTIFIED:
            paragraph("", f"certified parameters to {one.digits.min():.1f} digits or better")
        else:
            paragraph("", f"{one.verdict}: residual sum of squares {one.rss:.6g}, certified {data.rss:.6g}")
        fits.append(one)
    print(f"  {'':5}{'certified':>17}{'start 1':>19}{'digits':>8}{'start 2':>19}{'digits':>8}")
    names = [f"b{i + 1}" for i in range(data.certified.size)] + ["rss"]
    fitted = [np.append(one.b, one.rss) for one in fits]
    certified = np.append(data.certified, data.rss)
    for name, value, *both in zip(names, certified, *fitted, strict=True):
        cells = "".join(f"{v:>19.10e}{agreeing_digits(v, value):>8.1f}" for v in both)
        print(f"  {name:5}{value:>17.10e}{cells}")
    print()
    return fits


def one_lane(result: jaxmin.OptimizeResult, i: int) -> str:
    """The message of lane `i` of a batch."""
    return f"lane {i}: {jax.tree.map(lambda leaf: leaf[i], result).message}"


def show_batch(name: str, n: int, seed: int = 0) -> None:
    """Fit `n` noisy copies of the certified curve in one batch, and print the spread of the parameters."""
    data = nist.load(name)
    noise = data.rsd * np.random.default_rng(seed).standard_normal((n, data.y.size))
    y = np.asarray(nist.model(name)(data.certified, data.x)) + noise
    scale = data.starts[1]
    batch = jax.jit(jax.vmap(lambda one: solve(data, scale, one)))
    compiled, to_compile = seconds(lambda: batch.lower(y).compile())
    result, to_run = seconds(lambda: compiled(y))

    print(f"{name}, {n:,} fits as one batch: jit(vmap(minimize)), from start 2; curve + noise of NIST's s.d.")
    status, success = np.asarray(result.status), np.asarray(result.success)
    for code in np.unique(status):
        lanes = np.flatnonzero(status == code)
        paragraph("lanes", f"{lanes.size:,} of {n:,} end with status {code}; {one_lane(result, lanes[0])}")
    print(f"  {'':5}{'certified':>17}{'mean':>17}{'certified s.d.':>17}{'s.d.':>17}{'ratio':>8}")
    b = scale * np.asarray(result.x)[success]
    for i, (value, deviation) in enumerate(zip(data.certified, data.deviation, strict=True)):
        mean, spread = (b[:, i].mean(), b[:, i].std(ddof=1)) if len(b) > 1 else (np.nan, np.nan)
        cells = "".join(f"{v:>17.6e}" for v in (value, mean, deviation, spread))
        print(f"  b{i + 1:<4}{cells}{spread / deviation:>8.3f}")
    nfev = np.asarray(result.nfev)
    print("  mean and standard deviation are those of the successful lanes")
    print(f"  evaluations: median {np.median(nfev):.0f}, most {nfev.max()}")
    print(f"  compile {to_compile:.2f} s, run {1e3 * to_run:.1f} ms, {1e6 * to_run / n:.1f} us a fit\n")


def keep_programs(folder: str) -> None:
    """Let JAX keep what it compiles for the next process, unless a folder is set or the name is empty."""
    if folder and not getattr(jax.config, "jax_compilation_cache_dir", None):
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        # By default JAX keeps only what took longer than a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser("python -m jaxmin", description=__doc__)
    known: dict[str, Any] = {"choices": nist.NAMES, "metavar": "NAME"}
    listed = f"data sets to fit, of {', '.join(nist.NAMES)} (default: {', '.join(EIGHT)})"
    parser.add_argument("--problems", nargs="+", default=EIGHT, help=listed, **known)
    parser.add_argument("--batch", type=int, default=1000, metavar="N", help="fits at once (default: 1000)")
    parser.add_argument("--batch-problem", default="Misra1a", help="their data set (default: Misra1a)", **known)
    parser.add_argument("--cache", default="~/.cache/jaxmin", metavar="DIR", help=CACHE_HELP)
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)  # float32 has fewer digits than are certified
    keep_programs(options.cache)

    platform = jax.devices()[0].platform
    print(f"NIST StRD regressions by jaxmin.minimize in float64 on {platform}, from both official starts")
    print(f"f = 1 - R^2, parameters in units of the start, gtol = {OPTIONS['gtol']:g}\n")
    verdicts = []
    for name in options.problems:
        fits = show_regression(nist.load(name))
        verdicts += [(f"{name} start {i + 1}", one.verdict) for i, one in enumerate(fits)]
    if options.batch > 0:
        show_batch(options.batch_problem, options.batch)
    agreed = sum(verdict == CERTIFIED for _, verdict in verdicts)
    others = "; ".join(f"{where}: {verdict}" for where, verdict in verdicts if verdict != CERTIFIED)
    summary = f"{agreed} of {len(verdicts)} fits agree with every certified parameter to {ENOUGH} digits"
    print(textwrap.fill(f"{summary}; {others}" if others else summary, WIDTH))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
