"""About what a run costs, in products with a weight, before its data are read."""

from __future__ import annotations

import itertools

from trainer.config import Cnn, Config, CustomModel, Mlp

UNKNOWN = (64, 1_500)  # inputs and examples assumed, as of digits: only the data know the real ones
SIZES = {"mnist": (784, 60_000), "fashion_mnist": (784, 60_000), "kmnist": (784, 60_000), "cifar10": (3072, 50_000)}
SMALL = {"digits", "spirals", "clusters", "line", "point", "sklearn"}  # no larger than that
OUTPUTS = 64  # assumed
OWN_PRODUCTS = 50_000  # an example costs a network of the user's own, of which we know nothing: about a small cnn


def of_run(config: Config) -> float:
    """Return what all its steps cost."""
    if config.steps is not None:
        examples = config.steps * config.data.batch_size * config.accumulate
    else:
        examples = config.epochs * (config.data.train_size or SIZES.get(config.data.name, UNKNOWN)[1])
    return examples * of_example(config)


def of_example(config: Config) -> float:
    """Return about what an example costs a network, in products with a weight."""
    network = config.model
    inputs, _ = SIZES.get(config.data.name, UNKNOWN)
    if isinstance(network, CustomModel):
        return OWN_PRODUCTS
    if isinstance(network, Cnn):
        pixels, products, channels = inputs, 0, 1
        for width in network.widths:
            products += pixels * channels * width * network.kernel**2
            pixels, channels = pixels // (1 if network.pooling == "none" else 4), width
        return products
    if not isinstance(network, Mlp):
        return 1.0
    weights = sum(a * b for a, b in itertools.pairwise([inputs, *network.widths, OUTPUTS]))
    per_unit = 15 + 50 * network.batchnorm + 40 * (network.dropout > 0)  # activations are moved, not multiplied
    return weights + per_unit * sum(network.widths)


def of_step(config: Config) -> float:
    """Return about what a step costs."""
    return of_example(config) * config.data.batch_size * config.accumulate


def is_known(config: Config) -> bool:
    """Whether both network and data are such that nothing had to be assumed that may be far too small."""
    return not isinstance(config.model, CustomModel) and config.data.name in {*SIZES, *SMALL}
