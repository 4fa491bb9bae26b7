"""Minimizers with constraints behind one call.

A solver is ``build(task) -> run, tell, seconds``: it compiles what it can, which takes ``seconds``; ``run()`` solves
from x0, which is timed, and may be called again; ``tell(what it returned)`` is the :class:`Answer`.
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from cutest_problems import x64
from jax import lax

import jaxmin

MAXITER, MAXFUN = 1_000, 3_000
METHODS = ("interior_point", "slsqp", "augmented_lagrangian")


class Task(NamedTuple):
    functions: Any  # a Functions
    seconds: float  # of processor time for a solve
    count_outside: bool = False  # by jaxmin too
    options: dict = {}  # of jaxmin  # noqa: RUF012


class Answer(NamedTuple):
    x: Any
    claim: bool
    status: int
    message: str
    nfev: Any  # points at which f or c was asked for
    nit: Any = None
    said: str | None = None  # "infeasible", "unbounded"
    outside: Any = None  # points outside the bounds; None: not counted


class Functions:
    """f and c of a problem with their derivatives, compiled in one dtype. Results are float64."""

    def __init__(self, problem, dtype):
        self.problem, self.dtype = problem, np.dtype(dtype)
        self.lower, self.upper, self.x0 = (side.astype(dtype) for side in (problem.lower, problem.upper, problem.x0))
        self.zeros = np.zeros(problem.m_eq + problem.m_ineq, dtype)
        f, c = problem.f, problem.c
        jacobian = jax.jacfwd if self.zeros.size > problem.n else jax.jacrev
        self._functions = {
            "values": lambda x: (f(x), c(x)),
            "slopes": lambda x: (jax.grad(f)(x), jacobian(c)(x)),
            "hessian": jax.hessian(lambda x, weight, y: weight * f(x) + y @ c(x)),
        }
        self._compiled, self._seconds = {}, {}

    def compile(self, *names):
        """The seconds of processor time that these took, now or before."""
        for name in names:
            if name not in self._compiled:
                begin = time.process_time()
                given = (self.x0, self.dtype.type(1), self.zeros)[: 3 if name == "hessian" else 1]
                with x64(self.dtype == np.float64):
                    self._compiled[name] = jax.jit(self._functions[name]).lower(*given).compile()
                self._seconds[name] = time.process_time() - begin
        return sum(self._seconds[name] for name in names)

    def values(self, x):
        """f [], c [m]"""
        return self._call("values", x)

    def slopes(self, x):
        """g [n], J [m, n]"""
        return self._call("slopes", x)

    def hessian(self, x, weight, y):
        """Of weight f + y c, [n, n]."""
        return self._call("hessian", x, weight, y)

    def _call(self, name, *given):
        self.compile(name)
        with x64(self.dtype == np.float64):
            found = self._compiled[name](*(np.asarray(value, self.dtype) for value in given))
        return jax.tree.map(lambda part: np.array(part, np.float64), found)


# jaxmin


def jaxmin_solver(method):
    """All of it, from x0 to the result, in one program; its Hessians are its own."""

    def build(task):
        functions, problem = task.functions, task.functions.problem
        fun, outside = _watched(task)
        given = {"constraints": jaxmin.NonlinearConstraint(problem.c, functions.zeros, _cast(problem.upper_c, task))}
        if problem.bounded:
            given["bounds"] = jaxmin.Bounds(functions.lower, functions.upper)
        options = {"maxiter": MAXITER, "maxfun": MAXFUN} | task.options
        solve = lambda x0: jaxmin.minimize(fun, x0, method=method, options=options, **given)
        begin = time.process_time()
        program = jax.jit(solve).lower(functions.x0).compile()
        seconds = time.process_time() - begin

        def run():
            outside.clear()
            return program(functions.x0)

        def tell(res):
            jax.effects_barrier()
            status = int(res.status)
            said = {"INFEASIBLE": "infeasible", "UNBOUNDED": "unbounded"}.get(jaxmin.Status(status).name)
            counted = len(outside) if task.count_outside else None
            return Answer(res.x, bool(res.success), status, res.message, int(res.nfev), int(res.nit), said, counted)

        return run, tell, seconds

    return build


def _cast(values, task):
    return values.astype(task.functions.dtype)


def _watched(task):
    """f, and the list of its evaluations outside the bounds, where they are to be counted."""
    functions, outside = task.functions, []

    def fun(x):
        count = lambda: jax.debug.callback(lambda: outside.append(1))
        lax.cond(jnp.any((x < functions.lower) | (x > functions.upper)), count, lambda: None)
        return functions.problem.f(x)

    return fun if task.count_outside and functions.problem.bounded else functions.problem.f, outside


# Peers on the host, with exact derivatives


class _Spent(Exception):
    """The evaluations or the time that a solver may use are used up."""


class Counted:
    """The functions as a host solver asks for them. What is asked twice in a row is computed and counted once."""

    def __init__(self, task):
        self.functions, self.problem, self.seconds = task.functions, task.functions.problem, task.seconds
        self.start()

    def start(self):
        self.nfev = self.nit = self.outside = 0
        self._memory = {}
        self._begin = time.process_time()

    @property
    def last(self):
        """The point at which f or c was last asked for."""
        return self._memory["values"][0]

    def _ask(self, name, x):
        point, found = self._memory.get(name, (None, None))
        if point is None or not np.array_equal(point, x):
            if name == "values":
                self._count(x)
            point, found = np.array(x), getattr(self.functions, name)(x)
            self._memory[name] = point, found
        return found

    def _count(self, x):
        if self.nfev == MAXFUN or time.process_time() - self._begin > self.seconds:
            raise _Spent
        self.nfev += 1
        self.outside += bool(np.any((x < self.problem.lower) | (x > self.problem.upper)))

    def f(self, x):
        return float(self._ask("values", x)[0])

    def c(self, x):
        return self._ask("values", x)[1].copy()

    def g(self, x):
        return self._ask("slopes", x)[0].copy()

    def J(self, x):
        return self._ask("slopes", x)[1].copy()

    def iterated(self, *_, **__):
        """A callback of SciPy."""
        self.nit += 1


def host(solve, hessian=False):
    """The solver of ``solve(counted, problem) -> x, claim, status, message, said``."""

    def build(task):
        functions, counted = task.functions, Counted(task)
        seconds = functions.compile("values", "slopes", *(["hessian"] if hessian else []))

        def run():
            counted.start()
            try:
                x, claim, status, message, said = solve(counted, functions.problem)
            except _Spent:
                x, claim, status, message, said = counted.last, False, -1, "the limit of evaluations or time", None
            return Answer(x, bool(claim), int(status), message, counted.nfev, counted.nit, said, counted.outside)

        return run, lambda answer: answer, seconds

    return build


def _box(problem):
    return scipy.optimize.Bounds(problem.lower, problem.upper) if problem.bounded else None


def scipy_slsqp(counted, problem):
    """With ftol 1e-9: the default, 1e-6, leaves the KKT conditions open on many problems."""
    m_eq, constraints = problem.m_eq, []
    for kind, rows in (("eq", slice(None, m_eq)), ("ineq", slice(m_eq, None))):
        if problem.upper_c[rows].size:
            part = lambda ask, rows=rows: lambda x: ask(x)[rows]
            constraints.append({"type": kind, "fun": part(counted.c), "jac": part(counted.J)})
    res = scipy.optimize.minimize(
        counted.f, problem.x0, method="SLSQP", jac=counted.g, bounds=_box(problem), constraints=constraints,
        options={"ftol": 1e-9, "maxiter": MAXITER}, callback=counted.iterated,
    )  # fmt: skip
    said = "infeasible" if res.status == 4 else None  # inequality constraints incompatible
    return res.x, res.success, res.status, res.message, said


def scipy_trust_constr(counted, problem):
    hessian, zeros = counted.functions.hessian, counted.functions.zeros
    constraint = scipy.optimize.NonlinearConstraint(
        counted.c, zeros, problem.upper_c, jac=counted.J, hess=lambda x, y: hessian(x, 0.0, y)
    )
    res = scipy.optimize.minimize(
        counted.f, problem.x0, method="trust-constr", jac=counted.g, hess=lambda x: hessian(x, 1.0, zeros),
        bounds=_box(problem), constraints=[constraint], options={"gtol": 1e-8, "xtol": 1e-10, "maxiter": MAXITER},
        callback=counted.iterated,
    )  # fmt: skip
    said = "infeasible" if res.status == 4 else None  # constraint violation exceeds gtol
    return res.x, res.success, res.status, res.message, said


class _ForIpopt:
    """The problem by the names that cyipopt asks for."""

    def __init__(self, counted, problem):
        self.objective, self.constraints, self.gradient = counted.f, counted.c, counted.g
        self._counted = counted
        m, n = problem.m_eq + problem.m_ineq, problem.n
        self._full = np.repeat(np.arange(m), n), np.tile(np.arange(n), m)
        self._lower = np.tril_indices(n)

    def jacobian(self, x):
        return self._counted.J(x).ravel()

    def jacobianstructure(self):
        return self._full

    def hessian(self, x, y, weight):
        return self._counted.functions.hessian(x, weight, y)[self._lower]

    def hessianstructure(self):
        return self._lower

    def intermediate(self, mode, nit, *_):
        self._counted.nit = nit
        return True


def ipopt(counted, problem):
    """Ipopt with its own tolerance, 1e-8."""
    import cyipopt  # here: the other solvers do without it

    solver = cyipopt.Problem(
        n=problem.n, m=problem.upper_c.size, problem_obj=_ForIpopt(counted, problem),
        lb=np.maximum(problem.lower, -2e19), ub=np.minimum(problem.upper, 2e19),
        cl=np.zeros(problem.upper_c.size), cu=np.minimum(problem.upper_c, 2e19),
    )  # fmt: skip
    for name, value in (("print_level", 0), ("sb", "yes"), ("max_iter", MAXITER)):
        solver.add_option(name, value)
    x, info = solver.solve(problem.x0)
    status, message = info["status"], info["status_msg"]
    message = message.decode() if isinstance(message, bytes) else str(message)
    said = {2: "infeasible", 4: "unbounded"}.get(status)  # infeasible problem detected; diverging iterates
    return x, status in (0, 1), status, message, said


PEERS = {
    "scipy-slsqp": host(scipy_slsqp),
    "scipy-trust-constr": host(scipy_trust_constr, hessian=True),
    "ipopt": host(ipopt, hessian=True),
}
NAMES = (*(f"jaxmin-{method}" for method in METHODS), *PEERS)


def solver_of(name):
    """A peer by its name, or jaxmin-METHOD."""
    library, _, method = name.partition("-")
    if library == "jaxmin" and method:
        return jaxmin_solver(method)
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"{name!r}: {', '.join(NAMES)}")
    return PEERS[name]
