"""The conditional spatial query p_q: where a query attends, conditioned on the decoder embedding f (§3.3).

    p_q = T p_s,    p_s = sinusoidal(sigmoid(s)),    T = FFN(f)                            (eq. 4-6)

:class:`ConditionalSpatialQueryHead` is the paper's CSQ, with one FFN shared by all decoder layers. The ablations' other
sources of p_q (Table 3) are classes with the same ``forward``; other forms of T (Figure 5) are the ``*Transform``
classes. All but the defaults are in ablations/.

=================================  ======  ==============   ====================  ==========  =====================
spatial query                      paper   p_q              transform             paper       values per query
=================================  ======  ==============   ====================  ==========  =====================
ConditionalSpatialQueryHead        CSQ     T(f) p_s         DiagonalTransform     diagonal    D
PositionSpatialQuery               CSQ-P   p_s              IdentityTransform     identity    0
TransformSpatialQuery              CSQ-T   lambda(f)        SingleTransform       single      1
ContentSpatialQuery                CSQ-C   f                BlockTransform        block       D * D / H
SelfAttentionSpatialQueryHead      CSQ-I   T(c_q) p_s       FullTransform         full        D * D
=================================  ======  ==============   ====================  ==========  =====================

In the first decoder layer f is still zero, so p_q = p_s there for every variant (§3.5, implemented in the decoder's
loop).
"""

from __future__ import annotations

from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.registry import MODELS


@MODELS.register_module()
class DiagonalTransform(nn.Module):
    """T = diag(lambda): p_q = lambda * p_s, elementwise. The default.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §3.3, eq. 6.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_values = embed_dims

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Transform p_s (B, N, D) by values (B, N, D) -> (B, N, D)."""
        return values * p_s


@MODELS.register_module()
class ConditionalSpatialQueryHead(nn.Module):
    """CSQ: p_q = T p_s with T = FFN(f), FFN = FC + ReLU + FC, shared by all decoder layers.

    Args:
        embed_dims: D.
        num_heads: H; used by the block transform only.
        transform: config of T; diagonal if None.

    Paper: §3.3, eq. 4-6.
    """

    def __init__(self, embed_dims: int, num_heads: int, transform: dict | None = None) -> None:
        super().__init__()
        transform = transform or dict(type='mmcondetr.DiagonalTransform')
        self.transform = MODELS.build(dict(transform, embed_dims=embed_dims, num_heads=num_heads))
        num_values = self.transform.num_values
        self.predictor = MLP(embed_dims, embed_dims, num_values, 2) if num_values else nn.Identity()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor) -> Tensor:
        """The spatial query of a decoder layer other than the first.

        Args:
            f: (B, N, D), the decoder embedding before this layer.
            c_q: (B, N, D), this layer's self-attention output.
            p_s: (B or 1, N, D), the reference points' embedding.

        Returns:
            (B, N, D), or (1, N, D) if it is p_s itself.
        """
        return self.transform(self.predictor(self.source(f, c_q)), p_s)

    def source(self, f: Tensor, c_q: Tensor) -> Tensor:
        """What T is predicted from: the decoder embedding."""
        return f
