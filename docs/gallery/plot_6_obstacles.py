"""
Ways around obstacles
=====================

A drone takes off on the left and lands on the right ten seconds later. Between them stand round towers. Which flight
needs the least effort, the integral of the squared acceleration, and never exceeds the speed limit?

There is a best flight for each way around the towers: above the first, below the second, and so on. A solve finds the
one that its start leads to. So this takes many starts, in one compiled call under ``vmap``. Everything is in float32.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

towers = jnp.array([[2.0, -2.2], [2.1, 0.7], [4.1, 2.4], [4.4, -0.9], [6.6, 1.0], [6.9, -1.9], [8.4, 3.0]])
radii = jnp.array([0.8, 0.9, 1.0, 0.8, 1.0, 0.8, 0.8])
start, end = jnp.array([0.0, 0.0]), jnp.array([10.0, 0.5])
n = 40
h = 10.0 / (n + 1)

# %%
# The unknowns are 40 points of the flight, an array with two axes. Each end counts twice: there the drone is at rest.
# There are 321 constraints: at every point the distance from every tower, and between points the speed. Both are
# squared, so they have derivatives everywhere. The towers get a margin of 0.1, since a line between two points that are
# just outside cuts a corner.


def flight(points):
    return jnp.concatenate([jnp.stack([start, start]), points, jnp.stack([end, end])])


def effort(points):
    acceleration = jnp.diff(flight(points), n=2, axis=0) / h**2
    return h * jnp.sum(acceleration**2)


def rows(points):
    apart = points[:, None, :] - towers[None, :, :]
    velocity = jnp.diff(flight(points)[1:-1], axis=0) / h
    return {"distance": jnp.sum(apart**2, axis=2), "speed": jnp.sum(velocity**2, axis=1)}


def best_near(points, limit):
    lower = {"distance": (radii + 0.1) ** 2, "speed": -jnp.inf}
    upper = {"distance": jnp.inf, "speed": limit**2}
    return jaxmin.minimize(effort, points, constraints=jaxmin.NonlinearConstraint(rows, lower, upper))


many = jax.jit(jax.vmap(best_near))

# %%
# A start is a line with three random waves. It runs through towers and is too fast: it need not be feasible.

share = jnp.linspace(0, 1, n + 2)[1:-1]
waves = jnp.stack([jnp.sin(k * jnp.pi * share) for k in (1, 2, 3)])
sizes = jax.random.normal(jax.random.key(0), (16, 3)) * jnp.array([[2.5, 1.5, 1.0]])
lines = start[None] + jnp.outer(share, end - start)
starts = lines[None] + jnp.stack([jnp.zeros((16, n)), sizes @ waves], axis=2)

res = many(starts, 1.2 * jnp.ones(16))
for status in np.unique(res.status):
    print(f"{int(np.sum(res.status == status)):2} of 16: {jaxmin.Status(status).name}")

# %%
# Those without success went for a way that is too long at this speed: in the picture they are pulled tight around the
# towers, and still too fast. The others pass each tower above or below. Starts that lead to the same way end with the
# same effort.

flights, efforts = np.asarray(res.x), np.where(res.success, res.fun, np.inf)
across, up = np.asarray(towers).T
above = np.array([np.interp(across, *points.T) > up for points in flights])
ways = np.array([" ".join("above" if one else "below" for one in row) for row in above])
best_of = [np.flatnonzero(ways == way)[np.argmin(efforts[ways == way])] for way in np.unique(ways[res.success])]
best_of.sort(key=lambda i: efforts[i])
for i in best_of:
    same = efforts[(ways == ways[i]) & res.success]
    print(f"{same.size:2} starts, effort {same.min():.3f} to {same.max():.3f}: {ways[i]}")

# %%
# What does the speed limit cost? This asks for the best flight under 16 limits, all from the same start, with the
# program that is compiled already. If the limit is too low, no flight arrives in time. Such lanes end without success,
# and the others are not disturbed.

best = best_of[0]
limits = jnp.linspace(1.0, 1.5, 16)
by_limit = many(jnp.broadcast_to(res.x[best], (16, n, 2)), limits)
for status in np.unique(by_limit.status):
    ended = np.asarray(limits)[by_limit.status == status]
    print(f"{ended.size:2} limits from {ended.min():.2f} to {ended.max():.2f}: {jaxmin.Status(status).name}")

# %%

figure = plt.figure(figsize=(11, 4.6), layout="constrained")
grid = figure.add_gridspec(2, 2, width_ratios=(5, 3))
plan, cost, pace = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
colour = plt.get_cmap("viridis")

for points in starts:
    plan.plot(*np.asarray(flight(points)).T, color="0.5", alpha=0.4, lw=0.6, zorder=0)
for centre, radius in zip(np.asarray(towers), radii, strict=True):
    plan.add_patch(plt.Circle(centre, radius, facecolor="0.5", edgecolor="0.5"))
for i in np.flatnonzero(~np.asarray(res.success)):
    plan.plot(*np.asarray(flight(res.x[i])).T, ":", color="tab:red", lw=1, label="no success")
for rank, i in reversed(list(enumerate(best_of))):
    style = {"lw": 1.4} if rank else {"lw": 2.5, "marker": "o", "ms": 4}
    label = f"effort {efforts[i]:.2f}"
    plan.plot(*np.asarray(flight(res.x[i])).T, color=colour(rank / len(best_of)), label=label, **style)
plan.set(aspect="equal", xlim=(-0.5, 10.5), ylim=(-3.6, 4.8), xlabel="metres")
handles, labels = plan.get_legend_handles_labels()
named = dict(zip(labels[::-1], handles[::-1], strict=True))
plan.legend(named.values(), named.keys(), loc="upper left", ncols=2, fontsize=8)
plan.set_title("starts (grey), and the best flight of each way", fontsize=11)

good = np.asarray(by_limit.success)
cost.plot(limits[good], by_limit.fun[good], color="tab:blue")
cost.plot(limits[~good], np.full(np.sum(~good), 1.0), "x", ms=4, color="tab:red", label="no success")
cost.set(xlabel="speed limit, metres per second", ylabel="effort")
cost.legend(fontsize=8)
time = h * (np.arange(n + 1) + 0.5)
for i in np.flatnonzero(good)[[0, 5, -1]]:
    speed = np.linalg.norm(np.diff(flight(by_limit.x[i])[1:-1], axis=0), axis=1) / h
    pace.plot(time, speed, label=f"limit {limits[i]:.2f}")
pace.set(xlabel="seconds", ylabel="speed")
pace.legend(fontsize=8)
plt.show()
