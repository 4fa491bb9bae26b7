"""All benchmarks by one command; each part is a process of its own and writes one file of results.

    python benchmarks/everything.py run --out benchmarks/results
    python benchmarks/everything.py run --out benchmarks/results --parts speed batch
    python benchmarks/everything.py run --out results --small

A part whose file exists is run again, and the file is replaced; only cutest continues its file. ``page.py`` makes the
page of the documentation from the files.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
CPU = ("--clock", "cpu")
CUTEST = ("jaxmin-lbfgs", "jaxmin-trust_ncg", "scipy-l-bfgs-b", "optax-lbfgs", "jaxopt-lbfgs")
FEW = ("--solvers", "jaxmin lbfgs", "jaxmin bfgs", "optax lbfgs")


class Part(NamedTuple):
    full: tuple  # arguments
    small: tuple | None  # of a run that shows that all works; None: it has none
    before: tuple = ()  # the script's command
    file: str = "--jsonl"  # the script's option for its file


PARTS = {
    "speed": Part(CPU, (*CPU, *FEW, "--sizes", "2", "10", "--repeats", "1", "--compiles", "1")),
    "compile": Part((), (*FEW, "--functions", "rosenbrock 2", "--times", "1")),
    "batch": Part(
        CPU,
        (*CPU, "--solvers", "jaxmin lbfgs, vmap", "optax lbfgs")
        + ("--sizes", "2", "10", "--starts", "20", "--repeats", "1", "--problems", "0"),
    ),
    "large": Part((), ("--sizes", "10000", "--repeats", "1")),
    "kernels": Part(
        ("--methods", "lbfgs", "bfgs", "cg", "trust_ncg", "newton_cg", "--sizes", "2", "10", "100"),
        ("--methods", "trust_ncg", "--sizes", "2", "10"),
    ),
    "cutest": Part(("--solver", *CUTEST, *CPU), None, before=("run",), file="--out"),
}


def command(name, part, options):
    """What runs a part, from the folder of the repository."""
    given = part.small if options.small else part.full
    return [f"benchmarks/{name}.py", *part.before, *given, part.file, str(options.out / f"{name}.jsonl")]


def run(options):
    """Each part in turn; returns the names of those that failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.parts:
        part = PARTS[name]
        if options.small and part.small is None:
            continue
        script, *given = command(name, part, options)
        print("\n$ " + shlex.join(["python", script, *given]), flush=True)
        ended = subprocess.run([sys.executable, HERE.parent / script, *given], check=False)
        if ended.returncode:
            failed.append(name)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="run the parts")
    command.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="the folder of the results")
    command.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    command.add_argument("--small", action="store_true", help="a minute in all, which shows that everything works")
    failed = run(parser.parse_args())
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
