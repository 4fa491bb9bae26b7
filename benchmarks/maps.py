"""The memory maps of a process that solves for many numbers which fun closes over: python benchmarks/maps.py [numbers].

Each number makes four programs: of the solve, its derivative, a batch, and the derivatives of a batch. Linux grants a
process 65,530 maps, and one that asks for more ends at once.
"""

import sys
import time

import jax
import jax.numpy as jnp

from jaxmin import minimize
from jaxmin._cache import programs


def main(numbers=500):
    most, begin = 0, time.perf_counter()
    for number in range(numbers):
        c = number + 0.5

        def fit(t, c=c):
            return minimize(lambda x: jnp.sum((x - c * t) ** 2) + jnp.sum(x**4), jnp.zeros(2)).x.sum()

        fit(1.0), jax.grad(fit)(1.0), jax.vmap(fit)(jnp.arange(8.0)), jax.vmap(jax.grad(fit))(jnp.arange(8.0))
        most = max(most, programs._maps())
        if number % 10 == 9:
            seconds = time.perf_counter() - begin
            print(f"{number + 1} numbers: {programs._maps()} maps, {most} at most, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
