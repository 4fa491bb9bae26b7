"""Memory on each device, and the answer, of a solve whose x0 is on one device, and of the same spread over eight.

    python benchmarks/sharded.py
    python benchmarks/sharded.py --size 1000000 --devices 8 --method cg

A table w [16, n / 16] is fitted to another by a strictly convex loss in which every entry has a curvature of its own;
the devices are eight virtual ones of the processor, each of which would hold its part alone.
"""

import argparse
import os


def loss(x, target):
    return jnp.sum((1 + target**2) * jnp.cosh(x["w"] - target)) + x["b"] ** 2 * (1 + jnp.mean(x["w"] ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2**20, help="numbers in w")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--method", default="lbfgs")
    given = parser.parse_args()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={given.devices}"

    global jax, jnp
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import jaxmin

    rng = np.random.default_rng(0)
    target = rng.normal(size=(16, given.size // 16)).astype(np.float32)
    x0 = {"w": np.zeros_like(target), "b": np.float32(1)}
    print(f"{given.method}, {target.size + 1} variables in float32; MB on each device")
    print(f"{'devices':>8} {'form':>7} {'in':>8} {'out':>8} {'within':>8} {'gathers':>8} {'nit':>5} {'f':>12}")
    for count, flat in ((1, True), (1, False), (given.devices, True), (given.devices, False)):
        mesh = Mesh(np.array(jax.devices()[:count]), ("d",))
        over, everywhere = NamedSharding(mesh, PartitionSpec(None, "d")), NamedSharding(mesh, PartitionSpec())
        x = jax.device_put(x0, {"w": over, "b": everywhere})

        def solve(x, target, flat=flat):
            return jaxmin.minimize(loss, x, args=(target,), method=given.method, options={"flat": flat})

        compiled = jax.jit(solve).lower(x, jax.device_put(target, over)).compile()
        sizes = compiled.memory_analysis()
        parts = sizes.argument_size_in_bytes, sizes.output_size_in_bytes, sizes.temp_size_in_bytes
        gathers = sum(" all-gather" in line.split("(")[0] for line in compiled.as_text().splitlines())
        res = compiled(x, jax.device_put(target, over))
        shown = " ".join(f"{part / 1e6:8.2f}" for part in parts)
        form = "joined" if flat else "apart"
        print(f"{count:8d} {form:>7} {shown} {gathers:8d} {int(res.nit):5d} {float(res.fun):12.3f}", flush=True)


if __name__ == "__main__":
    main()
