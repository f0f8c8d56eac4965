"""The detector: backbone -> neck -> encoder -> decoder -> head, trained and tested by mmdet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor

from mmcondetr.checkpoints.adapting import accept_any_checkpoint
from mmcondetr.errors import NonFiniteLossError, UserError
from mmcondetr.layers.precision import image_name
from mmcondetr.models.attention import Memory
from mmcondetr.models.decoder import Queries
from mmcondetr.models.masks import masked_detector
from mmcondetr.models.masks.mask_checks import check_stages
from mmcondetr.models.masks.mask_inputs import MaskInputs
from mmcondetr.models.training.queries import build_training_queries
from mmcondetr.registry import MODELS


@MODELS.register_module()
class ConditionalDETR(BaseDetector):
    """Conditional DETR: DETR with cross-attention guided by a conditional spatial query.

    Args:
        backbone: config; only its last feature map is used.
        neck: config; outputs one feature map of D channels.
        encoder: config of the transformer encoder.
        decoder: config of the conditional decoder.
        bbox_head: config of the prediction head.
        positional_encoding: config of the memory's positional encoding; D / 2 features per coordinate.
        num_queries: N.
        training_queries: config of extra decoder queries used in training only (models/training); None for none.
        train_cfg: passed to the head.
        test_cfg: passed to the head.
        data_preprocessor: config of normalisation and padding.
        mask_head: config of the mask head, which also needs the backbone's finer feature maps; None for boxes only.
        init_cfg: mmengine's initialisation.

    Paper: §3.1.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        encoder: dict,
        decoder: dict,
        bbox_head: dict,
        positional_encoding: dict,
        num_queries: int = 300,
        training_queries: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        mask_head: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        check_stages(backbone)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.positional_encoding = MODELS.build(positional_encoding)
        self.encoder = MODELS.build(encoder)
        self.decoder = MODELS.build(decoder)
        self.query_embedding = self.decoder.reference_point.query_embedding(num_queries)  # o_q
        self.bbox_head = MODELS.build(dict(bbox_head, train_cfg=train_cfg, test_cfg=test_cfg))
        self.decoder.reference_point.use_head(self.bbox_head)
        self.training_queries = build_training_queries(training_queries)
        self.training_queries.attach(self)
        self.mask_head = None if mask_head is None else MODELS.build(mask_head)
        masked_detector.prepare(self)
        accept_any_checkpoint(self)
        self.untrained_classes = ''  # message: rows of the head that a checkpoint with other classes left untrained
        self.untrained_masks = ''  # message: the loaded checkpoint had no mask head
        self.fitted_groups = ''  # message: the loaded checkpoint had another number of groups of object queries

    def train(self, mode: bool = True) -> ConditionalDETR:
        """As usual, except that a detector frozen while its mask head is trained stays in evaluation mode."""
        super().train(mode)
        masked_detector.keep_frozen(self)
        return self

    def check_trained(self) -> None:
        """Raise UserError if a checkpoint with other classes or without masks was loaded and not trained since."""
        for message, what in ((self.untrained_classes, 'Detections of these classes'), (self.untrained_masks, 'Masks')):
            if message:
                raise UserError(f'{message} {what} would be random.')

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of all decoder layers on a batch of images (B, 3, height, width); see the head.

        Raises:
            NonFiniteLossError: a loss is not finite. Names images, layer and term, and the images with non-finite
                pixels: with trainable BatchNorm, one such image affects the losses of all.
        """
        self.untrained_classes = self.untrained_masks = ''
        try:
            if self.mask_head is not None:
                return masked_detector.loss(self, batch_inputs, batch_data_samples)
            return self._compute_losses(batch_inputs, batch_data_samples)
        except NonFiniteLossError as error:
            nonfinite = [index for index, image in enumerate(batch_inputs) if not image.isfinite().all()]
            if not nonfinite:
                raise
            names = ', '.join(image_name(batch_data_samples, index) for index in nonfinite)
            raise NonFiniteLossError(f'{error} Images with non-finite pixels: {names}.') from None

    def _compute_losses(self, batch_inputs: Tensor, samples: SampleList) -> dict[str, Tensor]:
        """Losses of all training queries in training mode, of the object queries otherwise."""
        if not self.training:
            return self.bbox_head.loss(*self.decode(batch_inputs, samples), samples)
        queries = self.training_queries(self.query_embedding.weight[None], samples)
        return self.training_queries.loss(self.bbox_head, *self.decode(batch_inputs, samples, queries), samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detect objects in images (B, 3, height, width) and store them in the samples' ``pred_instances``.

        Raises:
            UserError: see :meth:`check_trained`.
        """
        self.check_trained()
        if self.mask_head is not None:
            return masked_detector.predict(self, batch_inputs, batch_data_samples, rescale)
        results = self.bbox_head.predict(*self.decode(batch_inputs, batch_data_samples), batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> tuple[Tensor, Tensor]:
        """Raw outputs of all decoder layers (mode 'tensor').

        Returns:
            - class logits (L, B, N, classes);
            - boxes (L, B, N, 4), cxcywh in fractions of the unpadded image.
        """
        return self.bbox_head(*self.decode(batch_inputs, batch_data_samples))

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """The feature map (B, D, h, w) of the images (B, 3, height, width)."""
        return self.neck(self.backbone(batch_inputs)[-1:])[-1]

    def decode(
        self, batch_inputs: Tensor, samples: OptSampleList, queries: Queries | None = None
    ) -> tuple[Tensor, Tensor]:
        """Everything but the head: images -> hidden states (L, B, N, D) and references (L, B, N, 2 or 4)."""
        return self.forward_transformer(self.extract_feat(batch_inputs), padding_mask(batch_inputs, samples), queries)

    def forward_transformer(
        self, features: Tensor, padding: Tensor | None, queries: Queries | None = None
    ) -> tuple[Tensor, Tensor]:
        """The transformer.

        Args:
            features: (B, D, h, w).
            padding: (B, height, width), True where an image is padded; None if nothing is.
            queries: the training queries; None for the object queries.

        Returns:
            - hidden states (L, B, N, D);
            - references (L, B, N, 2 or 4), logits.
        """
        queries = queries or Queries(self.query_embedding.weight[None])  # (1, N, D or 4), shared by all images
        object_query, *training_only = queries
        return self.decoder(object_query, self.encode(features, padding), *training_only)

    def encode(self, features: Tensor, padding: Tensor | None) -> Memory:
        """Run the encoder; arguments as in :meth:`forward_transformer`."""
        height, width = features.shape[-2:]
        if padding is None:
            mask = None
            position = self.positional_encoding(features.new_zeros((1, height, width), dtype=torch.bool))
        else:
            grid = F.interpolate(padding[:, None].float(), size=(height, width))[:, 0].bool()  # (B, h, w)
            mask = grid.flatten(1)
            position = self.positional_encoding(grid)
        position = position.to(features.dtype).flatten(2).transpose(1, 2)  # (B or 1, S, D)
        return Memory(self.encoder(features.flatten(2).transpose(1, 2), position, mask), position, mask)

    def encode_with_maps(self, images: Tensor, samples: SampleList) -> MaskInputs:
        """The memory of images (B, 3, height, width), and the intermediate feature maps."""
        maps = self.backbone(images)
        features = self.neck(maps[-1:])[-1]
        return MaskInputs(features, self.encode(features, padding_mask(images, samples)), maps[:-1])


def padding_mask(images: Tensor, samples: OptSampleList) -> Tensor | None:
    """The padding mask of images (B, 3, height, width).

    Returns:
        (B, height, width), True in the padding; None if no image is padded. This is decided from the image sizes on
        the host, without a device synchronisation.
    """
    height, width = images.shape[-2:]
    if samples is None or all(tuple(sample.img_shape[:2]) == (height, width) for sample in samples):
        return None
    mask = images.new_ones((len(samples), height, width), dtype=torch.bool)
    for image, sample in zip(mask, samples):
        image[: sample.img_shape[0], : sample.img_shape[1]] = False
    return mask
