"""Solves on several devices, run as a script by ``test_sharding.py``: what is found is printed as JSON.

python tests/sharded.py data                  data spread over the devices that there are
python tests/sharded.py spread METHOD ...     x0 spread over them, solved by each method
python tests/sharded.py devices METHOD ...    the same; in a box and with derivatives too
python tests/sharded.py process PORT RANK     as one of two processes
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmin

SIZE = 2**12
# What moves whole arrays between devices. An all-reduce of a scalar is how an inner product is summed.
MOVES = ("all-gather", "all-to-all", "collective-permute", "all-reduce")


def apart(x, target):
    """A function of a tree whose parts know of each other, so that one scale does not serve all."""
    scales = 1 + jnp.abs(target)
    return (
        jnp.sum(scales * jnp.cosh(x["w"] - target))
        + jnp.sum(jnp.cosh(x["W"] - 0.5))
        + x["b"] ** 2 * jnp.sum(x["w"] ** 2)
    )


def fit(w, X, y):
    return jnp.mean(jnp.logaddexp(0, -y * (X @ w))) + 0.01 * w @ w


def moved(text):
    """The largest array, in numbers, of each kind of move in a compiled text."""
    largest = dict.fromkeys(MOVES, 0)
    for line in text.splitlines():
        for kind in MOVES:
            if re.search(rf"= .* {kind}(-start)?\(", line):
                shapes = re.findall(r"\[([\d,]*)\]", line.split(f" {kind}")[0])
                sizes = [int(np.prod([int(k) for k in shape.split(",") if k])) for shape in shapes]
                largest[kind] = max(largest[kind], *sizes)
    return largest


def memory(compiled):
    """Bytes on each device: of what goes in and out, and within."""
    sizes = compiled.memory_analysis()
    return sizes.argument_size_in_bytes + sizes.output_size_in_bytes, sizes.temp_size_in_bytes


def gap(tree, other):
    parts = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(u) - np.asarray(v)))) for u, v in parts)


def start(put):
    x0 = {"w": np.zeros(SIZE), "W": np.ones((16, SIZE // 16)), "b": np.ones(())}
    specs = {"w": P("d"), "W": P(None, "d"), "b": P()}
    return {name: put(x0[name], specs[name]) for name in x0}


def data():
    """Data spread over the devices, x0 on each of them."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    put = lambda u, spec: jax.device_put(u, NamedSharding(mesh, spec))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4096, 5)), rng.choice([-1.0, 1.0], size=4096)
    solve = jax.jit(lambda X, y: jaxmin.minimize(fit, jnp.zeros(5), args=(X, y)))
    compiled = solve.lower(put(X, P("d")), put(y, P("d"))).compile()
    one = jaxmin.minimize(fit, jnp.zeros(5), args=(X, y))
    closed, given = put(X, P("d")), put(y, P("d"))
    over = jaxmin.minimize(lambda w: fit(w, closed, given), jnp.zeros(5))
    return {
        "gap": gap(compiled(put(X, P("d")), put(y, P("d"))).x, one.x),
        "gap_closed_over": gap(over.x, one.x),
        "moved": moved(compiled.as_text()),
    }


def alone(u, spec):
    return jnp.asarray(u)


def spread(*methods):
    """x0 spread over the devices."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    put = lambda u, spec: jax.device_put(u, NamedSharding(mesh, spec))
    whole = lambda u, spec: put(u, P())
    target = np.linspace(-1, 1, SIZE)
    found = {}

    for method in methods:
        one = jaxmin.minimize(apart, start(alone), args=(target,), method=method)
        solve = jax.jit(lambda x, t, m=method: jaxmin.minimize(apart, x, args=(t,), method=m, options={"flat": False}))
        x0 = start(put)
        compiled = solve.lower(x0, put(target, P("d"))).compile()
        res = compiled(x0, put(target, P("d")))
        found[method] = {
            "success": bool(res.success),
            "gap": gap(res.x, one.x),
            "kept": all(res.x[k].sharding.is_equivalent_to(x0[k].sharding, x0[k].ndim) for k in x0),
            "moved": moved(compiled.as_text()),
            "memory": memory(compiled),
        }
        if method == "lbfgs":
            everywhere = solve.lower(start(whole), whole(target, P())).compile()
            found[method]["memory_replicated"] = memory(everywhere)
            found[method]["rows_kept"] = [
                max(shard.data.size for shard in row.addressable_shards) * len(jax.devices()) == row.size
                for row in jax.tree.leaves(res.hess_inv.core().S)
                if row.size > 10
            ]
    return found


def on_devices(*methods):
    """That, and without being asked to, in a box, and derivatives."""
    found = spread(*methods)
    mesh = Mesh(np.array(jax.devices()), ("d",))
    put = lambda u, spec: jax.device_put(u, NamedSharding(mesh, spec))
    target = np.linspace(-1, 1, SIZE)

    def total(target, put, upper=0.25):
        res = jaxmin.minimize(
            apart, start(put), args=(target,), bounds=jaxmin.Bounds(-2, upper), options={"gtol": 1e-9}
        )
        return jnp.sum(res.x["w"] ** 2) + jnp.sum(res.x["W"]), res

    (_, res), slope = jax.value_and_grad(total, has_aux=True)(put(target, P("d")), put)
    (_, one), slope_one = jax.jit(lambda t: jax.value_and_grad(total, has_aux=True)(t, alone))(target)
    found["box"] = {
        "gap": gap(res.x, one.x),
        "slope_gap": gap(slope, slope_one),
        "slope": float(jnp.max(jnp.abs(slope_one))),
        "held": int(jnp.sum(res.active_mask["w"])),
        "kept": not res.x["w"].sharding.is_fully_replicated,
    }

    # Axes that types tell of.
    mesh = jax.make_mesh((len(jax.devices()),), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    put = lambda u, spec: jax.device_put(u, NamedSharding(mesh, spec))
    _, res = total(put(target, P("d")), put)
    found["explicit"] = {"gap": gap(res.x, one.x), "kept": not res.x["w"].sharding.is_fully_replicated}
    return found


def as_process(port, rank):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
    mesh = Mesh(np.array(jax.devices()), ("d",))

    def put(u, spec):
        return jax.make_array_from_callback(np.shape(u), NamedSharding(mesh, spec), lambda part: np.asarray(u)[part])

    target = np.linspace(-1, 1, SIZE)
    res = jaxmin.minimize(apart, start(put), args=(put(target, P("d")),))
    one = jaxmin.minimize(apart, start(lambda u, spec: jnp.asarray(u)), args=(target,))
    parts = [np.abs(np.asarray(part.data) - one.x["w"][part.index]) for part in res.x["w"].addressable_shards]
    return {
        "devices": len(jax.devices()),
        "message": res.message,
        "success": bool(res.success),
        "gap": max(float(part.max()) for part in parts),
        "here": sum(part.size for part in parts),
        "shown": "success" in repr(res),
    }


if __name__ == "__main__":
    what = {"data": data, "spread": spread, "devices": on_devices, "process": as_process}[sys.argv[1]]
    print(json.dumps(what(*sys.argv[2:])))
