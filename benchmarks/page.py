"""The page about benchmarks and three numbers of the front page, made from the files that ``everything.py`` wrote.

    python benchmarks/page.py benchmarks/results --docs docs
    python benchmarks/page.py benchmarks/results --docs docs --check

It draws the pictures in ``docs/_static/benchmarks``, and writes what is between ``<!-- made: NAME -->`` and
``<!-- end -->`` in ``docs/benchmarks.md`` and ``docs/index.md``; the rest is written by hand. ``--check`` writes
nothing, and exits with 1 if a page is not what the results give.
"""

import argparse
import pathlib
import re
import statistics
from typing import Any, NamedTuple

import pictures
import profiles
import records
from pictures import Panel

PAGE, FRONT = "benchmarks.md", "index.md"
FOLDER = "_static/benchmarks"
REGION = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PARTS = ("speed", "compile", "batch", "large", "kernels", "cutest")
PROBLEMS = {"rosenbrock": "Rosenbrock chain", "smoothing": "smoothing spline"}
CALLED, FLOORS = "jaxmin, called from Python", ("value_and_grad alone", "value and gradient")
ITERATIONS = 10  # a solve of fewer takes the time of the call
MOST = 0.9  # of the starts of a batch: a solver that reaches the tolerance from fewer has no time
RUN = ("unconstrained", "float64")  # of CUTEst
REFERENCE, SCIPY = "jaxmin-lbfgs", "scipy-l-bfgs-b"
ONCE = "Each problem was solved once: times of a few ms are mostly what the first run of a program costs."
WARM = "A solve of less than a second was made again, for a tenth of a second: the mean of these counts."


class Part(NamedTuple):
    settings: list
    rows: list  # with numbers
    failed: dict  # solver -> why it has no numbers, everywhere or at some sizes; of cutest that is a result


def load(folder):
    """The parts that were measured."""
    found = {}
    for name in PARTS:
        path = folder / f"{name}.jsonl"
        if path.exists():
            settings, rows = records.read(path)
            dtype = {"dtype": settings[-1].get("dtype", "float64")}
            failed = {} if name == "cutest" else {row["solver"]: row["reason"] for row in rows if "reason" in row}
            found[name] = Part(
                settings, [dtype | row for row in rows if "reason" not in row or name == "cutest"], failed
            )
    return found


# Markdown


def text(value):
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def table(head, rows):
    """The lines of a table; a cell is text or a number."""
    cell = lambda value: "" if value is None else value if isinstance(value, str) else text(value)
    ruled = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(cell, row)) + " |" for row in ruled] + [""]


def grid(panel):
    """A panel as a table: a row for each solver, a column for each n or group."""
    columns = columns_of([panel])
    title = [f"{panel.title}:", ""] if panel.title else []
    rows = [[solver, *map(row.get, columns)] for solver, row in panel.table.items()]
    return title + table([panel.what, *map(heading, columns)], rows)


def columns_of(panels):
    """The columns of several panels: sizes by size, names as they come."""
    found = list(dict.fromkeys(column for panel in panels for row in panel.table.values() for column in row))
    return sorted(found) if all(isinstance(column, int) for column in found) else found


def heading(column):
    return f"{column:,}" if isinstance(column, int) else column


def commands(part):
    """The commands that made a file."""
    found = dict.fromkeys(setting["command"] for setting in part.settings if "command" in setting)
    return [f"`{command}`" for command in found] + [""] if found else []


# Numbers: each function makes panels of a part's rows


def collected(rows, column, value):
    """solver -> column -> value, where there is one."""
    found = {row["solver"]: {} for row in rows if row["solver"] not in FLOORS}
    for row in rows:
        number = value(row)
        if number is not None and row["solver"] in found:
            found[row["solver"]][row[column]] = number
    return {solver: own for solver, own in found.items() if own}


def of_problems(rows, what, value):
    """A panel for each problem of speed.py."""
    chosen = {name: [row for row in rows if row["problem"] == name] for name in PROBLEMS}
    return [Panel(PROBLEMS[name], what, collected(own, "n", value)) for name, own in chosen.items() if own]


def iteration(rows):
    rows = [row for row in rows if row["solver"] != CALLED]
    value = lambda row: 1e6 * min(row["samples"]) / row["nit"] if row["nit"] >= ITERATIONS else None
    return of_problems(rows, "µs an iteration", value)


def solve(rows):
    return of_problems(rows, "ms", lambda row: 1e3 * min(row["samples"]) if row.get("solved") else None)


def memory(rows):
    size = {"float64": 8, "float32": 4}
    rows = [row for row in rows if row["problem"] == "rosenbrock"]
    vectors = lambda row: row["bytes"] / (row["n"] * size[row["dtype"]]) if "bytes" in row else None
    return [Panel("", "vectors like x", collected(rows, "n", vectors))]


def first_call(rows):
    return [Panel("", "seconds to compile", collected(rows, "function", lambda row: row["seconds"]))]


def batch(rows):
    """The time, and from how many starts the tolerance was reached."""
    rows = [row for row in rows if "n" in row]
    title = f"{max((row['starts'] for row in rows), default=0):,} starts"
    time = lambda row: 1e3 * min(row["samples"]) if row["stationary"] >= MOST * row["starts"] else None
    return [
        Panel(title, "ms", collected(rows, "n", time)),
        Panel("of these reached the tolerance", "starts", collected(rows, "n", lambda row: f"{row['stationary']:,}")),
    ]


def large(rows):
    """Time and ratio, and the memory."""
    name = lambda row, begin: f"{begin}, bounds" if row["bounds"] else begin
    named = [row | {"solver": name(row, "jaxmin lbfgs")} for row in rows]
    least = [row | {"solver": name(row, "the least"), "iteration ms": row["least ms"]} for row in rows]
    of = lambda field, scale=1: lambda row: scale * row[field]
    return [
        Panel("time of an iteration", "ms", collected(named + least, "n", of("iteration ms", 1e3))),
        Panel("ratio to the least", "ratio", collected(named, "n", of("ratio")), scale="linear"),
        Panel("memory", "vectors like x", collected(named, "n", of("vectors"))),
    ]


# Comparisons


def limited(solver):
    return "lbfgs" in solver.lower() or "l-bfgs" in solver.lower()


def ours(solver):
    return solver.startswith(pictures.OURS)


KINDS = {
    "lbfgs, peers' L-BFGS": limited,
    "bfgs, peers' BFGS": lambda solver: not limited(solver) and "bfgs" in solver.lower(),
    "the faster of ours, of all": lambda solver: True,
}


def against(panel, kinds, chosen):
    """For each kind of solver the least of ours by the least of the peers', with the peer's name, in each column."""
    for kind, test in ((kind, KINDS[kind]) for kind in kinds):
        row = {}
        for column in chosen:
            cost = {solver: own[column] for solver, own in panel.table.items() if column in own and test(solver)}
            mine = [value for solver, value in cost.items() if ours(solver) and "bounds" not in solver]
            peers = {solver: value for solver, value in cost.items() if not ours(solver)}
            if mine and peers:
                best = min(peers, key=peers.get)
                row[column] = min(mine) / peers[best], best
        if row:
            yield kind, row


def behind(results):
    """The tables of ratios to the best peer, and in how many of them jaxmin is behind."""
    speed, compiled, batches = (results[name].rows if name in results else [] for name in ("speed", "compile", "batch"))
    same_kind = list(KINDS)[:2]
    lines, ratios = [], []
    for title, panels, kinds in (
        ("Time of an iteration", iteration(speed), same_kind),
        ("Time of a solve to gtol", solve(speed), list(KINDS)),
        ("Time of a batch", batch(batches)[:1], same_kind),
        ("Compilation", first_call(compiled), same_kind),
        ("Memory", memory(speed), same_kind),
    ):
        columns, rows = columns_of(panels), []
        for panel in panels:
            for kind, row in against(panel, kinds, columns):
                ratios += [ratio for ratio, _ in row.values()]
                rows.append([", ".join(filter(None, (panel.title, kind))), *(shown(row.get(name)) for name in columns)])
        if rows:
            lines += table([title, *map(heading, columns)], rows)
    more = sum(ratio > 1 for ratio in ratios)
    return [f"jaxmin is behind the best peer in {more} of the {len(ratios)} comparisons.", "", *lines]


def shown(pair):
    """A ratio with the peer's name; bold where jaxmin is behind."""
    if pair is None:
        return ""
    ratio, peer = pair
    return f"**{ratio:.2f}** {peer}" if ratio > 1 else f"{ratio:.2f} {peer}"


def common(rows):
    """solver -> problem -> record of the CUTEst run, on the problems that all solvers were given."""
    solvers = profiles.groups(rows).get(RUN, {})
    shared = set.intersection(*(set(own) for own in solvers.values())) if solvers else set()
    return {solver: {name: own[name] for name in sorted(shared)} for solver, own in solvers.items()}


def slower(reference, own):
    """The problems that both solve, with 1 ms or more for one of them."""
    return [
        name
        for name in profiles.both(reference, own)
        if max(reference[name]["run"], own[name]["run"]) >= profiles.COSTS[1].least
    ]


def relative(reference, own, names, cost):
    """The geometric mean of the reference's cost relative to another solver's."""
    return profiles.mean(profiles.costs(reference, names, cost) / profiles.costs(own, names, cost))


def cutest(rows):
    solvers, (evaluations, seconds) = common(rows), profiles.COSTS
    counted = []
    for solver, own in solvers.items():
        solved = [row for row in own.values() if row["solved"]]
        middle = lambda field, solved=solved: statistics.median(row[field] for row in solved) if solved else 0
        counted.append([solver, str(len(own)), str(len(solved)), f"{middle('nfev'):g}", middle("compile")])
    lines = table(["solver", "problems", "solved", "evaluations, median", "compilation s, median"], counted)
    compared = []
    for solver, own in solvers.items():
        reference = solvers.get(REFERENCE, {})
        names, slow = profiles.both(reference, own), slower(reference, own)
        if solver != REFERENCE and slow:
            of = lambda cost, names, own=own, ref=reference: f"{relative(ref, own, names, cost):.2f}"
            compared.append([solver, str(len(names)), of(evaluations, names), str(len(slow)), of(seconds, slow)])
    again = all("first" in row for own in solvers.values() for row in own.values() if "run" in row)
    lines += [WARM if again else ONCE, ""]
    head = [f"{REFERENCE} against", "both solve", "evaluations", "of these, 1 ms or more", "time"]
    return lines + table(head, compared)


def front(results):
    """Three numbers, each with what it counts."""
    solvers = common(results["cutest"].rows)
    count = {solver: sum(row["solved"] for row in own.values()) for solver, own in solvers.items()}
    mine, scipy = solvers[REFERENCE], solvers[SCIPY]
    timed = slower(mine, scipy)
    faster = 1 / relative(mine, scipy, timed, profiles.COSTS[1])
    panel = batch(results["batch"].rows)[0]
    _, row = next(against(panel, ["lbfgs, peers' L-BFGS"], columns_of([panel])))
    times = [1 / ratio for ratio, _ in row.values()]
    peers = sorted(((n, name) for name, n in count.items() if not name.startswith(pictures.OURS)), reverse=True)
    beside = ", ".join(f"{name} {n}" for n, name in peers)
    cells = [
        (f"{count[REFERENCE]} of {len(mine)}", f"CUTEst problems solved by the default method; {beside}"),
        (
            f"{faster:.1f} times",
            "as fast as SciPy's L-BFGS-B with a compiled gradient: the geometric mean over "
            f"{len(timed)} of them, which both solve, and one of the two in 1 ms or more",
        ),
        (
            f"{min(times):.1f} to {max(times):.1f} times",
            f"as fast as the best peer's L-BFGS: {panel.title} of Rosenbrock's function at once, "
            f"with {min(row)} to {max(row)} variables",
        ),
    ]
    head, said = ([cell[i] for cell in cells] for i in (0, 1))
    return table(head, [said])


def kernels(rows):
    fields = ("kernels", "copies", "instructions", "compiled")
    cells = lambda row: [row["method"], str(row["n"]), str(row["lanes"] or "one"), *(str(row[name]) for name in fields)]
    return table(["method", "n", "lanes", *fields], map(cells, rows))


def setting(results):
    """What the first lines of the files say; where they differ, all values."""
    every = [setting for part in results.values() for setting in part.settings]
    values = lambda get: "; ".join(dict.fromkeys(str(get(one)) for one in every if get(one)))
    names = dict.fromkeys(name for one in every for name in one["versions"])
    libraries = (f"{name} {values(lambda one, name=name: one['versions'].get(name))}" for name in names)
    threads = lambda one: ", ".join(f"{name}={value}" for name, value in one.get("threads", {}).items())
    return table(
        ["", ""],
        [
            ["processor", values(lambda one: one.get("processor"))],
            ["machine", values(lambda one: one.get("machine"))],
            ["Python", values(lambda one: one.get("python"))],
            ["libraries", ", ".join(libraries)],
            ["threads", values(threads)],
            ["date", "; ".join(sorted({one["date"] for one in every if "date" in one}))],
        ],
    )


# The page


class Section(NamedTuple):
    """A part of the page that has tables, and a picture where ``draw`` makes one."""

    part: str
    panels: Any  # rows -> panels, for tables and picture
    draw: Any = None
    alt: str = ""
    tables: Any = None  # rows -> lines, where they are not those of the panels
    drawn: int = 2  # panels in the picture


SECTIONS = {
    "iteration": Section(
        "speed", iteration, pictures.lines,
        "Time of an iteration against n, logarithmic axes, a line for each solver. Left the Rosenbrock chain, right "
        "the smoothing spline. The numbers are in the tables below.",
    ),
    "solve": Section("speed", solve),
    "compile": Section(
        "compile", first_call, pictures.bars,
        "Seconds of compilation: a group of bars for each function, a bar for each solver. The numbers are in the "
        "table below.",
    ),
    "batch": Section(
        "batch", batch, pictures.lines,
        "Time of a batch of starts against n, logarithmic axes, a line for each solver. The numbers are in the table "
        "below.",
        drawn=1,
    ),
    "memory": Section(
        "speed", memory, pictures.lines,
        "Planned memory in vectors like x against n, logarithmic axes, a line for each solver. The numbers are in the "
        "table below.",
    ),
    "profiles": Section(
        "cutest", common, pictures.shares,
        "Performance profiles over CUTEst: the share of problems that a solver solves within a factor of the best "
        "solver's cost. Left the cost is evaluations, right it is time. The table below has how many each solves.",
        tables=cutest,
    ),
    "large": Section(
        "large", large, pictures.lines,
        "Left the time of an iteration of jaxmin's lbfgs against n, and the least that its algorithm needs; right the "
        "ratio of the two; free and with bounds. The numbers are in the tables below.",
    ),
    "kernels": Section("kernels", None, tables=kernels),
}  # fmt: skip


def region(name, results):
    """The lines of a region of the page."""
    if name == "front" and not {"cutest", "batch"} <= results.keys():
        return ["Not measured.", ""]
    if name in (whole := {"setting": setting, "behind": behind, "front": front}):
        return whole[name](results)
    section = SECTIONS[name]
    if section.part not in results:
        return ["Not measured.", ""]
    part = results[section.part]
    picture = [f"![{section.alt}]({FOLDER}/{name}.svg)", ""] if section.draw else []
    tables = section.tables or (lambda rows: [line for panel in section.panels(rows) for line in grid(panel)])
    failed = [f"- {solver} did not run, or not everywhere: `{reason}`" for solver, reason in part.failed.items()]
    return [*picture, *commands(part), *tables(part.rows), *(failed + [""] if failed else [])]


def filled(page, results):
    """The page with its regions made from the results."""
    return REGION.sub(lambda found: found[1] + "\n" + "\n".join(region(found[2], results)) + "\n" + found[3], page)


def draw(results, folder, suffix="svg"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, section in SECTIONS.items():
        if section.draw and section.part in results:
            data = section.panels(results[section.part].rows)
            data = data[: section.drawn] if isinstance(data, list) else data
            pictures.save(section.draw(data), folder / f"{name}.{suffix}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, help="the folder of the files")
    parser.add_argument("--docs", type=pathlib.Path, default=pathlib.Path("docs"), help="the folder of the pages")
    parser.add_argument("--check", action="store_true", help="only compare the page with the results")
    options = parser.parse_args()
    results, paths = load(options.results), [options.docs / PAGE, options.docs / FRONT]
    before = {path: path.read_text("utf-8") for path in paths}
    after = {path: filled(text, results) for path, text in before.items()}
    if options.check:
        changed = [path for path in paths if after[path] != before[path]]
        for path in changed:
            print(f"{path} is not what the results give: run page.py without --check")
        return bool(changed)
    for path, text in after.items():
        path.write_text(text, "utf-8")
    draw(results, options.docs / FOLDER)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
