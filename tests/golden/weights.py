"""Weights out of nothing: a counter-based generator, so that golden checkpoints need not be committed.

Element i of a tensor is offset + scale * u, where u comes from the 24 top bits of the i-th number of
SplitMix64 (Steele, Lea and Flood, 2014) started at the FNV-1a hash of the tensor's name. u is a multiple of
2^-23 in [-1, 1); scale and offset are f32. With offset 0 the product is the only rounding; with another
offset scale is a power of two and the sum is. So weights.h gives the same bits everywhere, whether or not
its compiler fuses the two.
"""
import numpy as np


def fnv1a64(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def unit(name: str, count: int) -> np.ndarray:
    """The first `count` values u of the tensor `name`, f32 in [-1, 1)."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(fnv1a64(name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) * np.float32(2.0**-23)


def tensor(name: str, shape: tuple[int, ...], scale: float, offset: float) -> np.ndarray:
    """The whole tensor, f32. `scale` and `offset` must be f32 values."""
    u = unit(name, int(np.prod(shape))).reshape(shape)
    return np.float32(offset) + np.float32(scale) * u
