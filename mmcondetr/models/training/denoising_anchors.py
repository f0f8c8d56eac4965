"""DN-DETR: denoising for DAB-DETR, whose queries are anchor boxes (Li et al., CVPR 2022, arXiv 2203.01305)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmcondetr.models.dab import LabelledAnchorBoxes
from mmcondetr.models.training.denoising import Denoising
from mmcondetr.models.training.noise import inverse_sigmoid
from mmcondetr.registry import MODELS


@MODELS.register_module()
class DenoisingQueries(Denoising):
    """Denoising for DAB-DETR with LabelledAnchorBoxes: a noised box is an anchor, its class the content.

    Paper: arXiv 2203.01305, §3.3-3.5, and its authors' code.
    """

    reference_points = LabelledAnchorBoxes

    def embed_with(self, embed_dims: int, reference_point: LabelledAnchorBoxes) -> None:
        """The class embeddings; that of 'unknown', which inference needs, is in the reference point module."""
        self.unlabelled = reference_point.unlabelled.__call__  # the parameter remains registered in the decoder
        self.label_embedding = nn.Embedding(self.num_classes, embed_dims - 1)

    def embed(self, labels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, None]:
        """Anchors, and [class embedding; 1]."""
        return inverse_sigmoid(boxes), F.pad(self.label_embedding(labels), (0, 1), value=1.0), None

    def matching_content(self, object_query: Tensor) -> Tensor:
        """[embedding of 'unknown'; 0]."""
        return self.unlabelled().expand(*object_query.shape[:2], -1)
