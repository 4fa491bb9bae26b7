"""What XLA makes of the loop of a solve on a CPU: kernels, copies and instructions, of two versions of jaxmin.

    python benchmarks/kernels.py --before main
    python benchmarks/kernels.py --methods lbfgs --sizes 10 --all

The chained Rosenbrock function is compiled with each method, as a single solve and as a batch under ``vmap``, and the
text of the optimized program is counted: all that runs within its while loops, branches included. A kernel is a fusion
or an operation that does work by itself, such as a matrix product; copies are counted apart. Instructions are those
of the kernels, without parameters and constants: XLA repeats cheap ones in each kernel that needs them. "compiled" are
the instructions of the whole program: what a compilation has to do. Printed are the programs whose counts differ; the
exit code is 1 if one has more kernels or more copies than before.
"""

import one_thread  # isort: skip  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import versions
from programs import COUNTS, count

METHODS = ("lbfgs", "bfgs", "trust_ncg", "newton_cg", "nelder_mead")
BATCHED = ("lbfgs", "bfgs")
KEY = ("method", "n", "lanes", "dtype")
WORSE = ("kernels", "copies")  # more of these is a failure


def rosen_chain(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


# Programs


def measure(options):
    import jaxmin  # here: the process that compares needs none

    jax.config.update("jax_enable_x64", options.dtype == "float64")
    # What comes out of a persistent cache need not have its text.
    jax.config.update("jax_enable_compilation_cache", False)
    for method in options.methods:
        for n in options.sizes:
            for lanes in (0, options.lanes) if method in BATCHED else (0,):
                x0 = np.resize(np.asarray([-1.2, 1.0], options.dtype), (lanes, n) if lanes else n)
                solve = lambda x0, method=method: jaxmin.minimize(rosen_chain, x0, method=method)
                program = jax.jit(jax.vmap(solve) if lanes else solve).lower(x0).compile()
                about = {"method": method, "n": n, "lanes": lanes, "dtype": options.dtype}
                yield about | count(program.as_text())
        jax.clear_caches()


def compare(before, now, options):
    print(f"{'method':<12}{'n':>4}{'lanes':>7}" + "".join(f"{name:>14}" for name in COUNTS) + "   kernels by kind")
    worse = changed = 0
    for key, row in now.items():
        old = None if before is None else before.get(key)
        higher = [name for name in WORSE if old and row[name] > old[name]]
        worse += bool(higher)
        changed += old is not None and old != row
        if before is None or options.all or old != row:
            method, n, lanes, _ = key
            cells = (row[name] if old in (None, row) else f"{old[name]} -> {row[name]}" for name in COUNTS)
            kinds = ", ".join(f"{kind} {number}" for kind, number in row["kinds"].items())
            print(f"{method:<12}{n:>4}{lanes or 'one':>7}" + "".join(f"{cell:>14}" for cell in cells), end="")
            print(f"   {kinds}{'' if before is None or old else '; not there before'}", end="")
            print(f"; MORE {' and '.join(higher)}" if higher else "")
    if before is not None:
        rows = [(before[key], row) for key, row in now.items() if key in before]
        for name in COUNTS[1:]:
            print(f"{name} in all: {sum(old[name] for old, _ in rows)} -> {sum(row[name] for _, row in rows)}")
        print(f"{len(now)} programs: {changed} changed, {worse} with more kernels or copies")
    return not worse


def main():
    parser = versions.parser_of(__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 10, 100])
    parser.add_argument("--lanes", type=int, default=256, help=f"of a batch, with {' and '.join(BATCHED)}")
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    return versions.main(parser, measure, KEY, compare)


if __name__ == "__main__":
    raise SystemExit(main())
