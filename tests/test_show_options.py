"""show_options prints every option of a method, with its other spellings, its default and its meaning."""

import inspect
import itertools
import re

import pytest

import jaxmin
from jaxmin._api.options import FIXED, REFUSED, TABLE
from jaxmin._cache.registry import entries


def heads(text):
    """The options in the text: name -> (default, the other spellings)."""
    found = re.findall(r"^  (\w+) = (.+?)(?: \(or (.+)\))?$", text, re.MULTILINE)
    return {name: (default, others.split(", ") if others else []) for name, default, others in found}


@pytest.mark.parametrize("name", [*entries("methods"), *entries("transforms")])
def test_every_option_of_a_method_is_shown_with_its_default_and_meaning(name, capsys):
    package = "methods" if name in entries("methods") else "transforms"
    entry = entries(package)[name]
    assert jaxmin.show_options(name) is None
    text = capsys.readouterr().out
    assert text == jaxmin.show_options(name, disp=False) + "\n"
    shown = heads(text)
    for own, parameter in inspect.signature(entry.build).parameters.items():
        if own != "linesearch":
            default = "required" if parameter.default is parameter.empty else repr(parameter.default)
            others = [spelling for spelling, to in entry.parameters.items() if to == own != spelling]
            assert shown[own] == (default, others)
    lines = text.splitlines()
    for line, below in itertools.pairwise(lines):
        if re.match(r"  \w+ = ", line):
            assert re.match(r" {6}\S", below), f"{line} has no meaning"
    assert ":math:" not in text and max(map(len, lines)) <= 120


def test_options_of_every_call_are_shown():
    shown = heads(jaxmin.show_options(disp=False))
    left_out = {"ctol", "barrier_tol", "fatol", "xatol"}
    assert {row.name for row in TABLE if row.whose not in (FIXED, REFUSED)} - left_out <= shown.keys()
    assert not left_out & shown.keys()
    assert {"ctol", "barrier_tol"} <= heads(jaxmin.show_options("SLSQP", disp=False)).keys()


def test_defaults_are_those_of_the_method():
    simplex = heads(jaxmin.show_options("Nelder-Mead", disp=False))
    assert simplex["maxiter"][0] == "200 n" and simplex["xatol"][0] == "0.0001" and "xtol" not in simplex
    text = jaxmin.show_options("cg", disp=False)
    assert heads(text)["curvature"] == ("0.4", ["c2"]) and "This method has 0.4." in text
    assert "; the argument tol sets it" in text


def test_line_search_by_name():
    text = jaxmin.show_options("bfgs", "strong-wolfe", disp=False)
    assert "The options of its line search, 'wolfe':" in text
    with pytest.raises(ValueError, match="linesearch='wolfe': method 'powell' takes none"):
        jaxmin.show_options("powell", "wolfe")
    with pytest.raises(ValueError, match="method='lbgfs': unknown; did you mean 'lbfgs'"):
        jaxmin.show_options("lbgfs")


def test_no_name_of_scipys_is_a_parameter_of_a_method():
    fixed = {row.name for row in TABLE if row.whose == FIXED}
    for package in ("methods", "linesearches", "transforms"):
        for entry in entries(package).values():
            assert not fixed & entry.parameters.keys()
