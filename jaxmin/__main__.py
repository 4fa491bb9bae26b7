"""`python -m jaxmin`: NIST's certified regressions, fitted from their official starts, then many fits at once."""

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import jax

import jaxmin
from jaxmin._demo import figure, fit, minpack, table
from jaxmin._demo.batch import show_batch
from jaxmin._demo.details import show_details
from jaxmin._demo.progress import progress
from jaxmin.datasets import nist

CACHE_HELP = "where compiled programs are kept for the next run (default: %(default)s; '' for nowhere)"
LEVELS = ("lower", "average", "higher")
WHAT = (
    f"NIST publishes {len(nist.NAMES)} nonlinear regressions: data, a model, two starts, and values of the parameters "
    f"and their standard deviations (s.d.) that are certified to {fit.CERTIFIED_DIGITS} digits. Here digits are those "
    "that agree with the certified value, for the worst parameter of a fit."
)
OWN = "popt, pcov = jaxmin.curve_fit(lambda x, a, k: a * jnp.exp(-k * x), x, y)"
NEXT = f"""\
Next: your own data, with error bars jnp.sqrt(jnp.diag(pcov)); the page is docs/fits.md:
  {OWN}
One fit in full: python -m jaxmin --problems Thurber; all of them drawn: --plot fits.png"""


def fit_all(names: Sequence[str]) -> tuple[list[fit.Pair], list[minpack.Pair]]:
    """Fit each data set, print its line of the table, and return the fits of jaxmin and of SciPy."""
    pairs: list[fit.Pair] = []
    scipy: list[minpack.Pair] = []
    with_scipy = minpack.is_installed()
    table.show_header(with_scipy)
    for name in names:
        data = nist.load(name)
        with progress(f"{name}, {len(pairs) + 1} of {len(names)}: compiling"):
            pairs.append(fit.fit_both(data))
            if with_scipy:
                scipy.append(minpack.fit_both(data))
        table.show_row(pairs[-1], scipy[-1] if scipy else None)
    return pairs, scipy


def keep_programs(folder: str) -> None:
    """Let JAX keep what it compiles for the next process, unless a folder is set or the name is empty."""
    if folder and not getattr(jax.config, "jax_compilation_cache_dir", None):
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        # By default JAX keeps only what took longer than a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser("python -m jaxmin", description=__doc__)
    known: dict[str, Any] = {"choices": nist.NAMES, "metavar": "NAME"}
    listed = f"fit only these data sets, and show every value; of {', '.join(nist.NAMES)}"
    parser.add_argument("--problems", nargs="+", help=listed, **known)
    parser.add_argument(
        "--batch", type=int, default=1000, metavar="N", help="fits at once (default: 1000; 0: no batch)"
    )
    parser.add_argument("--batch-problem", default="Misra1a", help="their data set (default: Misra1a)", **known)
    parser.add_argument("--plot", metavar="FILE", help="draw the fits with their data and confidence bands")
    parser.add_argument("--cache", default="~/.cache/jaxmin", metavar="DIR", help=CACHE_HELP)
    options = parser.parse_args(argv)
    if options.plot and (sentence := figure.obstacle(options.plot)):
        parser.error(sentence)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    begin = time.perf_counter()
    options = parse(argv)
    jax.config.update("jax_enable_x64", True)  # float32 has fewer digits than are certified
    keep_programs(options.cache)

    table.paragraph(WHAT)
    print(f"\njaxmin {jaxmin.__version__}, levenberg_marquardt, float64 on {jax.devices()[0].platform}\n")
    level = lambda name: LEVELS.index(nist.load(name).difficulty)
    pairs, scipy = fit_all(options.problems or sorted(nist.NAMES, key=level))
    table.show_summary(pairs)
    table.show_passes(pairs, scipy)
    print()
    for pair in pairs if options.problems else ():
        show_details(pair)
    if options.batch > 0:
        show_batch(options.batch_problem, options.batch)
    if options.plot:
        figure.drawn(pairs).savefig(options.plot, dpi=150)
        print(f"The fits are drawn in {options.plot}.\n")
    kept = getattr(jax.config, "jax_compilation_cache_dir", None)
    spent = f"{time.perf_counter() - begin:.1f} s, and {time.process_time():.1f} s of processor time"
    table.paragraph(f"This run took {spent}." + f" Its programs are kept in {kept} for the next one." * bool(kept))
    print(f"\n{NEXT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
