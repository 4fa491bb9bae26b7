"""Two versions of jaxmin measured by the same script, each in a process of its own, and compared row by row.

A script has ``measure(options)``, a generator of rows: dictionaries of which the fields ``key`` say what was measured
and the others what came out. :func:`main` runs the script once for each version, with the package of that version
first on the path, and hands both tables to the script's ``compare``.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tarfile
import tempfile

import records

HERE = pathlib.Path(__file__).resolve().parents[1]


def parser_of(doc):
    """A parser with the options that say which versions are compared."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REV", help="the revision of git to compare with")
    parser.add_argument("--against", type=pathlib.Path, metavar="FILE", help="what was saved, to compare with")
    parser.add_argument("--tree", type=pathlib.Path, default=HERE, help="the checkout under test (default: this one)")
    parser.add_argument("--save", type=pathlib.Path, metavar="FILE", help="keep what the checkout under test gave")
    records.add_option(parser)
    parser.add_argument("--all", action="store_true", help="print every row")
    parser.add_argument("--measure", type=pathlib.Path, help=argparse.SUPPRESS)  # in the process of a version
    return parser


def main(parser, measure, key, compare):
    """The script: compare(before, now, options) prints, and says whether the versions pass. 1: they do not."""
    options = parser.parse_args()
    if options.before and options.against:
        parser.error("--before and --against: one of them")
    if options.measure is not None:
        _serve(options.measure, measure(options))
        return 0
    before = None
    if options.before:
        with checkout(options.before) as tree:
            before = _measured("before", tree)
    elif options.against:
        before = json.loads(options.against.read_text())
    now = _measured("now", options.tree.resolve())
    if options.save:
        options.save.write_text(json.dumps(now, indent=1) + "\n")
    records.Writer(options.jsonl, records.setting()).write(*now["rows"])
    if before is not None and before["setting"] != now["setting"]:
        print(f"not the same setting, before: {before['setting']}, now: {now['setting']}")
    tables = (found and {tuple(row[name] for name in key): row for row in found["rows"]} for found in (before, now))
    return 0 if compare(*tables, options) else 1


@contextlib.contextmanager
def checkout(revision):
    """The files of a revision, in a folder that is there for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        archive = pathlib.Path(folder, "archive.tar")
        subprocess.run(["git", "-C", HERE, "archive", "--output", archive, revision, "jaxmin"], check=True)
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        yield pathlib.Path(folder).resolve()


def _measured(name, tree):
    """The rows and the setting of the version in ``tree``: this same command, run with that package."""
    begin = _children_time()
    command = [sys.executable, *sys.argv, "--measure", str(tree)]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(tree)}, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    lines = [json.loads(line) for line in process.stdout]
    if process.wait():
        raise SystemExit(f"{name}: {' '.join(command)} ended with {process.returncode}")
    setting, *rows = lines
    print(f"{name}: {tree}, {len(rows)} rows in {_children_time() - begin:.0f} s of processor time", flush=True)
    return {"setting": setting, "rows": rows}


def _children_time():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _serve(tree, rows):
    import jaxmin

    imported = pathlib.Path(jaxmin.__file__).resolve()
    if imported.parent.parent != tree.resolve():
        raise SystemExit(f"jaxmin was to come from {tree}, and came from {imported}")
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    setting = {"machine": platform.machine(), "python": platform.python_version(), **versions}
    for line in itertools.chain([setting], rows):
        print(json.dumps(line), flush=True)
