"""The results of constrained.py as tables."""

import numpy as np
import profiles
from constrained_judge import RULES, is_best
from constrained_problems import listed

WHOLE = 0.9  # of the judged problems: a solver with fewer answers does not narrow the common ones
PIVOT = "ipopt"


def line(record):
    """A record for people."""
    size = f"{record['n']:>4} {record['m_eq']:>3} {record['m_ineq']:>3}"
    head = f"{record['problem']:<10}{size} {record['solver']:<22} {record['kind']:<10}"
    if "reason" in record:
        return f"{head} {record['reason'][:100]}"
    number = lambda name, form: "-" if record[name] is None else format(record[name], form)
    return (
        f"{head} {'kkt' if record['kkt'] else '-':<3} {'best' if record['best'] else '-':<4} "
        f"f {number('f', '<13.7g')} violation {number('violation', '<8.1e')} residual {number('residual', '<8.1e')} "
        f"nfev {record['nfev']:<4} compile {record['compile']:.2f} run {record['run']:.3g}"
        f"{' outside ' + str(record['outside']) if record['outside'] else ''}"
        f" | {'success' if record['claim'] else 'failure'} {record['status']} {record['message'][:60]}"
    )


def known_best(rows):
    """The least f of each judged problem, of the list and of the float64 results."""
    known = {name: row["best"] for name, row in listed().items() if row["kind"] == "judged"}
    for row in rows:
        if row["problem"] in known and row["dtype"] == "float64" and row.get("feasible"):
            known[row["problem"]] = min(known[row["problem"]], row["f"])
    return known


def report(paths, details):
    rows = profiles.read(paths)
    known = known_best(rows)
    for row in rows:
        row["solved"] = row["best"] = is_best(row, known.get(row["problem"]), RULES[row["dtype"]])
    for (_, dtype), solvers in profiles.groups(rows).items():
        table(dtype, solvers, known)
        pairs(solvers)
        if details:
            for solver, found in solvers.items():
                missed(solver, found)


def common(solvers, known):
    """The problems that every solver solves which has answers to nearly all."""
    answered = lambda found: sum(name in known and "reason" not in row for name, row in found.items())
    whole = [found for found in solvers.values() if answered(found) >= WHOLE * len(known)]
    solved = [{name for name, row in found.items() if row["solved"]} for found in whole]
    return sorted(set.intersection(*solved)) if solved else []


def kind(name):
    return lambda row: row["kind"] == name


def judged(test):
    return lambda row: row["kind"] == "judged" and test(row)


def claim(row):
    return row.get("claim")


def false_claim(row):
    return claim(row) and not row["kkt"] and not row["best"]


def wrong_claim(row):
    return claim(row) and not row["feasible"]


def infeasible(row):
    return row.get("said") == "infeasible"


def best(row):
    return row["best"]


def kkt(row):
    return row.get("kkt", False)


def number_of(test):
    return lambda rows: sum(bool(test(row)) for row in rows)


def share_of(test, name):
    """Of the problems of a kind."""
    return lambda rows: f"{sum(bool(test(row)) for row in rows if kind(name)(row))}/{number_of(kind(name))(rows)}"


def median_of(name, factor=1):
    """Over the problems that the solver has best."""

    def cell(rows):
        values = [row[name] for row in rows if best(row)]
        return f"{factor * np.median(values):.3g}" if values else "-"

    return cell


def outside(rows):
    counted = [row["outside"] for row in rows if kind("judged")(row) and row.get("outside") is not None]
    return np.count_nonzero(counted) if counted else "-"


COLUMNS = {
    "run": number_of(kind("judged")),
    "KKT": number_of(judged(kkt)),
    "best": number_of(judged(best)),
    "both": number_of(judged(lambda row: kkt(row) and best(row))),
    "claims": number_of(judged(claim)),
    "false": number_of(judged(false_claim)),
    "wrong": number_of(wrong_claim),
    "median": median_of("nfev"),
    "infeasible": share_of(infeasible, "infeasible"),
    "refused": number_of(judged(infeasible)),
    "unbounded": share_of(claim, "unbounded"),
    "outside": outside,
    "CPU ms": median_of("run", 1e3),
    "compile s": median_of("compile"),
}


def table(dtype, solvers, known):
    shared = common(solvers, known)
    print(f"{dtype}: {len(known)} judged problems; mean: over {len(shared)} that all solvers have best")
    width = {name: max(len(name) + 2, 7) for name in (*COLUMNS, "mean")}
    print(f"{'solver':<28}" + "".join(f"{name:>{size}}" for name, size in width.items()))
    for solver, found in solvers.items():
        cells = [cell(list(found.values())) for cell in COLUMNS.values()] + [mean_of(found, shared)]
        print(f"{solver:<28}" + "".join(f"{cell:>{size}}" for cell, size in zip(cells, width.values())))
    print()


def mean_of(found, shared):
    """Evaluations, geometric mean over the problems that all solvers have best."""
    met = [name for name in shared if name in found and best(found[name])]
    return f"{profiles.mean(profiles.costs(found, met, profiles.COSTS[0])):.2f}" if met == shared != [] else "-"


def pairs(solvers):
    """Evaluations beside Ipopt's, on the problems that both have best."""
    for solver, found in solvers.items():
        both = profiles.both(found, solvers.get(PIVOT, {}))
        if solver == PIVOT or not both:
            continue
        mine, theirs = (profiles.costs(rows, both, profiles.COSTS[0]) for rows in (found, solvers[PIVOT]))
        print(
            f"evaluations, geometric mean over the {len(both)} that both have best: {solver} "
            f"{profiles.mean(mine):.2f}, {PIVOT} {profiles.mean(theirs):.2f}, ratio {profiles.mean(mine / theirs):.3f}"
        )
    print()


def missed(solver, found):
    """The problems on which a solver falls short, each in a line."""
    kinds = {
        "not best": judged(lambda row: not best(row)),
        "best, not KKT": judged(lambda row: best(row) and not kkt(row)),
        "false claims": judged(false_claim),
        "claims at infeasible points": wrong_claim,
        "feasible problems called infeasible": judged(infeasible),
        "infeasible problems": kind("infeasible"),
        "unbounded problems with a claim": lambda row: kind("unbounded")(row) and claim(row),
    }
    for title, test in kinds.items():
        chosen = [row for row in found.values() if test(row)]
        print(f"{solver}, {title}: {len(chosen)}")
        for row in chosen:
            print("  " + line(row))
    print()
