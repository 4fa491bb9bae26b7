"""The text of a program that XLA has compiled: what runs in its loops."""

import collections
import re
from typing import NamedTuple

COUNTS = ("loops", "kernels", "copies", "instructions", "compiled")
NO_WORK = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "after-all", "partition-id",
    "while", "conditional", "call",
}  # fmt: skip
# The attributes of an instruction that name what it runs; a reduction's to_apply is part of the reduction.
RUNS = {
    "while": ("condition", "body"),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
    "call": ("to_apply",),
}


class Instruction(NamedTuple):
    opcode: str
    rest: str  # its operands and attributes

    def named(self, attributes):
        """The computations that these attributes name."""
        found = []
        for attribute in attributes:
            for group in re.findall(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.\-]+)", self.rest):
                found += re.findall(r"%([\w.\-]+)", group)
        return found


def computations(text):
    """The computations of a program by name, each a list of instructions, and the name of the entry."""
    table, entry, body = {}, None, None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and " = " not in line.split("(")[0]:
            body = table[head[2]] = []
            entry = head[2] if head[1] else entry
        elif body is not None and " = " in line:
            body.append(_instruction(line.split(" = ", 1)[1]))
    return table, entry


def _instruction(text):
    """``TYPE opcode(operands), attributes``; no type has a word before a parenthesis."""
    opcode, rest = re.search(r" ([a-z][\w\-]*)\((.*)", text).groups()
    return Instruction(opcode, rest)


def count(text):
    """What runs in the loops of a program, and the instructions of all that is compiled for it.

    A computation that two places run counts twice.
    """
    table, entry = computations(text)
    counts, kinds = collections.Counter(dict.fromkeys(COUNTS, 0)), collections.Counter()

    def walk(name, inside):
        for instruction in table[name]:
            opcode = instruction.opcode
            runs = instruction.named(RUNS.get(opcode, ()))
            if opcode == "while":
                counts["loops"] += 1
            elif opcode == "copy":
                counts["copies"] += inside
            elif opcode not in NO_WORK:
                work = _work(instruction, table)
                counts["compiled"] += work
                if inside:
                    kinds[opcode] += 1
                    counts["kernels"] += 1
                    counts["instructions"] += work
            for run in runs:
                walk(run, inside or opcode == "while")

    walk(entry, False)
    return {**counts, "kinds": dict(sorted(kinds.items()))}


def _work(instruction, table):
    if instruction.opcode != "fusion":
        return 1
    inner = (inner for name in instruction.named(("calls",)) for inner in table[name])
    return sum(_work(one, table) for one in inner if one.opcode not in NO_WORK)
