"""Random choices that depend on a seed and a name alone, neither on order nor on processes."""

import hashlib

import numpy as np


def rng_of(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each name."""
    code = hashlib.blake2b("/".join(names).encode(), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(code, "little")])
