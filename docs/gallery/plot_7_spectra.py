"""
Ten thousand spectra
====================

A microscope takes a spectrum at each of 100 × 100 spots of a sample. Each has three lines on a sloping background, and
noise. The middle line shifts with the strain of the sample, and the right one is as high as there is of a second
substance. A fit of eleven parameters within bounds turns each spectrum into these numbers, with error bars. All 10,000
fits are one call. The spectra are simulated, so the error bars can be checked: the truth is known.
"""

import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

rng = np.random.default_rng(0)
side, channels, noise = 100, 150, 0.08
t = np.linspace(0, 10, channels, dtype=np.float32)
across, up = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))


def spectrum(p, t):
    """Parameters are a dictionary; those of the lines are arrays of three."""
    line = lambda height, centre, width: height * jnp.exp(-0.5 * ((t - centre) / width) ** 2)
    lines = jax.vmap(line)(p["height"], p["centre"], p["width"])
    return p["level"] + p["slope"] * (t - 5) + jnp.sum(lines, axis=0)


# %%
# The sample is strained around its middle, and has two grains of the second substance.

radius2 = across**2 + up**2 + 0.05
strain = 0.02 * (across**2 - up**2) / radius2**2
grains = np.exp(-8 * ((across - 0.5) ** 2 + (up - 0.4) ** 2)) + np.exp(-20 * ((across + 0.6) ** 2 + (up + 0.5) ** 2))
plain = np.ones_like(strain)
truth = {
    "height": np.stack([1 + 0.3 * across, 1.5 * plain, 0.3 + grains], axis=-1),
    "centre": np.stack([2.5 * plain, 5 + strain, 7.5 - 0.1 * up], axis=-1),
    "width": np.stack([0.5 + 0.1 * up, 0.35 * plain, 0.6 * plain], axis=-1),
    "level": 0.5 + 0.2 * up,
    "slope": 0.03 * across,
}
truth = {name: value.reshape(side * side, *value.shape[2:]) for name, value in truth.items()}
exact = np.asarray(jax.vmap(spectrum, (0, None))(truth, t))
measured = (exact + noise * rng.normal(size=exact.shape)).astype(np.float32)

# %%
# ``minimize_many`` keeps some hundred fits in work, and a fit that has ended makes room for the next. All begin at the
# same parameters. With ``hess_inv=True`` the result has what the error bars are made of.

three = jnp.ones(3)
start = {"height": three, "centre": jnp.array([2.5, 5.0, 7.5]), "width": 0.5 * three, "level": 0.0, "slope": 0.0}
lower = {"height": 0 * three, "centre": jnp.array([1.5, 4.0, 6.5]), "width": 0.1 * three, "level": -9.0, "slope": -9.0}
upper = {"height": 9 * three, "centre": jnp.array([3.5, 6.0, 8.5]), "width": 2 * three, "level": 9.0, "slope": 9.0}


def misfit(p, y):
    return spectrum(p, t) - y


def fit_all():
    return jaxmin.minimize_many(
        misfit, start, (measured,), in_axes=(None, 0), method="levenberg_marquardt",
        bounds=jaxmin.Bounds(lower, upper), hess_inv=True,
    )  # fmt: skip


jax.block_until_ready(fit_all())
begin = time.process_time()
res = jax.block_until_ready(fit_all())
spent = time.process_time() - begin
errors, covariance = res.standard_errors(), res.covariance()
print(f"{np.mean(res.success):.2%} successes, {np.mean(res.nfev):.1f} evaluations a fit")
print(f"{1e6 * spent / side**2:.0f} microseconds of processor time a fit, after the call that compiled")

# %%
# Are the error bars right? In units of its error bar the error of each parameter, fitted minus true, should be normally
# distributed with deviation 1. The noise is not known to the fit, which takes it from the residuals. The error
# bars are those of the linearized model: a little too small for the width of the right line, where it is faint.

pulls = {name: np.asarray((res.x[name] - truth[name]) / errors[name]) for name in truth}
for name, pull in pulls.items():
    print(f"{name:7} mean {pull.mean():6.3f}   deviation {pull.std():.3f}   within 2: {np.mean(np.abs(pull) < 2):.2%}")
print(f"expected{'':27}within 2: 95.45%")

# %%
# The band of a fitted curve follows from the covariance of its parameters and the derivative of the curve.


def bands(x, C):
    """Two standard errors of a fitted curve; C is a dictionary of dictionaries."""
    slopes = jax.jacobian(spectrum)(x, t)
    flat = {name: slope.reshape(channels, -1) for name, slope in slopes.items()}
    block = lambda i, j: C[i][j].reshape(flat[i].shape[1], flat[j].shape[1])
    variance = sum(jnp.sum((flat[i] @ block(i, j)) * flat[j], axis=1) for i in flat for j in flat)
    return 2 * jnp.sqrt(variance)


some = np.array([1515, 5060, 7075])
of_some = lambda tree: jax.tree.map(lambda u: u[some], tree)
curves = np.asarray(jax.vmap(spectrum, (0, None))(of_some(res.x), t))
widths = np.asarray(jax.vmap(bands)(of_some(res.x), of_some(covariance)))

figure = plt.figure(figsize=(11, 7), layout="constrained")
grid = figure.add_gridspec(2, 6)
for k, i in enumerate(some):
    axis = figure.add_subplot(grid[0, 2 * k : 2 * k + 2])
    axis.plot(t, measured[i], ".", ms=3, color="0.6", label="measured")
    axis.fill_between(t, curves[k] - widths[k], curves[k] + widths[k], color="tab:red", alpha=0.35, label="band")
    axis.plot(t, curves[k], lw=1, color="tab:red", label="fit")
    axis.plot(t, exact[i], ":", lw=1, color="tab:blue", label="truth")
    axis.set(title=f"spot {i % side}, {i // side}", xlabel="wavelength", ylim=(-0.2, 3.2))
    axis.legend(fontsize=8, loc="upper right")

axis, z = figure.add_subplot(grid[1, :2]), np.linspace(-5, 5, 200)
for name, pull in pulls.items():
    axis.hist(pull.ravel(), bins=80, range=(-5, 5), density=True, histtype="step", label=name)
axis.plot(z, np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi), color="0.5", lw=1, label="normal")
axis.set(xlabel="(fitted - true) / error bar", yticks=[], xlim=(-5, 5))
axis.legend(fontsize=8)
maps = {"shift of the middle line": res.x["centre"][:, 1] - 5, "height of the right line": res.x["height"][:, 2]}
for k, (title, values) in enumerate(maps.items()):
    axis = figure.add_subplot(grid[1, 2 * k + 2 : 2 * k + 4])
    picture = axis.imshow(np.asarray(values).reshape(side, side), origin="lower", cmap=("RdBu", "viridis")[k])
    figure.colorbar(picture, ax=axis, shrink=0.8)
    axis.plot(some % side, some // side, "k+")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()
