"""The mean image and the principal components of colour of a training set (sections 2 and 4.1)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from repro.threads import cores

CHUNK_PIXELS = 2**20  # pixels turned into float64 at a time


@dataclass(frozen=True)
class Statistics:
    """Statistics on the 0-255 scale: mean image (S, S, 3) float32; of RGB: deviations (3,), vectors (3, 3), std (3,).

    The deviations are square roots of the covariance's eigenvalues, largest first; vectors are columns.
    """

    mean: np.ndarray
    pca_deviations: np.ndarray
    pca_vectors: np.ndarray
    channel_std: np.ndarray


def measure(images: Any) -> Statistics:
    """Statistics of images (N, S, S, 3) uint8, in one pass; the sums are exact, so no order of adding matters."""
    count, size = images.shape[:2]
    step = max(1, CHUNK_PIXELS // size**2)
    image_sum = np.zeros(images.shape[1:], np.int64)
    products = np.zeros((3, 3), np.int64)
    with ThreadPoolExecutor(cores()) as pool:  # decoding, where they are JPEG files
        for part_sum, part_products in pool.map(partial(_sums, images, step), range(0, count, step)):
            image_sum += part_sum
            products += part_products
    covariance = _covariance(image_sum, products, count)
    deviations, vectors = principal_components(covariance)
    mean = (image_sum / count).astype(np.float32)
    return Statistics(mean, deviations, vectors, np.sqrt(np.diagonal(covariance)))


def _sums(images: Any, step: int, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Adds up `step` images: their sum (S, S, 3), and that of the products of two colours (3, 3)."""
    chunk = images[start : start + step]
    pixels = chunk.reshape(-1, 3).astype(np.float64)
    products = (pixels.T @ pixels).astype(np.int64)  # whole numbers below 2^53
    return chunk.sum(axis=0, dtype=np.uint32), products


def principal_components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DecodedImage roots of the eigenvalues (3,), largest first, and eigenvectors (3, 3) as columns.

    An eigenvector's sign is arbitrary: its largest entry is made positive.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return np.sqrt(np.clip(values, 0, None)), vectors * np.sign(largest)


def _covariance(image_sum: np.ndarray, products: np.ndarray, images: int) -> np.ndarray:
    pixels = images * image_sum.shape[0] * image_sum.shape[1]
    mean = image_sum.sum(axis=(0, 1)) / pixels
    covariance: np.ndarray = products / pixels - np.outer(mean, mean)
    return covariance
