"""Reads the certified nonlinear regressions (NIST StRD) that ship with the package."""

import importlib.resources
import re
from typing import NamedTuple

import numpy as np

NAMES = ("Misra1a", "Chwirut2", "MGH17", "Eckerle4", "MGH09", "Thurber", "BoxBOD", "Rat43")  # easy ones first


class Regression(NamedTuple):
    """One data set with its two official starts and its certified answer."""

    name: str
    difficulty: str  # lower, average or higher
    formula: str  # right-hand side of the model, as NIST prints it
    x: np.ndarray  # [n] predictor
    y: np.ndarray  # [n] response
    starts: np.ndarray  # [2, p]
    certified: np.ndarray  # [p] parameters
    deviation: np.ndarray  # [p] their standard deviations
    rss: float  # residual sum of squares at `certified`
    rsd: float  # residual standard deviation


def load(name: str) -> Regression:
    """Reads one data set by its NIST name, for example `load("Misra1a")`."""
    if name not in NAMES:
        raise ValueError(f"name={name!r} does not ship with jaxmin; choose from {', '.join(NAMES)}")
    return parse((importlib.resources.files(__package__) / f"{name}.dat").read_text("ascii"))


def parse(text: str) -> Regression:
    """Turns the text of one NIST StRD nonlinear regression into a `Regression`.

    Args:
      text: the file. Its head says on which lines the starts, certified values and data stand.

    Returns:
      A `Regression`.
    """
    lines = text.splitlines()

    def found(pattern: str, flags: int = 0) -> re.Match[str]:
        match = re.search(pattern, text, flags)
        if match is None:
            raise ValueError(f"text: no regression of NIST's: nothing in it reads as {pattern!r}")
        return match

    def section(title: str) -> list[str]:
        first, last = found(rf"{title}\s+\(lines\s+(\d+)\s+to\s+(\d+)\)").groups()
        return lines[int(first) - 1 : int(last)]

    def number_after(title: str) -> float:
        return float(found(rf"{title}:\s+(\S+)").group(1))

    parameters = np.array([line.split("=")[1].split() for line in section("Starting Values")], float)
    data = np.array([line.split() for line in section("Data")], float)
    formula = found(r"^\s+y\s*=(.*?)\+\s+e\s*$", re.DOTALL | re.MULTILINE).group(1)
    return Regression(
        name=found(r"Dataset Name:\s+(\S+)").group(1),
        difficulty=found(r"(\w+) Level of Difficulty").group(1).lower(),
        formula=" ".join(formula.split()),
        x=data[:, 1],
        y=data[:, 0],
        starts=parameters[:, :2].T,
        certified=parameters[:, 2],
        deviation=parameters[:, 3],
        rss=number_after("Residual Sum of Squares"),
        rsd=number_after("Residual Standard Deviation"),
    )
