"""Results of a script as JSON lines: the first says on what machine they were made and how, each other is a record."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys

LIBRARIES = (
    "jaxmin", "jax", "jaxlib", "optax", "jaxopt", "optimistix", "tfp-nightly", "scipy", "numpy", "sif2jax",
    "cyipopt-wheels",
)  # fmt: skip
PLACES = ("--jsonl", "--out", "--cache")  # options that say where files go, which is no part of how results were made


def setting(**own):
    """What all records of a file have in common: the machine, the versions, the command, and what the script adds."""
    import jax  # here: a reader of results needs neither
    import one_thread

    return {
        "command": command(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "python": platform.python_version(),
        "versions": versions(),
        "threads": one_thread.SETTING,
    } | own


def processor():
    """The model name that Linux gives, or what Python knows."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions():
    """Of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command(argv):
    """The command as one types it in the folder of the repository, whatever machine it ran on."""
    script, *given = argv
    pairs = zip([None, *given], given)
    shown = [argument for before, argument in pairs if argument not in PLACES and before not in PLACES]
    return shlex.join(["python", f"benchmarks/{pathlib.Path(script).name}", *shown])


def reason(error):
    """Why a solver has no numbers: an exception in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def show(setting):
    """Prints what the tables of a script begin with."""
    print(f"{setting['dtype']}, gradient to {setting['gtol']:g} in the infinity norm; {setting['machine']}")
    print(", ".join(f"{name} {version}" for name, version in setting["versions"].items()))
    print("one thread: " + ", ".join(f"{name}={value}" for name, value in setting["threads"].items()))
    print(f"{setting['clock']} clock")


def add_option(parser):
    parser.add_argument("--jsonl", metavar="FILE", type=pathlib.Path, help="write the setting and each record there")


def parsed(parser, argv, solver_of):
    """The options of a command; each name after --solver must be one that ``solver_of`` knows."""
    options = parser.parse_args(argv)
    try:
        for name in getattr(options, "solver", None) or ():
            solver_of(name)
    except argparse.ArgumentTypeError as error:
        parser.error(f"--solver {error}")
    return options


def main(parse, argv=None):
    """Runs the command that ``parse(argv)`` gives as ``command``; the exit status."""
    options = parse(argv)
    options.command(options)
    return 0


class Writer:
    """Writes line by line, so that what was measured is there if the rest fails. Without a path it writes nothing."""

    def __init__(self, path, setting, continues=False):
        self.path = path
        if path and not continues:
            path.write_text("")
        self._line({"setting": setting})

    def write(self, *records):
        for record in records:
            self._line(record)

    def _line(self, value):
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(value) + "\n")


def read(path):
    """The settings in a file, one for each run that wrote to it, and the records."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [line["setting"] for line in lines if "setting" in line], [line for line in lines if "setting" not in line]
