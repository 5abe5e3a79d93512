"""Numerics: data, networks, losses, optimizers and the training loop over K members. May import config and files."""
