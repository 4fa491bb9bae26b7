"""Builders declare what belongs to them: the spellings of a method agree, and type checkers see its parameters."""

import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import rosenbrock

import jaxmin
from jaxmin._cache.registry import entries
from jaxmin.extend import Defaults, Direction, LineSearch, Method, PerVariable, builder, descend, search

START = (-1.2, 1.0)


def ends(res):
    return int(res.nit), int(res.nfev), int(res.status), res.x.tolist()


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
@pytest.mark.parametrize("name", entries("methods"))
@pytest.mark.filterwarnings("ignore:fun returns one number")
def test_tol_means_the_same_for_a_name_and_for_what_its_builder_made(name, tol):
    named, built = (
        jaxmin.minimize(rosenbrock, START, method=method, tol=tol) for method in (name, getattr(jaxmin, name)())
    )
    assert ends(named) == ends(built)


def test_tol_of_a_method_by_itself_is_gtol():
    made = descend(Direction(lambda x: (), lambda g, state, x, **_: (-g, state)), jaxmin.backtracking())
    assert made.defaults == Defaults() == Defaults(tol=("gtol",), limits=())
    by_tol = jaxmin.minimize(rosenbrock, START, method=made, tol=1e-2)
    assert ends(by_tol) == ends(jaxmin.minimize(rosenbrock, START, method=made, options={"gtol": 1e-2}))


def test_limits_of_its_own_go_with_a_built_method():
    for method in ("nelder_mead", jaxmin.nelder_mead()):
        res = jaxmin.minimize(lambda x: rosenbrock(x) + jnp.nan, [0.0] * 3, method=method, tol=0.0)
        assert res.nfev <= 600
    assert dict(jaxmin.powell().defaults.limits)["maxfun"] == PerVariable(1000)


def test_public_builders_are_those_of_the_registry():
    known = {name: entry.build for folder in ("methods", "linesearches") for name, entry in entries(folder).items()}
    public = {name: getattr(jaxmin, name) for name in jaxmin.__all__ if hasattr(getattr(jaxmin, name), "declared")}
    assert public == known
    assert {name: getattr(jaxmin.transforms, name) for name in entries("transforms")} == {
        name: entry.build for name, entry in entries("transforms").items()
    }


@pytest.mark.parametrize("folder", ["methods", "linesearches", "transforms"])
def test_every_builder_is_annotated(folder):
    for name, entry in entries(folder).items():
        hints = typing.get_type_hints(entry.build)
        assert hints.keys() == {*inspect.signature(entry.build).parameters, "return"}, name
    results = {hints["return"] for hints in (typing.get_type_hints(e.build) for e in entries(folder).values())}
    assert results == {{"methods": Method, "linesearches": LineSearch}.get(folder, jaxmin.transforms.Transformation)}


# ---- a builder of one's own


def steepest(linesearch):
    return descend(Direction(lambda x: (), lambda g, state, x, **_: (-g, state)), linesearch)


@builder(aliases=("mine",), spellings={"size": "length"}, tol=("xtol",), limits={"maxiter": PerVariable(3)},
         converters={"linesearch": search("wolfe", curvature=0.3)})  # fmt: skip
def own(length=1.0, linesearch: LineSearch | str | None = None) -> Method:
    return steepest(linesearch)._replace(inverse_hessian=None)


def test_declared_tolerances_and_limits_go_with_the_method():
    assert own().defaults == Defaults(("xtol",), (("maxiter", PerVariable(3)),))
    assert jaxmin.minimize(rosenbrock, [0.0, 0.0], method=own()).nit == 6
    by_tol = jaxmin.minimize(rosenbrock, START, method=own(), tol=0.1)
    assert ends(by_tol) == ends(jaxmin.minimize(rosenbrock, START, method=own(), options={"xtol": 0.1}))


def test_a_search_in_every_form_is_one_search():
    wolfe = jaxmin.wolfe(curvature=0.3)
    assert own() is own(linesearch=None) is own(linesearch="zoom") is own(linesearch=wolfe)
    assert own(linesearch="hager-zhang") is own(linesearch=jaxmin.hager_zhang(curvature=0.3))
    assert own(linesearch="fixed") is own(linesearch=jaxmin.fixed())  # which has no curvature
    with pytest.raises(ValueError, match="linesearch='brent': unknown; the choices are 'backtracking'"):
        own(linesearch="brent")


def test_a_builder_around_a_builder_keeps_what_that_declared():
    @builder
    def few() -> Method:
        return jaxmin.lbfgs(memory=3)

    assert few().defaults.tol == ("ftol", "gtol")


def test_annotations_say_what_else_is_welcome():
    @builder
    def made(count: int, flag: bool, factor: float | jax.Array, name: str | None = None, of: LineSearch | None = None):
        return count, flag, factor, name, of

    assert made(np.int64(3), np.True_, 2, "a", jaxmin.fixed()) == (3, True, 2.0, "a", jaxmin.fixed())
    for wrong, message in (
        ({"count": 2.5}, "count=2.5: a whole number"),
        ({"flag": 1}, "flag=1: True or False"),
        ({"factor": "2"}, "factor='2': a number"),
        ({"name": 3}, "name=3: a str or None"),
        ({"of": "wolfe"}, "of='wolfe': a LineSearch or None"),
    ):
        with pytest.raises(TypeError, match=message):
            made(**({"count": 1, "flag": True, "factor": 1.0} | wrong))


def test_a_converter_may_give_what_can_be_compared():
    calls = []

    @builder(converters={"points": lambda points: tuple(map(float, points))})
    def made(points=()):
        calls.append(points)
        return lambda: points

    assert made(np.ones(2)) is made([1, 1]) is made(points=(1.0, 1.0))
    assert calls == [(1.0, 1.0)]


@pytest.mark.parametrize(
    "declared",
    [
        {"tol": ("gtool",)},
        {"limits": {"maxit": 3}},
        {"spellings": {"m": "memroy"}},
        {"converters": {"lnesearch": search()}},
    ],
    ids=lambda declared: next(iter(declared)),
)
def test_a_declaration_that_names_nothing_is_refused_at_once(declared):
    (what,) = declared
    with pytest.raises(ValueError, match=f"steepest: {what} names .*the choices are '"):

        @builder(**declared)
        def steepest(memory: int = 3, linesearch: LineSearch | None = None) -> Method: ...
