"""
A shock wave, by a network that knows the equation
==================================================

Burgers' equation :math:`u_t + u u_x = \\nu u_{xx}` steepens a wave until viscosity stops it. A physics-informed network
(M. Raissi, P. Perdikaris and G. E. Karniadakis, Journal of Computational Physics 378 (2019), 686-707) is a function of
time and place, and what is minimized is how much it violates the equation. Automatic differentiation gives the terms of
the equation, and then the gradient. There are no data: the equation, the initial wave and the walls determine u.

Such losses are badly conditioned, so the choice of the method matters.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

viscosity = 0.05 / np.pi


def u(p, t, x):
    """The network, 501 parameters. The initial wave and the walls are built in, so the loss is the equation alone."""
    a = jnp.stack([2 * t - 1, x])
    for layer in p["hidden"]:
        a = jnp.tanh(layer["w"] @ a + layer["b"])
    return -jnp.sin(jnp.pi * x) + t * (1 - x**2) * (p["out"]["w"] @ a + p["out"]["b"])


def violation(p, t, x):
    value, (u_t, u_x) = jax.value_and_grad(u, (1, 2))(p, t, x)
    u_xx = jax.grad(jax.grad(u, 2), 2)(p, t, x)
    return u_t + value * u_x - viscosity * u_xx


def loss(p, t, x):
    return jnp.mean(jax.vmap(violation, (None, 0, 0))(p, t, x) ** 2)


# %%
# The equation is asked for at 1,024 points, which a Sobol sequence spreads evenly.

times, places = jaxmin.starts(jax.random.key(0), [(0.0, 1.0), (-1.0, 1.0)], 1024).T
keys = jax.random.split(jax.random.key(1), 3)
start = {
    "hidden": [
        {"w": jax.random.normal(keys[0], (20, 2)) / np.sqrt(2), "b": jnp.zeros(20)},
        {"w": jax.random.normal(keys[1], (20, 20)) / np.sqrt(20), "b": jnp.zeros(20)},
    ],
    "out": {"w": jax.random.normal(keys[2], (20,)) / np.sqrt(20), "b": jnp.zeros(())},
}

# %%
# BFGS learns a matrix of 501 × 501 curvatures. L-BFGS, the usual choice, remembers the last ten steps. It gets as many
# evaluations.

options = {"gtol": 5e-5, "maxiter": 5000, "history": True}
runs = {"bfgs": jaxmin.minimize(loss, start, args=(times, places), method="bfgs", options=options)}
options["maxfun"] = int(runs["bfgs"].nfev)
runs["lbfgs"] = jaxmin.minimize(loss, start, args=(times, places), method="lbfgs", options=options)

# %%
# The exact solution is a quotient of two integrals (E. Hopf, 1950; J. D. Cole, 1951), here by the rule of Gauss and
# Hermite.

nodes, weights = np.polynomial.hermite.hermgauss(100)


def exact(t, x):
    y = x - jnp.sqrt(4 * viscosity * t) * nodes
    e = weights * jnp.exp(-jnp.cos(jnp.pi * y) / (2 * np.pi * viscosity))
    return -jnp.sum(e * jnp.sin(jnp.pi * y)) / jnp.sum(e)


on_grid = lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None))(jnp.linspace(0, 1, 101), jnp.linspace(-1, 1, 201))
truth = on_grid(exact)
errors = {}
for method, res in runs.items():
    errors[method] = on_grid(lambda t, x, p=res.x: u(p, t, x)) - truth
    relative = jnp.linalg.norm(errors[method]) / jnp.linalg.norm(truth)
    print(f"{method:5} loss {float(res.fun):.1e} after {int(res.nfev)} evaluations, relative error of u {relative:.1e}")
    print("     ", res.message)

# %%

figure, axes = plt.subplots(2, 2, figsize=(11, 6), layout="constrained")
maps = {"u, by bfgs": (truth + errors["bfgs"], "RdBu"), "its error": (abs(errors["bfgs"]), "viridis")}
for axis, (title, (values, colours)) in zip(axes[0], maps.items(), strict=True):
    picture = axis.imshow(values.T, origin="lower", extent=(0, 1, -1, 1), aspect="auto", cmap=colours)
    figure.colorbar(picture, ax=axis)
    axis.set(xlabel="time", ylabel="place", title=title)
place = np.linspace(-1, 1, 201)
for k, colour in ((0, "tab:blue"), (33, "tab:green"), (66, "tab:orange"), (100, "tab:red")):
    axes[1, 0].plot(place, truth[k] + errors["bfgs"][k], color=colour, label=f"time {k / 100:.2f}")
    axes[1, 0].plot(place[::8], truth[k, ::8], ".", color=colour)
axes[1, 0].set(xlabel="place", ylabel="u", title="dots: exact")
axes[1, 0].legend(fontsize=8)
for method, res in runs.items():
    axes[1, 1].loglog(res.history.nfev, res.history.fun, label=method)
axes[1, 1].set(xlabel="evaluations", ylabel="loss")
axes[1, 1].legend()
plt.show()
