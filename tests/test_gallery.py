"""Each script of the gallery runs alone in an empty folder and finds what is right; a notebook shows the bar."""

import importlib.util
import pathlib
import runpy
import shutil
import types

import jax
import numpy as np
import pytest
import scipy.optimize

SCRIPTS = sorted((pathlib.Path(__file__).parent.parent / "docs" / "gallery").glob("*.py"))
# With a bar. It runs as a notebook, and where notebooks cannot run, as a script.
WATCHED = "plot_13_inpaint"
# They take longest. `.ci/site --gallery` runs these too, and they are judged with `pytest -m slow`.
LONG = ("plot_3_co2", "plot_7_spectra", "plot_9_burgers")
NOTEBOOKS = all(importlib.util.find_spec(name) for name in ("ipykernel", "ipywidgets", "nbclient", "sphinx_gallery"))


def paths(s):
    yield all(res.success for method, (res, _) in s.walks.items() if method != "gradient_descent")
    yield s.batch.success.mean() > 0.99


def bootstrap(s):
    yield s.one.success and s.batch.success.mean() > 0.98
    yield np.allclose(s.b, s.data.certified, rtol=1e-3)


def co2(s):
    yield s.res.success and s.co2.size == 521
    unseen = s.when > 1992
    predicted = np.interp(s.when[unseen], s.ahead, s.middle + s.mean)
    yield np.sqrt(np.mean((s.co2[unseen] - predicted) ** 2)) < 1.5  # parts per million, in ten years


def logistic(s):
    yield s.common.success and s.each.success and s.each.fun < s.common.fun < s.curve.min()


def deblur(s):
    yield s.res.success and s.signal_to_noise(s.res.x) > s.signal_to_noise(s.blurred) + 1


def obstacles(s):
    gaps = np.linalg.norm(s.flights[s.res.success][:, :, None, :] - np.asarray(s.towers), axis=3) - np.asarray(s.radii)
    yield s.res.success.mean() > 0.5 and s.by_limit.success.mean() > 0.9 and gaps.min() > 0.09


def spectra(s):
    yield np.mean(s.res.success) > 0.999
    yield all(abs(pull.std() - 1) < 0.05 for pull in s.pulls.values())


def hares(s):
    yield s.res.success
    # The posterior means of B. Carpenter's case study of the same data with Stan, 2018, which has priors.
    yield np.all(abs(s.res.x[:4] - np.log([0.55, 0.028, 0.024, 0.80])) < s.res.standard_errors()[:4])


def burgers(s):
    yield s.runs["bfgs"].success and s.runs["bfgs"].fun < s.runs["lbfgs"].fun
    yield np.linalg.norm(s.errors["bfgs"]) < 3e-3 * np.linalg.norm(s.truth)


def cluster(s):
    yield s.res.success.all() and abs(s.res.fun.min() + 44.326801) < 1e-6 and s.counts[0] > 30
    yield np.ptp(s.from_centre[1:]) < 1e-6


def baseball(s):
    yield s.res.success and s.at_once.success and s.players.success
    errors = {name: np.mean((predicted - s.rest) ** 2) for name, predicted in s.predictions.items()}
    yield min(errors, key=errors.get) == "hierarchical"
    # Laplace's approximation against integrals over z on a grid.
    z = np.linspace(-6, 6, 241)[:, None]

    def exact(h):
        odds = h[0] + np.exp(h[1]) * z
        density = np.exp(s.hits * odds - 45 * np.logaddexp(0, odds) + 30 - z**2 / 2)
        return (h[0] + 1) ** 2 / 2 + np.exp(2 * h[1]) / 0.5 - h[1] - np.sum(np.log(density.sum(axis=0)))

    yield np.allclose(scipy.optimize.minimize(exact, s.start, method="Nelder-Mead").x, s.res.x, atol=0.02)


def labels(s):
    yield s.res.success and all(fit.success for fit in s.fits.values())
    yield np.mean(s.below == s.wrong) > 0.8


def inpaint(s):
    yield s.res.success and s.quality[-1] > s.quality[0] + 10


def equilibrium(s):
    yield s.res.success and s.by_oxygen.success.all() and s.by_pressure.success.all()
    yield abs(s.res.fun + 47.761090859) < 1e-5 and s.difference < 1e-4


RIGHT = {
    "plot_1_paths": paths, "plot_2_bootstrap": bootstrap, "plot_3_co2": co2, "plot_4_logistic": logistic,
    "plot_5_deblur": deblur, "plot_6_obstacles": obstacles, "plot_7_spectra": spectra, "plot_8_hares": hares,
    "plot_9_burgers": burgers, "plot_10_cluster": cluster, "plot_11_baseball": baseball, "plot_12_labels": labels,
    "plot_13_inpaint": inpaint, "plot_14_equilibrium": equilibrium,
}  # fmt: skip


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A function that copies a script into an empty folder, the working directory; JAX has its own settings."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook has a backend of its own

    def copied(script):
        if "sklearn" in script.read_text("utf-8"):
            pytest.importorskip("sklearn")
        return shutil.copy(script, tmp_path)

    jax.config.update("jax_enable_x64", False)
    yield copied
    jax.config.update("jax_enable_x64", True)


def test_every_script_is_judged():
    assert RIGHT.keys() == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else ())
        for path in SCRIPTS
        if not (NOTEBOOKS and path.stem == WATCHED)
    ],
)
def test_a_script_runs_alone(script, alone):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    names = runpy.run_path(alone(script))
    assert pyplot.get_fignums(), "a script of the gallery draws"
    pyplot.close("all")
    judged = list(RIGHT[script.stem](types.SimpleNamespace(**names)))
    assert judged and all(judged), judged


def notebook(script):
    """The notebook that Sphinx-Gallery makes of a script, beside it."""
    nbformat = pytest.importorskip("nbformat")
    converter = pytest.importorskip("sphinx_gallery.notebook")
    converter.python_to_jupyter_cli([str(script)])
    return nbformat.read(pathlib.Path(script).with_suffix(".ipynb"), as_version=4)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_a_notebook(script, tmp_path):
    """All of its code is there, with titles that are Markdown's."""
    made = notebook(shutil.copy(script, tmp_path))
    code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code")
    lines = [line for line in script.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "plt.show()" and all(line in code for line in lines[lines.index("import jax.numpy as jnp") :])
    assert made.cells[0].source.startswith("\n# ") or made.cells[0].source.startswith("# ")


@pytest.mark.slow  # .ci/run runs it alone: see "Open" in docs/design.md
@pytest.mark.skipif(not NOTEBOOKS, reason="it needs ipykernel, ipywidgets, nbclient and Sphinx-Gallery")
def test_a_notebook_shows_the_bar(alone):
    """As a widget, whose last state has the figures of the result."""
    import nbclient

    script = next(path for path in SCRIPTS if path.stem == WATCHED)
    made = notebook(alone(script))
    made.cells[-1].source += "\nprint(int(res.nit), int(res.nfev), bool(res.success), quality[-1] > quality[0] + 10)"
    nbclient.NotebookClient(made, timeout=300, kernel_name="python3").execute()

    outputs = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    nit, nfev, *judged = printed.split()[-4:]
    assert judged == ["True", "True"], printed
    shown = [set(output.data) for output in outputs if "data" in output]
    assert any("image/png" in kinds for kinds in shown)
    assert sum("application/vnd.jupyter.widget-view+json" in kinds for kinds in shown) == 1
    states = [
        widget["state"]
        for widget in made.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    ]
    assert [state["value"] for state in states if state["_model_name"] == "FloatProgressModel"] == [float(nit)]
    text = " ".join(state["value"] for state in states if state["_model_name"] == "HTMLModel")
    assert f"evaluations={nfev}" in text and "|g|=" in text, text
