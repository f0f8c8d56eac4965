"""The prediction head, shared by all decoder layers: class logits, boxes (eq. 1), losses and post-processing."""

import torch
import torch.nn.functional as F
from mmdet.models.layers import MLP
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule, bias_init_with_prob
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmcondetr.layers.precision import check_finite, full_precision, image_name
from mmcondetr.models.matching import Matches, ground_truth
from mmcondetr.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class ConditionalDETRHead(BaseModule):
    """Predicts classes with a linear layer, and boxes relative to the reference point with a three-layer MLP.

    b = sigmoid(FFN(f) + [s, 0, 0]). The MLP's last layer is initialised to zero, so training starts from boxes of half
    the image size centred at the reference points.

    Args:
        num_classes: number of classes without background.
        embed_dims: D.
        loss_cls: config of the classification loss, on one-hot targets.
        loss_bbox: config of the L1 loss of cxcywh boxes in fractions of the unpadded image.
        loss_iou: config of the GIoU loss of xyxy boxes in pixels of the resized image.
        train_cfg: ``assigner``: config of the matcher.
        test_cfg: ``max_per_img``: detections per image (100); ``clip_boxes``: clip boxes to the image (False, as in the
            authors' code).
        init_cfg: mmengine's initialisation.

    Paper: §3.1, eq. 1 (boxes); §3.5 (loss).
    """

    num_backgrounds = 0  # background outputs: none with independent sigmoids

    def __init__(
        self,
        num_classes: int,
        embed_dims: int,
        loss_cls: dict,
        loss_bbox: dict,
        loss_iou: dict,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.class_embed = nn.Linear(embed_dims, num_classes + self.num_backgrounds)
        self.box_embed = MLP(embed_dims, embed_dims, 4, 3)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.matcher = TASK_UTILS.build(train_cfg['assigner']) if train_cfg else None
        test_cfg = test_cfg or {}
        self.max_per_img = test_cfg.get('max_per_img', 100)
        self.clip_boxes = test_cfg.get('clip_boxes', False)

    def init_weights(self) -> None:
        """Class bias -log(99), so that every class starts at probability 0.01; last box layer zero."""
        super().init_weights()
        self.init_class_bias()
        nn.init.zeros_(self.box_embed.layers[-1].weight)
        nn.init.zeros_(self.box_embed.layers[-1].bias)

    def init_class_bias(self) -> None:
        """Start every class at probability 0.01."""
        nn.init.constant_(self.class_embed.bias, bias_init_with_prob(0.01))

    def forward(self, hidden_states: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from the decoder's output.

        Args:
            hidden_states: (L, B, N, D).
            references: (L, B, N, 2 or 4), logits of the reference points or anchor boxes.

        Returns:
            Class logits (L, B, N, classes) and boxes (L, B, N, 4), cxcywh in fractions of the unpadded image, float32.
        """
        with full_precision(hidden_states):
            offsets = self.box_embed(hidden_states.to(self.class_embed.weight.dtype)).float()
        origin = F.pad(references.float(), (0, 4 - references.shape[-1]))  # [s, 0, 0]
        return self.class_embed(hidden_states), (offsets + origin).sigmoid()

    def loss(
        self, hidden_states: Tensor, references: Tensor, samples: SampleList, copies: int = 1
    ) -> dict[str, Tensor]:
        """Match and compute the losses of all layers at once.

        Args:
            hidden_states, references: as in :meth:`forward`.
            samples: the images' sizes and ground truth (xyxy boxes in pixels of the resized image).
            copies: how many times each ground truth is repeated; the losses are means over the copies.

        Returns:
            Scalars under mmdet's names: ``loss_cls``, ``loss_bbox``, ``loss_iou``; earlier layers: ``d0.loss_cls`` ...

        Raises:
            NonFiniteLossError: a loss is not finite; names image, layer and term.
        """
        logits, boxes = self(hidden_states, references)
        num_boxes = boxes.new_tensor([sum(len(sample.gt_instances) for sample in samples) / copies])
        num_boxes = reduce_mean(num_boxes).clamp(min=1)[0] * copies  # averaged over ranks, as the authors do
        return self.losses(logits, boxes, samples, num_boxes)

    def losses(
        self, logits: Tensor, boxes: Tensor, samples: SampleList, num_boxes: Tensor, matches: Matches | None = None
    ) -> dict[str, Tensor]:
        """The losses that :meth:`loss` returns; arguments as in :meth:`loss_table`."""
        with full_precision(logits):
            table = self.loss_table(logits.float(), boxes, samples, num_boxes, matches)
        check_finite(table, [image_name(samples, image) for image in range(len(samples))])
        names = ['', *(f'd{layer}.' for layer in range(len(logits) - 1))]  # mmdet's, the last layer first
        return {f'{n}{term}': value for term in table for n, value in zip(names, table[term].sum(dim=1).roll(1))}

    @torch.no_grad()
    def match(self, hidden_states: Tensor, references: Tensor, samples: SampleList) -> Matches:
        """The matched pairs, for the mask head; arguments as in :meth:`loss`."""
        logits, boxes = self(hidden_states, references)
        return self.matcher.match(logits, boxes, *ground_truth(boxes, samples)[1:])

    def loss_table(
        self, logits: Tensor, boxes: Tensor, samples: SampleList, num_boxes: Tensor, matches: Matches | None = None
    ) -> dict[str, Tensor]:
        """The loss terms by name, each (L, B): what each image adds to the loss of each layer.

        Shapes: logits (L, B, N, classes) and boxes (L, B, N, 4) as :meth:`forward` returns them; num_boxes scalar.
        Predictions are matched unless ``matches`` is given.
        """
        sizes, labels, targets = ground_truth(boxes, samples)
        matches = matches or self.matcher.match(logits, boxes, labels, targets)
        # Images have different numbers of targets: concatenate them and index by (image, target).
        first = torch.tensor([0] + [len(label) for label in labels[:-1]], device=boxes.device).cumsum(0)
        target_index = first[matches.image] + matches.target
        matched, target, size = boxes[matches.predictions], torch.cat(targets)[target_index], sizes[matches.image]
        distance = self.loss_bbox(matched, target, reduction_override='none').sum(-1)
        corners, target_corners = bbox_cxcywh_to_xyxy(matched) * size, bbox_cxcywh_to_xyxy(target) * size
        giou = self.loss_iou(corners, target_corners, reduction_override='none')
        return dict(
            loss_cls=self.classification_loss(logits, matches, torch.cat(labels)[target_index], num_boxes),
            loss_bbox=matches.sum(distance, logits.shape) / num_boxes,
            loss_iou=matches.sum(giou, logits.shape) / num_boxes,
        )

    def classification_loss(self, logits: Tensor, matches: Matches, classes: Tensor, num_boxes: Tensor) -> Tensor:
        """What each image adds to the classification loss of each layer, divided by the number of boxes.

        Shapes: logits (L, B, N, classes), classes (M,) of the M matched pairs, num_boxes scalar -> (L, B).
        """
        one_hot = torch.zeros_like(logits)  # with one-hot targets mmdet's focal loss needs no compiled op
        one_hot[(*matches.predictions, classes)] = 1
        loss = self.loss_cls(logits.flatten(0, 2), one_hot.flatten(0, 2), reduction_override='none')
        return loss.view_as(logits).sum(dim=(2, 3)) / num_boxes

    def class_scores(self, logits: Tensor) -> Tensor:
        """Class scores: (..., outputs) -> (..., num_classes)."""
        return logits.sigmoid()

    def predict(
        self,
        hidden_states: Tensor,
        references: Tensor,
        samples: SampleList,
        rescale: bool = True,
        with_queries: bool = False,
    ) -> list[InstanceData]:
        """Detections of the last layer: the ``max_per_img`` best (query, class) pairs of each image.

        Args:
            hidden_states, references: as in :meth:`forward`.
            samples: the images' sizes.
            rescale: return boxes in pixels of the original image rather than of the resized one.
            with_queries: also return the query of each detection, ``queries`` (K,).

        Returns:
            Per image ``bboxes`` (K, 4) xyxy in pixels, ``scores`` (K,) and ``labels`` (K,), best first.
        """
        logits, boxes = self(hidden_states[-1:], references[-1:])
        images = zip(logits[0].float(), boxes[0], samples)
        return [self._predict_image(*image, rescale, with_queries) for image in images]

    def _predict_image(self, logits: Tensor, boxes: Tensor, sample, rescale: bool, with_queries: bool) -> InstanceData:
        scores = self.class_scores(logits).flatten()
        scores, indices = scores.topk(min(self.max_per_img, len(scores)))
        query = torch.div(indices, self.num_classes, rounding_mode='floor')
        boxes = bbox_cxcywh_to_xyxy(boxes[query])
        size = boxes.new_tensor(sample.img_shape[1::-1] * 2)  # width, height, width, height
        boxes = (boxes.clamp(0, 1) if self.clip_boxes else boxes) * size
        if rescale:
            factor = sample.metainfo.get('scale_factor', (1.0, 1.0))  # absent without a Resize
            boxes = boxes / boxes.new_tensor(factor).repeat(2)
        result = InstanceData(bboxes=boxes, scores=scores, labels=indices % self.num_classes)
        if with_queries:
            result.queries = query
        return result
