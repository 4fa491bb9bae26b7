"""A user's file under ``mypy --strict``: correct calls are clean, and mistakes are errors on their lines."""

import importlib.util
import inspect
import pathlib
import re

import pytest

import jaxmin
from jaxmin._api.solver import Settings

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")

# `# sees: TYPE` is a pattern of the type that mypy reveals. `# error: CODE` is the error that the line must have. All
# other lines must be clean.
USER = """
import jax
import jax.numpy as jnp
import numpy as np

import jaxmin
from jaxmin import Bounds, OptimizeResult, Solver, SolverState, Status, minimize, minimize_many
from jaxmin.datasets.nist import load
from jaxmin.extend import Iterate, LineSearch, Method, vector


def fun(x: jax.Array, a: float = 1.0) -> jax.Array:
    return jnp.sum((x - a) ** 2)


def small(intermediate_result: OptimizeResult) -> bool:
    return bool(intermediate_result.fun < 1e-3)


res = minimize(fun, [0.0, 0.0], args=(1.0,), options={"gtol": 1e-6}, tol=1e-5)
reveal_type(res)  # sees: jaxmin._core.result.OptimizeResult
reveal_type(res.x)  # sees: Any
reveal_type(res.fun)  # sees: jax.*Array
reveal_type(res.nit + 1)  # sees: .*(Array|Any)
if res.success and res.status == Status.CONVERGED:
    print(res.x.round(3).tolist(), res["x"], res.message.upper(), int(res.nfev), res.njev + 1)
batch: OptimizeResult = jax.vmap(lambda x: minimize(fun, x))(jnp.zeros((3, 2)))
many = minimize_many(fun, np.zeros((100, 2)), best_of=2, lanes=8)
reveal_type(many)  # sees: jaxmin._core.result.OptimizeResult
print(many.success.all(), np.asarray(many.fun).mean(), Status(int(res.status)).sentence)

minimize(fun, jnp.zeros(2), method="bfgs", bounds=Bounds(0, jnp.ones(2)), callback=small, linesearch="wolfe")
minimize(fun, {"w": jnp.zeros(2)}, bounds=[(0, None), (None, 1)], jac=True, has_aux=True)
minimize(fun, jnp.zeros(2), callback=jaxmin.traced(lambda x: x[0] < 1), hessp=lambda x, p: 2 * p, method="trust_ncg")
minimize(fun, jnp.zeros(2), method=jaxmin.transforms.chain(jaxmin.transforms.sgd(0.1)))

solver = Solver(fun, method="lbfgs", tol=1e-3, options={"maxiter": 3})
state = solver.init(jnp.zeros(2), 1.0)
reveal_type(state)  # sees: jaxmin._api.solver.SolverState
while not state.done:
    state = solver.step(state)
reveal_type(solver.run(state, max_steps=3))  # sees: jaxmin._api.solver.SolverState
reveal_type(solver.result(state))  # sees: jaxmin._core.result.OptimizeResult
reveal_type(state.nit)  # sees: jax.*Array
solver.save("state.npz", state)
again: SolverState = solver.load("state.npz", jnp.zeros(2), 1.0)

data = load("Misra1a")
reveal_type(data.rss)  # sees: .*float
reveal_type(vector.dot(jnp.ones(2), jnp.ones(2)))  # sees: jax.*Array
reveal_type(Iterate(jnp.zeros(2), jnp.zeros(()), jnp.zeros(2)).f)  # sees: jax.*Array
reveal_type(Status.FTOL.success)  # sees: .*bool

minimize(fun, jnp.zeros(2), optoins=3)  # error: call-arg
minimize(fun, jnp.zeros(2), method=3)  # error: arg-type
minimize(fun, jnp.zeros(2), jac=3)  # error: arg-type
minimize(3, jnp.zeros(2))  # error: arg-type
minimize(fun)  # error: call-arg
minimize(fun, jnp.zeros(2), linesearch=3)  # error: arg-type
minimize_many(fun, jnp.zeros((2, 2)), lanes="8")  # error: arg-type
Solver(fun, optoins={})  # error: call-arg
solver.run(3)  # error: arg-type
load(3)  # error: arg-type
res.nti  # error: attr-defined
"""

# The same for the builders of methods, searches and transformations.
BUILDERS = """
from typing import assert_type

import jax.numpy as jnp

import jaxmin
from jaxmin.extend import LineSearch, Method

method: Method = jaxmin.lbfgs(memory=5)
assert_type(jaxmin.lbfgs(memory=5), Method)
assert_type(jaxmin.bfgs(linesearch=jaxmin.wolfe()), Method)
assert_type(jaxmin.wolfe(), LineSearch)
assert_type(jaxmin.transforms.adam(0.1, b1=0.8), jaxmin.transforms.Transformation)
jaxmin.minimize(lambda x: jnp.sum(x**2), jnp.zeros(2), method=jaxmin.lbfgs(memory=5))
jaxmin.lbfgs(memory=5, linesearch="wolfe")

jaxmin.lbfgs(memroy=5)  # error: call-arg
jaxmin.lbfgs(memory="5")  # error: arg-type
"""


@pytest.fixture(scope="module")
def mypy(pytestconfig, tmp_path_factory):
    """A function: the text of a user's file -> {line: [messages]}."""
    from mypy import api

    folder = tmp_path_factory.mktemp("user")
    parent = pathlib.Path(jaxmin.__file__).parent.parent
    # An installed package is found by itself, and mypy refuses a search path in site-packages.
    where = "" if parent.name == "site-packages" else f"mypy_path = {parent}\n"
    (folder / "mypy.ini").write_text(f"[mypy]\nfollow_imports = silent\n{where}", "utf-8")
    cache = pytestconfig.cache.mkdir("mypy") if hasattr(pytestconfig, "cache") else folder / "cache"

    def run(name, text):
        file = folder / f"{name}.py"
        file.write_text(text, "utf-8")
        settings = ["--strict", "--config-file", str(folder / "mypy.ini"), "--cache-dir", str(cache), "--no-pretty"]
        printed, failed, _ = api.run([*settings, str(file)])
        assert not failed, failed
        said = {}
        for line in printed.splitlines():
            # By the name alone: an unchanged file comes out of mypy's cache with the folder that it was in.
            found = re.match(rf".*\b{name}\.py:(\d+): (.*)", line)
            if found:
                said.setdefault(int(found[1]), []).append(found[2])
        return said

    return run


def checked(mypy, name, text):
    """The lines on which mypy does not report what they expect, each with its report."""
    said, wrong = mypy(name, text), []
    for number, line in enumerate(text.splitlines(), 1):
        sees, error = re.search(r"# sees: (.*)$", line), re.search(r"# error: (.*)$", line)
        expected = []
        if sees:
            expected = [rf'note: Revealed type is "({sees[1]})"']
        if error:
            expected = [rf"error: .*\[{error[1]}\]"]
        found = [message for message in said.pop(number, []) if sees or not message.startswith("note: ")]
        if len(found) != len(expected) or not all(map(re.fullmatch, expected, found)):
            wrong.append(f"{number}: {line}: {found}")
    return wrong + [f"{number}: {messages}" for number, messages in said.items()]


def test_a_users_strict_file_is_clean_and_its_mistakes_are_found(mypy):
    wrong = checked(mypy, "user", USER)
    assert not wrong, "\n".join(wrong)


def test_a_builder_keeps_the_types_of_its_function(mypy):
    wrong = checked(mypy, "builders", BUILDERS)
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_what_is_wrong(mypy):
    text = "import jaxmin\njaxmin.minimize(3)\nreveal_type(jaxmin.lbfgs)  # sees: str\nprint(1)  # error: call-arg\n"
    assert [line.split(":")[0] for line in checked(mypy, "wrong", text)] == ["2", "3", "4"]


def test_solver_takes_the_keywords_of_minimize():
    of_minimize = list(inspect.signature(jaxmin.minimize).parameters)
    others = ("fun", "x0", "args", "method", "progress")
    assert list(Settings.__annotations__) == [name for name in of_minimize if name not in others]
