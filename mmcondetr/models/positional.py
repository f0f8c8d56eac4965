"""Sinusoidal embedding of points: p_s in the paper.

The memory's positions are embedded by mmdet's ``SinePositionalEncoding``. This module embeds reference points in the
same way, so that the two can be compared by their inner product.
"""

import math

import torch
from torch import Tensor


def sine_embed(coordinates: Tensor, embed_dims: int, temperature: float = 10000.0) -> Tensor:
    """Embed coordinates as sines and cosines of embed_dims / 4 frequencies each.

    Args:
        coordinates: (..., 2) points (x, y), or (..., 4) boxes (cx, cy, w, h), in fractions of the image.
        embed_dims: D; each coordinate takes D / 2 channels, alternating sine and cosine.
        temperature: the longest wavelength, in image sizes.

    Returns:
        (..., D) for points, y before x; (..., 2 D) for boxes, in the order y, x, w, h.

    Raises:
        ValueError: embed_dims is not a multiple of 4, or there are neither 2 nor 4 coordinates.

    Paper: §3.3, eq. 5 (p_s = sinusoidal(sigmoid(s))).
    """
    if embed_dims % 4:
        raise ValueError(f'sine_embed: embed_dims must be a multiple of 4, got {embed_dims}')
    if coordinates.shape[-1] not in (2, 4):
        raise ValueError(
            f'sine_embed: coordinates must end in 2 (x, y) or 4 (cx, cy, w, h), got shape {tuple(coordinates.shape)}'
        )
    half = embed_dims // 2
    exponent = torch.arange(half, dtype=torch.float32, device=coordinates.device).div(2, rounding_mode='floor')
    wavelengths = temperature ** (2 * exponent / half)  # (D/2,)
    order = [1, 0] if coordinates.shape[-1] == 2 else [1, 0, 2, 3]
    angles = coordinates.float()[..., order, None] * (2 * math.pi) / wavelengths  # (..., 2 or 4, D/2)
    waves = torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1)  # (..., 2 or 4, D/4, 2)
    return waves.flatten(-3)
