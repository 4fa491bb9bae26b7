"""`python -m jaxmin` fits the certified regressions, says truly how well, draws them, and writes plain lines."""

import io
import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmin
from jaxmin import __main__ as demo
from jaxmin._demo import figure, fit, minpack
from jaxmin._demo.progress import progress
from jaxmin.datasets import nist


@pytest.fixture(scope="module")
def misra():
    return fit.fit_both(nist.load("Misra1a"))


# ---- the figures


def test_agreeing_digits():
    certified = np.array([1.0, 1.0, 1.0, -2.0, 1.0])
    found = np.array([1.0, 1.001, 5.0, -2.000002, np.nan])
    np.testing.assert_allclose(fit.agreeing_digits(found, certified), [11, 3, 0, 6, 0], atol=1e-4)


def test_a_pair_of_fits_is_compiled_once_and_certified(misra):
    assert misra.second < misra.first
    for one in misra.fits:
        np.testing.assert_allclose(one.res.x, misra.data.certified, rtol=10**-one.digits * 1.001)
        np.testing.assert_allclose(one.errors, misra.data.deviation, rtol=10**-one.error_digits * 1.001)
        assert min(one.digits, one.error_digits) >= fit.ENOUGH
    data = misra.data
    program = fit.program(nist.model("BoxBOD"))  # the same model, another number of observations
    assert program is fit.program(nist.model("Misra1a"))
    compiled = program._cache_size()
    program(data.starts[0] * 1.5, data.x, data.y * 2)
    assert program._cache_size() == compiled


def test_scipy_fits_the_same(misra):
    pytest.importorskip("scipy")
    pair = minpack.fit_both(misra.data)
    assert min(pair.digits) >= fit.ENOUGH and pair.nfev > 2
    assert len(pair.loose) == 2


def test_the_band_is_that_of_the_delta_method(misra):
    """By hand for b1*(1-exp(-b2*x)), with finite differences and NIST's residual standard deviation."""
    data, res = misra.data, misra.fits[0].res
    model, b, x = nist.model(data.name), np.asarray(res.x), np.linspace(50.0, 800.0, 7)

    def relative(x):
        """The derivatives by the logarithms of both parameters."""
        change = lambda factors: (model(b * factors, x) - model(b / factors, x)) / (2 * 1e-5)
        return np.stack([change(np.array([1 + 1e-5, 1])), change(np.array([1, 1 + 1e-5]))], axis=1)

    J, G = relative(data.x), relative(x)
    C = data.rsd**2 * np.linalg.inv(J.T @ J)
    y, error = figure.band(model, res, x)
    np.testing.assert_allclose(y, model(b, x), rtol=1e-12)
    np.testing.assert_allclose(error, np.sqrt(np.einsum("ij,jk,ik->i", G, C, G)), rtol=1e-5)


# ---- the command


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "jaxmin", "--problems", "Misra1a", "BoxBOD", "--batch", "20"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command += ["--cache", str(tmp_path / "programs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # no progress: it is not a terminal
    assert any((tmp_path / "programs").iterdir())  # for the next run
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100 and "\r" not in done.stdout
    fits = r" +[\d.]+ +\d+  [A-Z]+" * 2
    assert (
        sum(re.match(rf"(Misra1a|BoxBOD) +(lower|higher) +2 +(14|6){fits} +[\d.]+", line) is not None for line in lines)
        == 2
    )
    assert "4 of 4 fits agree with every certified parameter to 6 digits, 4 with every standard deviation." in lines
    assert any(re.match(r"jaxmin +4 of 4 +[\d.]+ +\d+ +[\d.,]+ ms +[\d.,]+ ms$", line) for line in lines)
    assert "Misra1a: 14 observations, 2 parameters, lower difficulty" in lines
    assert sum(re.match(r"  (b\d|s\(b\d\)|rss) .*e[+-]\d\d +[\d.]+$", line) is not None for line in lines) == 12
    assert "20 noisy copies of Misra1a as one batch, jax.vmap of the fit, from start 2" in lines
    assert re.search(r"This run took [\d.]+ s, and [\d.]+ s of processor time\.", done.stdout)
    assert lines[-3:] == demo.NEXT.splitlines()


def test_without_names_every_data_set_is_fitted_and_the_easy_ones_first(monkeypatch, capsys, misra):
    asked = []
    monkeypatch.setattr(demo, "fit_all", lambda names: (asked.extend(names), ([misra], []))[1])
    demo.main(["--batch", "0", "--cache", ""])
    assert sorted(asked) == sorted(nist.NAMES)
    levels = [demo.LEVELS.index(nist.load(name).difficulty) for name in asked]
    assert levels == sorted(levels) and "2 of 2 fits" in capsys.readouterr().out


def test_without_scipy_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(minpack, "is_installed", lambda: False)
    monkeypatch.setattr(minpack, "fit_both", None)
    demo.main(["--problems", "Misra1a", "--batch", "0", "--cache", ""])
    printed = capsys.readouterr().out
    assert "SciPy is not installed, so there is no comparison with it.\n" in printed
    assert printed.count("SciPy") == 1


def test_a_disagreement_is_named(misra, capsys):
    from jaxmin._demo import table

    wrong = misra.fits[1]._replace(digits=2.0)
    table.show_summary([misra._replace(fits=(misra.fits[0], wrong))])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 fits agree with every certified parameter to 6 digits" in said
    assert "Not so: Misra1a start 2." in said


def test_fitting_data_of_ones_own_is_the_line_it_ends_with():
    assert demo.OWN in demo.NEXT
    x = jnp.linspace(0, 4, 9)
    names = {"jaxmin": jaxmin, "jnp": jnp, "x": x, "y": 2 * jnp.exp(-0.5 * x) + 0.01 * jnp.sin(9 * x)}
    exec(demo.OWN, names)
    np.testing.assert_allclose(names["popt"], [2, 0.5], atol=0.05)
    assert jnp.all(jnp.sqrt(jnp.diag(names["pcov"])) < 0.05)


def test_command_line_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as refused:
        demo.main(["--problems", "Misra1z"])
    assert refused.value.code == 2
    assert "Misra1z" in capsys.readouterr().err


def test_command_line_help(capsys):
    with pytest.raises(SystemExit) as done:
        demo.main(["--help"])
    assert done.value.code == 0
    assert {"--problems", "--batch", "--plot", "--cache"} <= set(re.findall(r"--\w+", capsys.readouterr().out))


# ---- progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_progress_is_shown_on_a_terminal_and_leaves_nothing(monkeypatch, which):
    streams = {name: Terminal() if name == which else io.StringIO() for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with progress("Misra1a, 1 of 27: compiling"):
        assert "Misra1a, 1 of 27: compiling" in streams[which].getvalue()
    assert re.search(r"\r +\r$", streams[which].getvalue())
    assert all(not stream.getvalue() for name, stream in streams.items() if name != which)


# ---- the figure


def test_a_figure_has_a_panel_for_each_data_set(tmp_path, misra):
    pytest.importorskip("matplotlib")
    file = tmp_path / "fits.svg"
    nelson = fit.fit_both(nist.load("Nelson"))  # two predictors: a curve for each value of the second
    assert figure.obstacle(str(file)) is None
    drawn = figure.drawn([misra, nelson])
    drawn.savefig(file)
    assert [axes.get_title() for axes in drawn.axes] == ["Misra1a", "Nelson"]
    assert [len(axes.collections) for axes in drawn.axes] == [1, len(np.unique(nelson.data.x[:, 1]))]
    assert file.read_text("utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("file", "says"), [("fits.xyz", r"must end in one of .*\.png"), ("nowhere/fits.png", "there is no folder nowhere")]
)
def test_a_figure_that_cannot_be_written_is_refused_before_the_fits(file, says, capsys):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit):
        demo.main(["--plot", file])
    error = capsys.readouterr().err
    assert re.search(says, error.replace("\n", " "))


def test_without_matplotlib_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        demo.main(["--plot", "fits.png"])
    assert "pip install 'jaxmin[plot]'" in capsys.readouterr().err
