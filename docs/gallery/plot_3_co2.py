"""
A Gaussian process on the air of Mauna Loa
==========================================

Carbon dioxide at Mauna Loa, 521 monthly means from 1958 to 2001: it rises, bends upwards, and breathes with the
seasons. A Gaussian process with three parts, one for each, and noise has nine hyperparameters. They are found by
maximizing the marginal likelihood (C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
2006, Section 5.4.3). JAX computes the gradient, through a Cholesky factorisation.
"""

import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

rows = np.loadtxt(pathlib.Path.cwd() / "co2.csv", delimiter=",", skiprows=3)
when, co2 = rows[:, 0] + (rows[:, 1] - 0.5) / 12, rows[:, 2]
# Every month is drawn. Up to 1992 every second month is fitted; the rest is predicted.
known = when < 1992
t, mean = jnp.asarray(when[known][::2]), co2[known].mean()
y = jnp.asarray(co2[known][::2] - mean)

# %%
# The kernel: a slow rise, a yearly wave whose shape drifts, and weather of a few months' length. All parameters are
# positive, so their logarithms are fitted, as a dictionary.

start = {
    "rise": {"size": 50.0, "years": 50.0},
    "season": {"size": 2.0, "decay": 100.0, "roughness": 1.0},
    "weather": {"size": 0.5, "years": 1.0, "shape": 1.0},
    "noise": {"size": 0.2},
}
start = jax.tree.map(jnp.log, start)


def kernel(p, t1, t2):
    d2 = (t1[:, None] - t2[None, :]) ** 2
    wave = jnp.sin(jnp.pi * (t1[:, None] - t2[None, :])) ** 2
    rise, season, weather = p["rise"], p["season"], p["weather"]
    return (
        rise["size"] ** 2 * jnp.exp(-0.5 * d2 / rise["years"] ** 2)
        + season["size"] ** 2 * jnp.exp(-0.5 * d2 / season["decay"] ** 2 - 2 * wave / season["roughness"] ** 2)
        + weather["size"] ** 2 * (1 + d2 / (2 * weather["shape"] * weather["years"] ** 2)) ** -weather["shape"]
    )


def factor(p):
    noise = p["noise"]["size"] ** 2 + 1e-6
    return jnp.linalg.cholesky(kernel(p, t, t) + noise * jnp.eye(t.size))


def surprise(log_p, y):
    """Minus the log marginal likelihood, per observation."""
    L = factor(jax.tree.map(jnp.exp, log_p))
    z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return (0.5 * z @ z + jnp.sum(jnp.log(jnp.diag(L))) + 0.5 * y.size * jnp.log(2 * jnp.pi)) / y.size


res = jaxmin.minimize(surprise, start, args=(y,), options={"gtol": 1e-5, "maxiter": 500})
p = jax.tree.map(jnp.exp, res.x)
print(res.message)
likelihood, before = -float(res.fun) * y.size, -float(surprise(start, y)) * y.size
print(f"{int(res.nfev)} evaluations; log likelihood {likelihood:.1f}, at the start {before:.1f}")
for part, values in p.items():
    print(f"{part:8}", {name: round(float(value), 3) for name, value in values.items()})

# %%
# The prediction: ten years that the fit has not seen.

ahead = jnp.asarray(np.arange(1985, 2002, 1 / 24))


@jax.jit
def predict(p, y, ahead):
    L, cross = factor(p), kernel(p, t, ahead)
    weights = jax.scipy.linalg.cho_solve((L, True), y)
    v = jax.scipy.linalg.solve_triangular(L, cross, lower=True)
    # The prior variance is the same at every time: the kernel at distance 0.
    prior = kernel(p, ahead[:1], ahead[:1])[0, 0]
    return cross.T @ weights, jnp.sqrt(prior - jnp.sum(v**2, axis=0))


middle, deviation = (np.asarray(part) for part in predict(p, y, ahead))
figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
axis.plot(when, co2, ".", ms=3, color="0.5", label="measured")
axis.plot(ahead, middle + mean, lw=1, color="tab:red", label="predicted from the years before 1992")
axis.fill_between(ahead, middle + mean - 2 * deviation, middle + mean + 2 * deviation, alpha=0.25, color="tab:red")
axis.axvline(1992, color="0.3", lw=0.8, ls=":")
axis.set(xlabel="year", ylabel="CO$_2$, parts per million", xlim=(1975, 2002), ylim=(325, 378))
axis.legend(loc="upper left")
plt.show()

solved = bool(res.success)
