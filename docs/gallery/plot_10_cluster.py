"""
A cluster of thirteen atoms
===========================

Atoms of a noble gas attract each other from afar, and repel each other where they touch: the potential of
Lennard-Jones. How do thirteen of them arrange themselves? The energy has more than a thousand minima. The lowest known
is an icosahedron with an atom in its centre, at -44.326801 (M. R. Hoare and P. Pal, Advances in Physics 20 (1971),
161-196). Here a thousand solves start from random places, in one call.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

atoms, solves = 13, 1000
one, other = np.triu_indices(atoms, 1)  # the 78 pairs


def energy(places):
    """The energy of all pairs. places has a row for each atom; a pair alone has energy -1."""
    apart = places[one] - places[other]
    sixth = jnp.sum(apart**2, axis=1) ** -3
    return 4 * jnp.sum(sixth**2 - sixth)


# %%
# The starts are drawn in a ball. Two atoms may nearly coincide there, and then the energy is huge. The line
# search takes such starts as they are.

starts = 2.2 * jax.random.ball(jax.random.key(0), 3, shape=(solves, atoms))
before = jax.vmap(energy)(starts)
print(f"energy at the starts: {float(before.min()):.0f} to {float(before.max()):.0e}")

res = jaxmin.minimize_many(energy, starts, options={"gtol": 1e-6})
print(f"{int(res.success.sum())} of {solves} successes, {float(res.nfev.mean()):.0f} evaluations each")

# %%
# Minima with different energies are different. Which are the lowest, and how often were they found?

energies, example, counts = np.unique(np.round(res.fun, 5), return_index=True, return_counts=True)
print(f"{energies.size} different energies")
for k in range(6):
    print(f"{energies[k]:.5f} found {counts[k]:3} times")

best = np.asarray(res.x[example[0]])
from_centre = np.sort(np.linalg.norm(best - best.mean(axis=0), axis=1))
print(f"one atom at {from_centre[0]:.6f} from the centre, twelve at {from_centre[1]:.6f} to {from_centre[-1]:.6f}")

# %%

figure = plt.figure(figsize=(11, 6), layout="constrained")
grid = figure.add_gridspec(2, 3, height_ratios=(3, 2))
for column, k in enumerate((0, 1, energies.size // 2)):
    axis, cluster = figure.add_subplot(grid[0, column], projection="3d"), np.asarray(res.x[example[k]])
    cluster = cluster - cluster.mean(axis=0)
    for i, j in zip(one, other, strict=True):
        if np.linalg.norm(cluster[i] - cluster[j]) < 1.25:  # neighbours
            axis.plot(*cluster[[i, j]].T, color="0.5", lw=1)
    distance = np.linalg.norm(cluster, axis=1)
    axis.scatter(*cluster.T, s=160, c=distance, cmap="viridis_r", vmin=0, vmax=2, edgecolor="0.5", depthshade=False)
    axis.set(title=f"{energies[k]:.4f}: {counts[k]} of {solves}", aspect="equal")
    axis.set_box_aspect(None, zoom=1.2)
    axis.set_axis_off()
axis = figure.add_subplot(grid[1, :])
axis.hist(res.fun, bins=np.arange(-44.4, energies.max() + 0.1, 0.1), color="tab:blue")
axis.set(xlabel="energy of the minimum", ylabel="solves")
plt.show()
