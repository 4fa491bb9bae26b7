"""
Paths to a minimum
==================

Rosenbrock's valley, and how four methods walk through it from the same start. A callback records each iterate while the
compiled solve runs.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)


def rosen(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


start = np.array([-1.2, 1.0])


def walk(method):
    """The result, and the iterates with the start before them."""
    points = [start]
    res = jaxmin.minimize(rosen, start, method=method, callback=points.append, options={"maxiter": 2000})
    return res, np.array(points)


walks = {method: walk(method) for method in ("gradient_descent", "cg", "lbfgs", "trust_ncg")}
for method, (res, _) in walks.items():
    print(f"{method:17} {int(res.nit):5} iterations {int(res.nfev):5} evaluations   f = {float(res.fun):.1e}")

# %%
# Steepest descent takes shorter and shorter steps along the valley's floor. The other three methods learn how the
# valley bends: from the last direction, from the last few gradients, or from products with the Hessian.

x, y = np.meshgrid(np.linspace(-1.6, 1.4, 300), np.linspace(-0.6, 1.8, 300))
figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
for axis, (method, (res, points)) in zip(axes.flat, walks.items(), strict=True):
    axis.contour(x, y, rosen(np.stack([x, y])), levels=np.logspace(-1, 3, 12), colors="0.5", alpha=0.6, linewidths=0.8)
    axis.plot(*points.T, "o-", ms=3, lw=1, color="tab:blue")
    axis.plot(1, 1, "*", ms=14, color="tab:orange")
    axis.set_title(f"{method}: {int(res.nit)} iterations", fontsize=11)
    axis.set(xlim=(-1.6, 1.4), ylim=(-0.6, 1.8))
plt.show()

# %%
# Four minima, and which start leads where
# ----------------------------------------
#
# Himmelblau's function has four minima, all with f = 0. A batch of 16,384 solves, one from each pixel of the plane, is
# one call under ``vmap``. Colour: the minimum that was found. Shade: the number of evaluations.


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


side = jnp.linspace(-5.0, 5.0, 128)
grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
batch = jax.jit(jax.vmap(lambda x0: jaxmin.minimize(himmelblau, x0, method="bfgs", options={"gtol": 1e-3})))(grid)
print(f"{int(batch.success.sum())} of {grid.shape[0]} converged, in {int(batch.nfev.max())} evaluations or fewer")

# %%

minima = np.array([[3.0, 2.0], [-2.805118, 3.131312], [-3.779310, -3.283186], [3.584428, -1.848126]])
distance = np.linalg.norm(np.asarray(batch.x)[:, None, :] - minima[None, :, :], axis=2)
nearest = np.where(distance.min(axis=1) < 0.01, distance.argmin(axis=1), 4)
colours = np.array([[0.30, 0.55, 0.85], [0.95, 0.65, 0.25], [0.40, 0.70, 0.40], [0.85, 0.40, 0.45], [1.0, 1.0, 1.0]])
shade = 1.15 - 0.6 * np.minimum(np.asarray(batch.nfev) / np.quantile(batch.nfev, 0.99), 1)
picture = np.clip(colours[nearest] * shade[:, None], 0, 1).reshape(128, 128, 3)

figure, axis = plt.subplots(figsize=(6.5, 6), layout="constrained")
axis.imshow(picture, origin="lower", extent=(-5, 5, -5, 5))
axis.plot(*minima.T, "*", ms=14, color="white", markeredgecolor="black")
axis.set_title("BFGS on Himmelblau's function, from every pixel")
plt.show()
