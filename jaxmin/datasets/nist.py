"""The certified nonlinear regressions of NIST (Statistical Reference Datasets) that ship with the package.

https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
"""

import importlib.resources
import re
from typing import NamedTuple

import numpy as np

from jaxmin.datasets._models import MODELS, Model

NAMES = tuple(MODELS)


class Regression(NamedTuple):
    """One data set of n observations and p parameters, with its two official starts and its certified results.

    Arrays are NumPy's, of dtype float64.

    - ``name``: NIST's name of the data set.
    - ``difficulty``: "lower", "average" or "higher".
    - ``formula``: the right-hand side of the model, as NIST prints it.
    - ``x`` [n]: the predictor; [n, 2] for the two of "Nelson".
    - ``y`` [n]: the response; of "Nelson" its logarithm.
    - ``starts`` [2, p]: the two starts, the second one nearer to the solution.
    - ``certified`` [p]: the certified parameters.
    - ``deviation`` [p]: the standard deviations of the parameters.
    - ``rss``: the residual sum of squares at the certified parameters.
    - ``rsd``: the residual standard deviation.

    >>> from jaxmin.datasets import nist
    >>> data = nist.load("Misra1a")
    >>> data.formula, data.y.shape, data.starts.shape
    ('b1*(1-exp[-b2*x])', (14,), (2, 2))
    """

    name: str
    difficulty: str
    formula: str
    x: np.ndarray  # [n], or [n, 2]
    y: np.ndarray  # [n]
    starts: np.ndarray  # [2, p]
    certified: np.ndarray  # [p]
    deviation: np.ndarray  # [p]
    rss: float
    rsd: float


def load(name: str) -> Regression:
    """Read a data set that ships with the package.

    Args:
      name: NIST's name of the data set, one of ``jaxmin.datasets.nist.NAMES``.

    Returns:
      A :class:`Regression`.

    Raises:
      ValueError: for any other name; the message lists the names.

    >>> from jaxmin.datasets import nist
    >>> nist.load("Misra1a").certified.round(4).tolist()
    [238.9421, 0.0006]
    """
    _check(name)
    return parse((importlib.resources.files(__package__) / f"{name}.dat").read_text("ascii"))


def model(name: str) -> Model:
    """The model of a data set that ships with the package: ``model(b, x)``, the mean of the response, [n].

    Raises:
      ValueError: for any other name; the message lists the names.

    >>> from jaxmin.datasets import nist
    >>> data, model = nist.load("BoxBOD"), nist.model("BoxBOD")
    >>> round(float(sum((model(data.certified, data.x) - data.y) ** 2)), 1), round(data.rss, 1)
    (1168.0, 1168.0)
    """
    _check(name)
    return MODELS[name]


def _check(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"name={name!r}: it does not ship with jaxmin; the choices are {', '.join(NAMES)}")


def parse(text: str) -> Regression:
    """Parse the text of a nonlinear regression of NIST, for data sets that do not ship with the package.

    Args:
      text: the content of a ``.dat`` file of NIST with one or more predictors. Its header gives the lines of the
        starts, of the certified values and of the data.

    Returns:
      A :class:`Regression`.

    Raises:
      ValueError: if the text is not such a file.

    >>> import importlib.resources
    >>> from jaxmin.datasets import nist
    >>> text = (importlib.resources.files("jaxmin.datasets") / "BoxBOD.dat").read_text()
    >>> nist.parse(text).name, nist.parse(text).y.tolist()
    ('BoxBOD', [109.0, 149.0, 149.0, 191.0, 213.0, 224.0])
    """
    lines = text.splitlines()

    def found(pattern: str, flags: int = 0) -> re.Match[str]:
        match = re.search(pattern, text, flags)
        if match is None:
            raise ValueError(f"text: not a regression of NIST; it has no part that matches {pattern!r}")
        return match

    def section(title: str) -> list[str]:
        first, last = found(rf"{title}\s+\(lines\s+(\d+)\s+to\s+(\d+)\)").groups()
        return lines[int(first) - 1 : int(last)]

    def number_after(title: str) -> float:
        return float(found(rf"{title}:\s+(\S+)").group(1))

    parameters = np.array([line.split("=")[1].split() for line in section("Starting Values")], float)
    data = np.array([line.split() for line in section("Data")], float)
    response, formula = found(r"^\s+(y|log\[y\])\s*=(.*?)\+\s+e\s*$", re.DOTALL | re.MULTILINE).groups()
    return Regression(
        name=found(r"Dataset Name:\s+(\S+)").group(1),
        difficulty=found(r"(\w+) Level of Difficulty").group(1).lower(),
        formula=" ".join(formula.split()),
        x=data[:, 1] if data.shape[1] == 2 else data[:, 1:],
        y=data[:, 0] if response == "y" else np.log(data[:, 0]),
        starts=parameters[:, :2].T,
        certified=parameters[:, 2],
        deviation=parameters[:, 3],
        rss=number_after("Residual Sum of Squares"),
        rsd=number_after("Residual Standard Deviation"),
    )
