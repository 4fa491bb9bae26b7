"""The packed loop: the same carry to the bit as ``lax.while_loop``, for whatever a carry holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import each_dtype
from jax import lax

from jaxmin._driver import packing


def carry_of(dtype, n):
    x = jnp.linspace(-1, 1, n, dtype=dtype)
    return {
        "count": jnp.zeros((), jnp.int32),
        "flag": jnp.ones((), bool),
        "large": jnp.asarray(2**31 - 100, jnp.int32),
        "f": jnp.asarray(0.1, dtype),
        "minus zero": jnp.asarray(-0.0, dtype),
        "half": jnp.asarray(0.1, jnp.bfloat16),
        "nan": jnp.asarray(jnp.nan, dtype),
        "none": None,
        "x": x,
        "y": x[::-1],
        "byte": jnp.asarray(7, jnp.uint8),
        "complex": jnp.asarray(1j, jnp.complex64),
        "matrix": jnp.outer(x, x),
        "key": jax.random.key(0),
    }


def step(carry):
    return carry | {
        "count": carry["count"] + 1,
        "flag": ~carry["flag"],
        "large": carry["large"] + 1,
        "f": carry["f"] * 1.7 - 0.3,
        "half": carry["half"] + jnp.asarray(0.1, jnp.bfloat16),
        "x": carry["y"] * carry["f"],
        "y": carry["x"] + carry["matrix"][0],
        "byte": carry["byte"] * jnp.uint8(3),
        "complex": carry["complex"] * 1j,
        "matrix": carry["matrix"] * 0.5,
        "key": jax.random.split(carry["key"])[0],
    }


def goes_on(carry):
    return carry["count"] < 13


def bits(carry):
    raw = carry | {"key": jax.random.key_data(carry["key"])}
    return [(u.dtype, u.shape, np.asarray(u).tobytes()) for u in jax.tree.leaves(raw)]


@each_dtype
@pytest.mark.parametrize("n", [1, 20, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 100))])
@pytest.mark.parametrize("lanes", [None, 2])
def test_the_same_to_the_bit(dtype, n, lanes):
    carry = carry_of(dtype, n)
    loops = [lambda carry, loop=loop: loop(goes_on, step, carry) for loop in (packing.while_loop, lax.while_loop)]
    if lanes:
        carry = jax.tree.map(lambda u: jnp.stack([u] * lanes), carry) | {"count": jnp.arange(lanes, dtype=jnp.int32)}
        loops = [jax.vmap(loop) for loop in loops]
    ours, plain = (bits(jax.jit(loop)(carry)) for loop in loops)
    assert ours == plain


def test_numbers_travel_in_two_arrays():
    text = str(jax.make_jaxpr(lambda carry: packing.while_loop(goes_on, step, carry))(carry_of("float32", 3)))
    loop = next(line for line in text.splitlines() if "= while[" in line)
    # What is alone, the floats, the integers, and x and y.
    assert "f32[4]" in loop
    assert "i32[3]" in loop
    assert "f32[2,3]" in loop
    assert "i32[] " not in loop


def test_a_carry_without_numbers():
    x = packing.while_loop(lambda x: x[0] < 3, lambda x: x + 1, jnp.zeros(100))
    assert x.tolist() == [3.0] * 100
