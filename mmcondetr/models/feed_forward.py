"""The feed-forward network that every encoder and decoder layer ends in."""

from typing import Optional

from torch import Tensor, nn

from mmcondetr.registry import MODELS


class FeedForward(nn.Module):
    """FC + activation + dropout + FC on every token: (..., D) -> (..., D), without the residual.

    Args:
        embed_dims: D.
        feedforward_channels: width of the hidden layer.
        dropout: of the hidden layer.
        activation: config of the activation, ReLU where None.
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, dropout: float,
                 activation: Optional[dict] = None) -> None:
        super().__init__()
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.activation = MODELS.build(activation or dict(type='mmengine.ReLU', inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token: (..., D) -> (..., D)."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def xavier_linear(module: nn.Module) -> None:
    """Xavier-initialise the weight of every linear layer below ``module``, as DETR does for its transformer."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
