"""The certified regressions in the package are whole, and their models give the certified values."""

import re

import jax
import numpy as np
import pytest

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
