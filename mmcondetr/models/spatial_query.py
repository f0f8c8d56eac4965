"""The conditional spatial query p_q: where a query looks, conditioned on what it has found so far (§3.3).

    p_q = T p_s,    p_s = sinusoidal(sigmoid(s)),    T = FFN(f)                            (eq. 4-6)

:class:`ConditionalSpatialQueryHead` is the paper's CSQ, with one FFN shared by all decoder layers. Its relatives are
the ablations: other sources of p_q (Table 3) are classes with the same ``forward``, other forms of T (Figure 5) are
the ``*Transform`` classes.

=================================  ======  ==============   ====================  ==========  =====================
spatial query                      paper   p_q              transform             paper       values per query
=================================  ======  ==============   ====================  ==========  =====================
ConditionalSpatialQueryHead        CSQ     T(f) p_s         DiagonalTransform     diagonal    D
PositionSpatialQuery               CSQ-P   p_s              IdentityTransform     identity    0
TransformSpatialQuery              CSQ-T   lambda(f)        SingleTransform       single      1
ContentSpatialQuery                CSQ-C   f                BlockTransform        block       D * D / H
SelfAttentionSpatialQueryHead      CSQ-I   T(c_q) p_s       FullTransform         full        D * D
=================================  ======  ==============   ====================  ==========  =====================

In the first decoder layer f is still zero and says nothing: every variant gives p_q = p_s there (§3.5).
"""

from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.models.attention import check_heads
from mmcondetr.registry import MODELS


@MODELS.register_module()
class DiagonalTransform(nn.Module):
    """T = diag(lambda): p_q = lambda * p_s, channel by channel. The default.

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
class IdentityTransform(nn.Module):
    """T = I: p_q = p_s; nothing is predicted.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_values = 0

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """p_s (B, N, D), as it is; values are not looked at."""
        return p_s


@MODELS.register_module()
class SingleTransform(nn.Module):
    """T = lambda I: one number scales p_s.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_values = 1

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Transform p_s (B, N, D) by values (B, N, 1) -> (B, N, D)."""
        return values * p_s


@MODELS.register_module()
class BlockTransform(nn.Module):
    """T is block-diagonal, one (D/H, D/H) block a head.

    Args:
        embed_dims: D.
        num_heads: H.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.num_heads = num_heads
        self.head_dims = embed_dims // num_heads
        self.num_values = num_heads * self.head_dims**2

    def forward(self, values: Tensor, p_s: Tensor) -> Tensor:
        """Transform p_s (B, N, D) by values (B, N, H * (D/H)^2), blocks row by row -> (B, N, D)."""
        blocks = values.unflatten(-1, (self.num_heads, self.head_dims, self.head_dims))
        heads = p_s.unflatten(-1, (self.num_heads, self.head_dims, 1))  # (B, N, H, D/H, 1)
        return (blocks @ heads).flatten(-3)


@MODELS.register_module()
class FullTransform(BlockTransform):
    """T is a full (D, D) matrix: one block for all channels.

    Args:
        embed_dims: D.
        num_heads: H; a full matrix does not look at heads.

    Paper: §4.3, Figure 5.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__(embed_dims, num_heads=1)


@MODELS.register_module()
class ConditionalSpatialQueryHead(nn.Module):
    """CSQ: p_q = T p_s with T = FFN(f), FFN = FC + ReLU + FC, shared by all decoder layers.

    First layer: p_q = p_s.

    Args:
        embed_dims: D.
        num_heads: H; only the block transform looks at it.
        transform: config of T, diagonal where None.

    Paper: §3.3, eq. 4-6; §3.5 for the first layer.
    """

    def __init__(self, embed_dims: int, num_heads: int, transform: dict | None = None) -> None:
        super().__init__()
        transform = transform or dict(type='mmcondetr.DiagonalTransform')
        self.transform = MODELS.build(dict(transform, embed_dims=embed_dims, num_heads=num_heads))
        num_values = self.transform.num_values
        self.predictor = MLP(embed_dims, embed_dims, num_values, 2) if num_values else nn.Identity()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor, layer: int) -> Tensor:
        """The spatial query of one decoder layer.

        Args:
            f: (B, N, D), the decoder embedding before this layer.
            c_q: (B, N, D), this layer's self-attention output.
            p_s: (B or 1, N, D), the reference points' embedding.
            layer: index of the layer; 0 is the first.

        Returns:
            (B, N, D), or (1, N, D) where it is p_s itself.
        """
        if layer == 0:
            return p_s
        return self.transform(self.predictor(self.source(f, c_q)), p_s)

    def source(self, f: Tensor, c_q: Tensor) -> Tensor:
        """What T is predicted from: the decoder embedding."""
        return f


@MODELS.register_module()
class SelfAttentionSpatialQueryHead(ConditionalSpatialQueryHead):
    """CSQ-I: p_q = T p_s with T predicted from c_q, the self-attention's output. First layer: p_q = p_s.

    Args:
        embed_dims: D.
        num_heads: H.
        transform: config of T, diagonal where None.

    Paper: §4.3, Table 3 (40.2 AP, the paper's).
    """

    def source(self, f: Tensor, c_q: Tensor) -> Tensor:
        """What T is predicted from: the self-attention's output."""
        return c_q


@MODELS.register_module()
class TransformSpatialQuery(nn.Module):
    """CSQ-T: p_q = lambda(f), the diagonal transform's values themselves, without p_s. First layer: p_q = p_s.

    Args:
        embed_dims: D.
        num_heads: H; not looked at.

    Paper: §4.3, Table 3 (37.6 AP, the paper's).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.predictor = MLP(embed_dims, embed_dims, embed_dims, 2)

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor, layer: int) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return p_s if layer == 0 else self.predictor(f)


@MODELS.register_module()
class PositionSpatialQuery(nn.Module):
    """CSQ-P: p_q = p_s in every layer: the position without the condition.

    Args:
        embed_dims: D.
        num_heads: H; not looked at.

    Paper: §4.3, Table 3 (37.8 AP, the paper's).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor, layer: int) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return p_s


@MODELS.register_module()
class ContentSpatialQuery(nn.Module):
    """CSQ-C: p_q = f, the decoder embedding, without p_s. First layer: p_q = p_s, for f is zero there.

    Args:
        embed_dims: D.
        num_heads: H; not looked at.

    Paper: §4.3, Table 3 (37.1 AP, the paper's).
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()

    def forward(self, f: Tensor, c_q: Tensor, p_s: Tensor, layer: int) -> Tensor:
        """See :meth:`ConditionalSpatialQueryHead.forward`."""
        return p_s if layer == 0 else f
