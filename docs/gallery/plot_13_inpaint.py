"""
Four of five pixels are missing
===============================

One pixel in five of a colour photograph is left, with noise. What was the image? There are 205,440 unknowns, all
between 0 and 1. The penalty is the total variation, with all three colours in one root, so that edges are at the same
place in each (X. Bresson and T. F. Chan, Inverse Problems and Imaging 2 (2008), 455-484), made smooth at 0. A bar shows
the solve while it runs. Everything is in float32.

The photograph ships with scikit-learn: a dahlia, by Flickr user vultilion (CC BY 2.0).
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

import jaxmin

photograph = sklearn.datasets.load_sample_image("flower.jpg")[::2, ::2] / 255
truth = jnp.asarray(photograph, jnp.float32)
known = jax.random.bernoulli(jax.random.key(0), 0.2, truth.shape[:2])[:, :, None]
noise = 0.02 * jax.random.normal(jax.random.key(1), truth.shape, jnp.float32)
measured = jnp.where(known, jnp.clip(truth + noise, 0, 1), 0.5)  # the start: gray where nothing is known


def objective(image, weight):
    down = jnp.diff(image, axis=0, append=image[-1:])
    right = jnp.diff(image, axis=1, append=image[:, -1:])
    variation = jnp.sum(jnp.sqrt(jnp.sum(down**2 + right**2, axis=2) + 0.01**2))
    return 0.5 * jnp.sum(jnp.where(known, image - measured, 0) ** 2) + weight * variation


# %%
# ``progress=True`` shows a bar with f, the gradient and the evaluations: a widget in a notebook, a line in a terminal.
# The history records the same figures in the compiled loop. The callback, on the host, compares each iterate with
# the truth, which the solve does not know.


def signal_to_noise(image):
    """Peak signal-to-noise ratio in decibels."""
    return -10 * np.log10(np.mean((np.asarray(image) - photograph) ** 2))


quality = [signal_to_noise(measured)]
res = jaxmin.minimize(
    objective,
    measured,
    args=(0.005,),
    bounds=jaxmin.Bounds(0.0, 1.0),
    options={"gtol": 5e-4, "maxiter": 500, "history": True},
    callback=lambda x: quality.append(signal_to_noise(x)),
    progress=True,
)
print(res.message)
print(f"{int(res.nit)} iterations, {int(res.nfev)} evaluations")
print(f"peak signal to noise: {quality[0]:.2f} dB at the start, {quality[-1]:.2f} dB restored")

# %%

figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
pictures = {"one pixel in five": measured, "restored": res.x, "truth": truth}
for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
    axis.imshow(np.clip(picture, 0, 1))
    axis.set_title(title, fontsize=11)
    axis.set_axis_off()
left = axes[1, 1]
left.semilogy(res.history.gnorm[: int(res.nit) + 1], color="tab:blue")
left.set_xlabel("iteration")
left.set_ylabel("largest component of the gradient", color="tab:blue")
right = left.twinx()
right.plot(quality, color="tab:orange")
right.set_ylabel("peak signal to noise, dB", color="tab:orange")
plt.show()
