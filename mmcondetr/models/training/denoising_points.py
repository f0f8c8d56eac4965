"""Denoising for Conditional DETR, whose queries are points: the noised centre is a query's reference point.

DN-DETR (arXiv 2203.01305) is made for anchor boxes. Conditional DETR's object query o_q is an embedding, from which the
reference point is predicted. A denoising query therefore gets its o_q from the noised box, and its point directly.
"""

from __future__ import annotations

from mmdet.models.layers import MLP
from torch import Tensor, nn

from mmcondetr.models.positional import sine_embed
from mmcondetr.models.reference import ReferencePoint
from mmcondetr.models.training.denoising import Denoising
from mmcondetr.models.training.noise import inverse_sigmoid
from mmcondetr.registry import MODELS


@MODELS.register_module()
class DenoisingPoints(Denoising):
    """Denoising for Conditional DETR with predicted reference points; ours, no paper's.

    o_q = FFN(sinusoidal(noised box)), with FC + ReLU + FC as in the reference point's; the content is an embedding of
    the noised class, where matching queries have zero.
    """

    reference_points = ReferencePoint

    def embed_with(self, embed_dims: int, reference_point: ReferencePoint) -> None:
        """The class embeddings, and the network that makes an object query of a box."""
        self.embed_dims = embed_dims
        self.label_embedding = nn.Embedding(self.num_classes, embed_dims)
        self.box_embedding = MLP(2 * embed_dims, embed_dims, embed_dims, 2)

    def embed(self, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Object queries (B P, T, D), contents (B P, T, D), and the noised centres as logits (B P, T, 2)."""
        object_query = self.box_embedding(sine_embed(boxes, self.embed_dims).to(boxes))
        return object_query, self.label_embedding(labels), inverse_sigmoid(boxes[..., :2])

    def matching_content(self, object_query: Tensor) -> Tensor:
        """Zero, as without denoising."""
        return object_query.new_zeros(object_query.shape)
