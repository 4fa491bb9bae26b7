"""
Hares and lynxes
================

The pelts of hares and lynxes that the Hudson's Bay Company bought from 1900 to 1920, in thousands (after E. P. Odum,
Fundamentals of Ecology, 1953). Where hares are many, lynxes multiply; then the hares become few, and the lynxes starve.
The equations of Lotka and Volterra say this with four rates. They are fitted, with the two sizes in 1900, and with
error bars and bands. A fit of a differential equation is a fit like any other if the integrator is written in JAX.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

hares = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1]  # 1900 to 1910
hares += [40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]  # 1911 to 1920
lynxes = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4]
lynxes += [8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]
log_pelts = np.log(np.array([hares, lynxes]).T)

# %%
# The integrator: the rule of Runge and Kutta, 20 steps a year. Sizes and rates are positive, so their logarithms are
# integrated and fitted: the errors of the pelts are then relative errors.

names = "births of hares", "hares eaten", "births of lynxes", "deaths of lynxes", "hares in 1900", "lynxes in 1900"
guess = jnp.log(jnp.array([0.5, 0.03, 0.03, 0.5, 30.0, 4.0]))
a_year = 20


def growth(log_sizes, p):
    """The relative growth of hares and of lynxes."""
    born, eaten, fed, die = jnp.exp(p[:4])
    hares, lynxes = jnp.exp(log_sizes)
    return jnp.stack([born - eaten * lynxes, fed * hares - die])


def curves(p, years):
    """The logarithms of both sizes, 20 times a year."""
    h = 1 / a_year

    def step(y, _):
        k1 = growth(y, p)
        k2 = growth(y + h / 2 * k1, p)
        k3 = growth(y + h / 2 * k2, p)
        k4 = growth(y + h * k3, p)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y

    return jax.lax.scan(step, p[4:], length=a_year * years)[1]


def misfit(p, log_pelts):
    return curves(p, 21)[::a_year] - log_pelts


res = jaxmin.minimize(misfit, guess, args=(log_pelts,), method="levenberg_marquardt")
noise = np.sqrt(2 * res.fun / (42 - 6))
print(res.message)
print(f"{int(res.nfev)} evaluations; a measurement differs from the curve by {noise:.0%}")
for name, value, error in zip(names, np.exp(res.x), res.standard_errors(), strict=True):
    print(f"{name:16} {value:8.4f} ± {error:.1%}")

# %%
# The band of a curve follows from the covariance of the parameters and the derivative of the curve with respect to
# them. Dark: two standard errors of the curve. Light: where a measurement is expected. Both go on for ten years after
# the data.

middle, slopes = curves(res.x, 31), jax.jacfwd(curves)(res.x, 31)
spread = jnp.sqrt(jnp.einsum("tki,ij,tkj->tk", slopes, res.covariance(), slopes))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", width_ratios=(5, 3))
year, fine = np.arange(1900, 1921), 1900 + np.arange(31 * a_year) / a_year
for k, (name, colour) in enumerate({"hares": "tab:blue", "lynxes": "tab:orange"}.items()):
    left.plot(year, np.exp(log_pelts[:, k]), "o", ms=4, color=colour)
    left.plot(fine, np.exp(middle[:, k]), lw=1.2, color=colour, label=name)
    for width, alpha in ((spread[:, k], 0.4), (np.hypot(spread[:, k], noise), 0.15)):
        low, high = np.exp(middle[:, k] - 2 * width), np.exp(middle[:, k] + 2 * width)
        left.fill_between(fine, low, high, color=colour, alpha=alpha, lw=0)
left.axvline(1920, color="0.5", lw=0.8, ls=":")
left.set(ylabel="thousands of pelts", yscale="log", xlim=(1900, 1930))
left.legend(loc="upper left", ncols=2)
right.plot(*np.exp(middle).T, lw=1.2, color="tab:green")
right.plot(*np.exp(log_pelts).T, "o-", ms=4, lw=0.6, color="0.5")
right.set(xlabel="thousands of hares", ylabel="thousands of lynxes")
plt.show()
