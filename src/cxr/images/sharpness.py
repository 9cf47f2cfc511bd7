"""Two figures of an image that depend on device, export and resizing more than on the patient."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def measure_sharpness(grey: NDArray[np.uint8]) -> float:
    """Compute the variance of the Laplacian: high for sharp or noisy images, low for blurred ones.

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        At least 0, in squared grey levels.
    """
    # 16 bits hold every value, because the kernel's weights sum to 8 at most. A float image would be twice as large.
    laplacian = cv2.Laplacian(grey, cv2.CV_16S)
    mean_square = cv2.norm(laplacian, cv2.NORM_L2SQR) / grey.size
    return float(mean_square - cv2.mean(laplacian)[0] ** 2)


def measure_gradient_ratio(grey: NDArray[np.uint8]) -> float:
    """Divide the mean difference of horizontal neighbours by that of vertical ones.

    An image that was squashed to a square shows its former aspect ratio here.

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        Above 1 if the image changes faster from left to right; NaN if no vertical neighbours differ.
    """
    across = cv2.absdiff(grey[:, 1:], grey[:, :-1]) if grey.shape[1] > 1 else np.zeros_like(grey)
    down = cv2.absdiff(grey[1:], grey[:-1]) if grey.shape[0] > 1 else np.zeros_like(grey)
    vertical = cv2.mean(down)[0]
    return float(cv2.mean(across)[0] / vertical) if vertical else float("nan")
