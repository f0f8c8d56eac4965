"""The feed-forward network at the end of every encoder and decoder layer."""

from __future__ import annotations

from torch import Tensor, nn

from mmcondetr.layers.dropout import Dropout
from mmcondetr.layers.linear import Linear
from mmcondetr.registry import MODELS


class FeedForward(nn.Module):
    """FC + activation + dropout + FC on every token: (..., D) -> (..., D), without the residual connection.

    Args:
        embed_dims: D.
        feedforward_channels: width of the hidden layer.
        dropout: of the hidden layer.
        activation: config of the activation; ReLU if None.
    """

    def __init__(
        self, embed_dims: int, feedforward_channels: int, dropout: float, activation: dict | None = None
    ) -> None:
        super().__init__()
        self.linear1 = Linear(embed_dims, feedforward_channels)
        self.activation = MODELS.build(activation or dict(type='mmengine.ReLU', inplace=True))
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(feedforward_channels, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token: (..., D) -> (..., D)."""
        hidden = self.linear1(x)  # (..., feedforward_channels)
        if isinstance(self.activation, nn.ReLU):
            hidden = self.dropout.after_relu(hidden)
        else:
            hidden = self.dropout(self.activation(hidden))
        return self.linear2(hidden)


def xavier_linear(module: nn.Module) -> None:
    """Xavier-initialise the weight of every linear layer below ``module``, as DETR does for its transformer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
