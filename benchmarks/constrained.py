"""Small constrained CUTEst problems: minimizers run on them, their answers judged and counted.

python benchmarks/constrained.py run --solver jaxmin-interior_point ipopt --out results.jsonl
python benchmarks/constrained.py report results.jsonl
"""

import argparse
import ast
import contextlib
import os
import pathlib
import signal
import time
import warnings

import one_thread  # isort: skip  # noqa: F401
import constrained_report
import jax
import numpy as np
import profiles
import records
from constrained_judge import RULES, Values, is_best, verdict
from constrained_problems import listed, load
from constrained_solvers import NAMES, Functions, Task, solver_of
from workers import Worker

# Seconds of processor time. The first run of a program has its own cost, and while a limit is set, Linux counts that
# time in ticks of some ms: a solve that took less than QUICK is made again, for as long as SAMPLE.
QUICK, SAMPLE = 0.5, 0.05
PATIENCE = 1.5  # of the time limit: then a solver that did not end by itself loses its process


class Judge:
    """A problem with its functions in float64, and what is known of it."""

    def __init__(self, problem, known):
        self.problem, self.known = problem, known
        self.functions = Functions(problem, np.float64)
        self.functions.compile("values", "slopes")

    def verdict(self, x, dtype):
        problem, rules, x = self.problem, RULES[dtype], np.asarray(x, np.float64)
        f, c = self.functions.values(x)
        values = Values(f, c, *self.functions.slopes(x))
        found = verdict(x, values, problem.m_eq, (problem.lower, problem.upper), rules)
        return found | {"best": is_best(found, self.known["best"], rules)}


def attempt(judge, solver, options, compiled):
    """The record of one solve; ``compiled`` is called between the compilation and the solve."""
    functions = judge.functions if options.dtype == "float64" else Functions(judge.problem, options.dtype)
    task = Task(functions, options.time_limit, options.count_outside, dict(options.option))
    jax.clear_caches()
    run, tell, spent = solver_of(solver)(task)
    compiled()
    clock = time.process_time
    begin = clock()
    found = jax.block_until_ready(run())
    first = clock() - begin
    answer = tell(found)
    seconds = _warm(run, clock) if first < QUICK else first
    return {
        "status": answer.status, "claim": answer.claim, "said": answer.said, "message": answer.message,
        "nfev": answer.nfev, "nit": answer.nit, **judge.verdict(answer.x, options.dtype),
        "outside": answer.outside, "compile": round(spent, 3), "run": float(f"{seconds:.3g}"),
    }  # fmt: skip


def _warm(run, clock):
    """Seconds of a solve, of those that fit into a sample."""
    begin, calls, seconds = clock(), 0, 0.0
    while seconds < SAMPLE:
        jax.block_until_ready(run())
        calls += 1
        seconds = clock() - begin
    return seconds / calls


# Processes


def serve(pipe, options):
    """A worker: sends a record for each (problem, solver) that it is sent, after two messages of how far it is."""
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", options.dtype == "float64")
    _set_cache(options.cache)
    table, judges = listed(), {}
    # The processor time that a stage may take; when it is spent, the signal ends the process, whatever it does.
    stage = lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            name, solver = pipe.recv()

            def compiled():
                stage(PATIENCE * options.time_limit)
                pipe.send("compiled")

            try:
                stage(options.compile_limit)
                if name not in judges:
                    judges = {name: Judge(load(name), table[name])}
                pipe.send("judge is ready")
                stage(options.compile_limit)
                record = attempt(judges[name], solver, options, compiled)
            except Exception as error:
                record = {"reason": records.reason(error)}
            stage(0)
            pipe.send(record)


def _set_cache(folder):
    """JAX's persistent cache of compiled programs, where a folder is given; of programs of any size."""
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def run(options):
    key = lambda record: tuple(record[name] for name in profiles.KEY)
    done = {key(record) for record in profiles.read([options.out])} if options.out.exists() else set()
    table = listed()
    unknown = set(options.problems or ()) - set(table)
    if unknown:
        raise SystemExit(f"--problems: no such problems: {', '.join(sorted(unknown))}")
    chosen = [name for name in table if name in (options.problems or table) and table[name]["n"] <= options.max_n]
    tasks = []
    for name in chosen[:: options.every]:
        for solver in options.solver:
            about = {"set": "constrained", "problem": name, "solver": solver, "dtype": options.dtype}
            if key(about) not in done:
                tasks.append(about | {part: table[name][part] for part in ("n", "m_eq", "m_ineq", "kind")})
    print(f"{len(tasks)} to run, {len(done)} in the file", flush=True)
    wanted = ("dtype", "time_limit", "compile_limit", "count_outside", "option")
    setting = records.setting(clock="cpu", **{name: getattr(options, name) for name in wanted})
    setting["cache"] = options.cache is not None
    writer = records.Writer(options.out, setting, continues=True) if tasks else None
    worker = Worker(serve, options, (options.compile_limit, options.compile_limit, PATIENCE * options.time_limit), True)
    for number, about in enumerate(tasks, 1):
        record = about | worker.record(about["problem"], about["solver"])
        writer.write(record)
        print(f"[{number}/{len(tasks)}] {constrained_report.line(record)}", flush=True)
    worker.stop()


def _option(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("run", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.set_defaults(command=run)
    add = command.add_argument
    add("--solver", nargs="+", action="extend", required=True, help=f"{', '.join(NAMES)}")
    add("--dtype", default="float64", choices=RULES)
    add("--problems", nargs="+", metavar="NAME", help="these problems alone")
    add("--max-n", type=int, default=500, help="the largest number of variables")
    add("--every", type=int, default=1, metavar="K", help="every K-th problem alone, by size")
    add("--time-limit", type=float, default=20.0, help="seconds of processor time for a solve")
    add("--compile-limit", type=float, default=120.0, help="the same for what is compiled before it")
    add("--count-outside", action="store_true", help="jaxmin's evaluations outside the bounds too")
    add("--option", nargs="+", action="extend", type=_option, default=[], metavar="NAME=VALUE", help="of jaxmin")
    add("--cache", default=os.environ.get("JAX_COMPILATION_CACHE_DIR"), help="a folder for JAX's compiled programs")
    add("--out", type=pathlib.Path, default=pathlib.Path("constrained.jsonl"), help="appended to")

    command = commands.add_parser("report")
    command.set_defaults(command=lambda options: constrained_report.report(options.results, options.details))
    command.add_argument("results", nargs="+", type=pathlib.Path)
    command.add_argument("--details", action="store_true", help="the problems that each solver missed")

    return records.parsed(parser, argv, solver_of)


if __name__ == "__main__":
    raise SystemExit(records.main(parse))
