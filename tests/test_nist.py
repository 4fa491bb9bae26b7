"""The certified regressions in the package are fitted to their certified values, and `python -m jaxmin` runs."""

import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxmin import __main__ as demo
from jaxmin.datasets import nist

SIZES = {  # observations and parameters, as NIST's index of data sets gives them
    "Misra1a": (14, 2),
    "Chwirut2": (54, 3),
    "MGH17": (33, 5),
    "Eckerle4": (35, 3),
    "MGH09": (11, 4),
    "Thurber": (37, 7),
    "BoxBOD": (6, 2),
    "Rat43": (15, 4),
    "Bennett5": (154, 3),
    "Chwirut1": (214, 3),
    "DanWood": (6, 2),
    "ENSO": (168, 9),
    "Gauss1": (250, 8),
    "Gauss2": (250, 8),
    "Gauss3": (250, 8),
    "Hahn1": (236, 7),
    "Kirby2": (151, 5),
    "Lanczos1": (24, 6),
    "Lanczos2": (24, 6),
    "Lanczos3": (24, 6),
    "MGH10": (16, 3),
    "Misra1b": (14, 2),
    "Misra1c": (14, 2),
    "Misra1d": (14, 2),
    "Nelson": (128, 3),
    "Rat42": (9, 3),
    "Roszman1": (25, 4),
}
TEN = [(name, start) for name in ("Misra1a", "Thurber", "MGH09", "Rat43", "BoxBOD") for start in (0, 1)]


@pytest.mark.parametrize("name", nist.NAMES)
def test_file_is_read_whole(name):
    data = nist.load(name)
    n, p = SIZES[name]
    assert data.name == name
    assert data.y.shape == (n,) and data.x.shape == ((n, 2) if name == "Nelson" else (n,))
    assert data.starts.shape == (2, p)
    assert data.certified.shape == data.deviation.shape == (p,)
    assert np.all(data.deviation > 0)
    assert data.difficulty in ("lower", "average", "higher")
    assert {f"b{i + 1}" for i in range(p)} == set(re.findall(r"b\d", data.formula))


@pytest.mark.parametrize("name", nist.NAMES)
def test_certified_residual_follows_from_data_and_model(name):
    data = nist.load(name)
    squares = (data.y - np.asarray(nist.model(name)(data.certified, data.x))) ** 2
    freedom = data.y.size - data.certified.size
    if name == "Lanczos1":  # its data have no error: the residuals are those of the eleven digits
        assert squares.sum() < 1e-19
        return
    rtol = 1e-5 if name == "Lanczos2" else 1e-9
    np.testing.assert_allclose(squares.sum(), data.rss, rtol=rtol)
    np.testing.assert_allclose(np.sqrt(squares.sum() / freedom), data.rsd, rtol=rtol)


@pytest.mark.parametrize("name", nist.NAMES)
def test_certified_deviations_follow_from_data_and_model(name):
    """The linearised covariance rsd^2 (J'J)^-1 gives NIST's standard deviations."""
    data = nist.load(name)
    jacobian = np.asarray(jax.jit(jax.jacobian(nist.model(name)))(data.certified, data.x))
    triangle = np.linalg.qr(jacobian * data.certified, mode="r")  # unit-free columns keep it well conditioned
    deviation = data.rsd * np.linalg.norm(np.linalg.inv(triangle), axis=1) * np.abs(data.certified)
    np.testing.assert_allclose(deviation, data.deviation, rtol=1e-6)


@pytest.mark.parametrize("name", nist.NAMES)
def test_formula_in_the_file_is_the_model_that_is_fitted(name):
    data = nist.load(name)
    names = {f"b{i + 1}": value for i, value in enumerate(data.starts[1])} | {"x": data.x, "pi": np.pi}
    names |= {f"x{i + 1}": column for i, column in enumerate(data.x.T)} if data.x.ndim == 2 else {}
    names |= {function: getattr(np, function) for function in ("exp", "cos", "sin", "arctan")}
    printed = eval(data.formula.replace("[", "(").replace("]", ")"), names)
    np.testing.assert_allclose(np.asarray(nist.model(name)(data.starts[1], data.x)), printed, rtol=1e-12)


def test_unknown_name_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"Misra1z.*Misra1a"):
        nist.load("Misra1z")


def test_agreeing_digits():
    certified = np.array([1.0, 1.0, 1.0, -2.0, 1.0])
    fitted = np.array([1.0, 1.001, 5.0, -2.000002, np.nan])
    np.testing.assert_allclose(demo.agreeing_digits(fitted, certified), [11, 3, 0, 6, 0], atol=1e-4)


@pytest.fixture(scope="module")
def fits():
    """Every shipped data set from both starts: {(name, start): (result, Fit)}."""
    answers = {}
    for name in demo.EIGHT:
        data = nist.load(name)
        for start in (0, 1):
            result = demo.solve(data, data.starts[start], data.y)
            answers[name, start] = result, demo.judge(data, start, result)
    return answers


@pytest.mark.parametrize("name, start", [(name, start) for name in demo.EIGHT for start in (0, 1)])
def test_fit_is_the_certified_one_or_an_honest_other(fits, name, start):
    result, fit = fits[name, start]
    assert fit.verdict in (demo.CERTIFIED, demo.ELSEWHERE)
    if fit.verdict == demo.CERTIFIED:
        assert fit.digits.min() >= 6
        np.testing.assert_allclose(fit.rss, nist.load(name).rss, rtol=1e-9)
    else:
        assert result.success
        assert np.max(np.abs(np.asarray(result.jac))) <= demo.OPTIONS["gtol"]


def test_eight_of_the_ten_fits_are_the_certified_ones(fits):
    agreed = [fits[which][1].verdict == demo.CERTIFIED for which in TEN]
    assert sum(agreed) >= 8


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "jaxmin", "--problems", "Misra1a", "BoxBOD", "--batch", "20"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command += ["--cache", str(tmp_path / "programs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert any((tmp_path / "programs").iterdir())  # for the next run
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "Misra1a: 14 observations, 2 parameters, lower difficulty" in lines
    assert sum(line.startswith("  start ") for line in lines) == 4
    assert sum("iterations" in line and "first call" in line for line in lines) == 4
    assert sum(re.match(r"  b[12] .*e[+-]\d\d +[\d.]+$", line) is not None for line in lines) == 6
    assert "Misra1a, 20 fits as one batch" in done.stdout
    assert "20 of 20 end with status 0" in done.stdout
    assert re.search(r"compile [\d.]+ s, run [\d.]+ ms, [\d.]+ us a fit", done.stdout)
    assert re.search(r"^\d of 4 fits agree", lines[-1]) or re.search(r"^\d of 4 fits agree", lines[-2])


def test_command_line_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as refused:
        demo.main(["--problems", "Misra1z"])
    assert refused.value.code == 2
    assert "Misra1z" in capsys.readouterr().err


def test_command_line_help(capsys):
    with pytest.raises(SystemExit) as done:
        demo.main(["--help"])
    assert done.value.code == 0
    assert "--problems" in capsys.readouterr().out
