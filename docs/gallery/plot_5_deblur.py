"""
A blurred photograph made sharp
===============================

An inverse problem: a photograph was blurred and noise was added; find the image. There are 38,400 unknown pixels, all
between 0 and 1. A penalty on the total variation preserves sharp edges: the sum of the lengths of the image's
gradients (L. I. Rudin, S. Osher and E. Fatemi, Physica D 60 (1992), 259-268), made smooth at 0. Everything is in
float32.

The photograph ships with scikit-learn: a summer palace in Beijing, by Flickr user danielbuechele (CC BY 2.0).
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

import jaxmin

photograph = sklearn.datasets.load_sample_image("china.jpg")[60:380:2, 120:600:2].mean(axis=2) / 255
truth = jnp.asarray(photograph, jnp.float32)
rows, columns = truth.shape

# %%
# The blur is a product of Fourier transforms; the edges wrap around.

u = jnp.fft.fftfreq(rows).astype(jnp.float32)[:, None]
v = jnp.fft.rfftfreq(columns).astype(jnp.float32)[None, :]
transfer = jnp.exp(-2 * (jnp.pi * 1.5) ** 2 * (u**2 + v**2))  # a Gaussian of 1.5 pixels


def blur(image):
    return jnp.fft.irfft2(transfer * jnp.fft.rfft2(image), s=truth.shape)


noise = 0.01 * jax.random.normal(jax.random.key(0), truth.shape, jnp.float32)
blurred = blur(truth) + noise


def objective(image, blurred, weight):
    down = jnp.roll(image, -1, axis=0) - image
    right = jnp.roll(image, -1, axis=1) - image
    variation = jnp.sum(jnp.sqrt(down**2 + right**2 + 0.005**2))
    return 0.5 * jnp.sum((blur(image) - blurred) ** 2) + weight * variation


# %%
# x is the image itself, an array with two axes. The bounds are one pair for all pixels.

res = jaxmin.minimize(
    objective,
    jnp.clip(blurred, 0, 1),
    args=(blurred, 0.001),
    bounds=jaxmin.Bounds(0.0, 1.0),
    options={"gtol": 1e-3, "maxiter": 500},
)
print(res.message)


def signal_to_noise(image):
    """Peak signal-to-noise ratio in decibels."""
    return float(-10 * jnp.log10(jnp.mean((image - truth) ** 2)))


at_bounds = int(jnp.sum(res.active_mask != 0))
print(f"{int(res.nit)} iterations, {int(res.nfev)} evaluations; {at_bounds} pixels are held at 0 or 1")
print(f"peak signal to noise: blurred {signal_to_noise(blurred):.2f} dB, restored {signal_to_noise(res.x):.2f} dB")

# %%

figure, axes = plt.subplots(1, 3, figsize=(11, 2.9), layout="constrained")
for axis, image, title in zip(axes, (blurred, res.x, truth), ("blurred, with noise", "restored", "truth"), strict=True):
    axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=11)
    axis.set_axis_off()
plt.show()
