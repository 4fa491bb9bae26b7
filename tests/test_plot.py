"""The lines that plot draws are the numbers of the histories."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import START
from problems import rosenbrock

from jaxmin import minimize, plot

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def solved(method="lbfgs", x0=START, fun=rosenbrock, **options):
    return minimize(fun, x0, method=method, options={"history": 200, **options})


def drawn(axes):
    return [np.asarray(line.get_xydata()) for line in axes.lines]


def positive(column):
    return np.where(column > 0, column, np.nan)


@pytest.mark.parametrize("over", ["evaluations", "iterations"])
def test_the_lines_are_the_histories(over):
    results = [solved("lbfgs"), solved("bfgs")]
    figure = plot(results, labels=["first", "second"], over=over)
    least = min(np.nanmin(res.history.fun) for res in results)
    for axes, ylabel, column in zip(figure.axes, ("f − least f", "|g|"), ("fun", "gnorm"), strict=True):
        assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == (over, ylabel, "log")
        for line, res in zip(drawn(axes), results, strict=True):
            kept = int(res.nit) + 1
            x = getattr(res.history, {"evaluations": "nfev", "iterations": "nit"}[over])[:kept]
            y = getattr(res.history, column)[:kept] - (least if column == "fun" else 0)
            np.testing.assert_array_equal(line, np.stack([x, positive(y)], axis=1))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["first", "second"]


def test_one_result_needs_no_list_and_no_legend():
    res = solved()
    figure = plot(res)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1] and figure.axes[0].get_legend() is None
    np.testing.assert_array_equal(drawn(figure.axes[1])[0][:, 1], res.history.gnorm[: int(res.nit) + 1])


def test_a_ring_that_was_too_short_shows_the_last_iterates():
    res = solved(history=5)
    assert drawn(plot(res, over="iterations").axes[0])[0][:, 0].tolist() == res.history.nit.tolist()


def test_a_method_without_gradient_has_no_panel_for_it():
    assert [axes.get_ylabel() for axes in plot(solved("nelder_mead")).axes] == ["f − least f"]


@pytest.mark.parametrize(
    ("x0", "fun"),
    [
        (START, lambda x, a: rosenbrock(x) * a),
        ({"u": -1.2, "v": [1.0]}, lambda x, a: rosenbrock(jnp.append(x["u"], x["v"])) * a),
    ],
)
def test_the_path_of_two_variables(x0, fun):
    x0 = x0 if isinstance(x0, tuple) else {"u": jnp.array(-1.2), "v": jnp.array([1.0])}
    res = solved(x0=x0, fun=lambda x: fun(x, 1.0), history_x=True)
    axes = plot([res, res], fun=fun, args=(2.0,)).axes[-1]
    path = np.concatenate([np.reshape(u, (200, -1)) for u in jax.tree.leaves(res.history.x)], axis=1)
    lines = drawn(axes)
    np.testing.assert_array_equal(lines[0], path[: int(res.nit) + 1])
    np.testing.assert_array_equal(lines[1], path[int(res.nit)][None])  # the star at its end
    assert len(lines) == 4 and axes.collections
    (low, high), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    kept = path[: int(res.nit) + 1]
    assert low < kept[:, 0].min() < kept[:, 0].max() < high and bottom < kept[:, 1].min() < kept[:, 1].max() < top


def test_a_function_that_is_nan_somewhere_is_drawn_elsewhere(tmp_path):
    fun = lambda x: jnp.sum(x - jnp.log(x))
    res = solved(x0=[0.01, 3.0], fun=fun, history_x=True)
    plot(res, fun=fun).savefig(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"results\[0\]: it has no history.*'history': 200", lambda: plot(minimize(rosenbrock, START))),
        (ValueError, r"results\[1\]: it has no history", lambda: plot([solved(), None])),
        (ValueError, "a batch", lambda: plot(jax.vmap(lambda x: solved(x0=x))(jnp.zeros((2, 2))))),
        (ValueError, "over='time': one of 'evaluations', 'iterations'", lambda: plot(solved(), over="time")),
        (ValueError, "2 names for 1", lambda: plot(solved(), labels=["a", "b"])),
        (ValueError, "empty", lambda: plot([])),
        (ValueError, "'history_x': True", lambda: plot(solved(), fun=rosenbrock)),
        (ValueError, "x has 4", lambda: plot(solved(x0=START * 2, history_x=True), fun=rosenbrock)),
    ],
)
def test_what_cannot_be_drawn_is_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"jaxmin\[plot\]"):
        plot(solved())
