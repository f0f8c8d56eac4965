"""What one entry runs in one cell of the benchmark."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

OUR_CONFIGS = {
    'r50': 'conditional-detr_r50_8xb2-50e_coco',
    'r50-dc5': 'conditional-detr_r50-dc5_8xb1-50e_coco',
}
MODES = ('inference', 'training')
PRECISIONS = ('fp32', 'bf16', 'fp16')
#: What can be measured: name -> description.
IMPLEMENTATIONS = {
    'mmdet': "mmdet's ConditionalDETR",
    'transformers': "Hugging Face's ConditionalDetrForObjectDetection",
    'authors': "the authors' code",
    'mmcondetr': 'this package, as a config builds it',
    'mmcondetr-optimized': 'this package after optimize_for_inference',
    'mmcondetr-compiled': 'this package after optimize_for_inference(compile=True)',
    'mmcondetr-11-groups': 'this package with 11 groups of object queries (Group DETR)',
    'mmcondetr-recomputing': 'this package with with_cp in encoder, decoder and backbone',
    'mmdet-keeping': "mmdet's ConditionalDETR with freed memory kept",
    'onnxruntime': 'exported, in ONNX Runtime',
    'openvino': 'exported, in OpenVINO',
    'openvino-int8': 'exported with an int8 backbone, in OpenVINO',
}


class Exported(NamedTuple):
    """An entry that is a file.

    Attributes:
        provider: of the runner.
        ending: of the file's name.
    """

    provider: str
    ending: str


EXPORTED = {
    'onnxruntime': Exported('cpu', '.onnx'),
    'openvino': Exported('openvino', '.xml'),
    'openvino-int8': Exported('openvino', '-int8.xml'),
}


@dataclass(frozen=True)
class Workload:
    """The work of one entry: images of one size without padding, seven objects each, random weights.

    A training step is forward, losses of all decoder layers, backward, gradient clipping and AdamW, with dropout 0.1,
    stem, first stage and BatchNorm frozen. An inference step ends with boxes, scores and labels.

    Attributes:
        implementation: a key of :data:`IMPLEMENTATIONS`.
        model: 'r50' or 'r50-dc5'.
        mode: 'inference' or 'training'.
        precision: 'fp32'; 'bf16' and 'fp16' run under autocast.
        height: of the images, pixels.
        width: of the images, pixels.
        batch: images per step.
        queries: N.
        device: 'cpu' or 'cuda'.
        threads: of a CPU.
        authors: folder with the authors' code, where it is needed.
        file: what an exported entry runs.

    Raises:
        ValueError: naming the field, what was given and what is allowed.
    """

    implementation: str
    model: str = 'r50'
    mode: str = 'inference'
    precision: str = 'fp32'
    height: int = 800
    width: int = 1066
    batch: int = 1
    queries: int = 300
    device: str = 'cpu'
    threads: int = 2
    authors: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        for field, allowed in (
            ('implementation', tuple(IMPLEMENTATIONS)),
            ('model', tuple(OUR_CONFIGS)),
            ('mode', MODES),
            ('precision', PRECISIONS),
            ('device', ('cpu', 'cuda')),
        ):
            given = getattr(self, field)
            if given not in allowed:
                raise ValueError(f"benchmark: {field} must be one of {', '.join(allowed)}, got '{given}'")
        for field in ('height', 'width', 'batch', 'queries', 'threads'):
            if getattr(self, field) < 1:
                raise ValueError(f'benchmark: {field} must be 1 or more, got {getattr(self, field)}')

    @property
    def training(self) -> bool:
        """Whether a step trains."""
        return self.mode == 'training'

    def asdict(self) -> dict:
        """All fields, for JSON."""
        return asdict(self)
