"""One interface to the libraries that run exported files: ONNX Runtime and OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.runtime.metadata import KEY, Metadata, parse

#: Names of the graph's inputs and outputs, in order, and their element types.
INPUTS = dict(images='uint8', valid_sizes='int64', original_sizes='int64')
OUTPUTS = dict(boxes='float32', scores='float32', labels='int64')
#: Additional output of a detector with a mask head.
MASKS = dict(masks='float32')
PRECISIONS = ('fp32', 'bf16')
#: Values of ``provider`` besides the names of ONNX Runtime's execution providers.
PROVIDERS = {
    'cpu': ('CPUExecutionProvider',),
    'cuda': ('CUDAExecutionProvider', 'CPUExecutionProvider'),
    'tensorrt': ('TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider'),
}


class Session(Protocol):
    """A loaded file, ready to run.

    Attributes:
        metadata: the file's metadata.
        batch: the number of images per batch; None for any number.
    """

    metadata: Metadata
    batch: int | None

    def run(self, images: np.ndarray, valid_sizes: np.ndarray, original_sizes: np.ndarray) -> list[np.ndarray]:
        """Boxes (B, K, 4), scores (B, K), labels (B, K), and masks (B, K, h, w) if there are any.

        See :class:`mmcondetr.export.graph.DetectionGraph`.
        """


class OnnxRuntimeSession:
    """A ``.onnx`` file in ONNX Runtime.

    Args:
        path: the file.
        providers: execution providers, the preferred one first.
        threads: CPU threads; None for one per core.

    Raises:
        UserError: onnxruntime or the provider is not installed, or the file is not one of ours.
    """

    def __init__(self, path: Path, providers: Sequence[str], threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError('onnxruntime is not installed: pip install "mmcondetr[runtime]".') from error
        available = onnxruntime.get_available_providers()
        if providers[0] not in available:
            raise UserError(f"provider '{providers[0]}' is not in this onnxruntime, which has: {', '.join(available)}.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only; exceptions describe the problem
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, [name for name in providers if name in available]
            )
        except Exception as error:  # onnxruntime's errors have no common base class
            raise _unreadable(path, 'ONNX Runtime', error) from error
        used = self.session.get_providers()
        if providers[0] not in used:
            raise UserError(
                f"provider '{providers[0]}' could not be started here; ONNX Runtime fell back to {used[0]}."
            )
        meta = self.session.get_modelmeta()
        self.metadata = _read_metadata(meta.custom_metadata_map.get(KEY), path, meta.producer_name)
        graph = {
            node.name: (node.type[len('tensor(') : -1].replace('float', 'float32'), node.shape)
            for node in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        self.batch = _check_graph(graph, self.metadata, path)

    def run(self, images: np.ndarray, valid_sizes: np.ndarray, original_sizes: np.ndarray) -> list[np.ndarray]:
        """See :class:`Session`."""
        return self.session.run(outputs_of(self.metadata), dict(zip(INPUTS, (images, valid_sizes, original_sizes))))


class OpenVINOSession:
    """A ``.xml`` or ``.onnx`` file in OpenVINO, on a CPU.

    Args:
        path: the file.
        precision: 'fp32', or 'bf16' for matrix products and convolutions if the processor has such instructions.
        threads: None for OpenVINO's choice.

    Raises:
        UserError: openvino is not installed, or the file is not one of ours.
    """

    def __init__(self, path: Path, precision: str = 'fp32', threads: int | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError('openvino is not installed: pip install "mmcondetr[openvino]".') from error
        settings = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT=dict(fp32='f32', bf16='bf16')[precision])
        if threads is not None:
            settings['INFERENCE_NUM_THREADS'] = threads
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise _unreadable(path, 'OpenVINO', error) from error
        self.metadata = _read_metadata(_openvino_metadata(model), path, '')
        graph = {}
        for port in (*model.inputs, *model.outputs):
            shape = [None if size.is_dynamic else size.get_length() for size in port.partial_shape]
            name = next((name for name in (*INPUTS, *OUTPUTS, *MASKS) if name in port.get_names()), '?')
            graph[name] = (port.element_type.to_dtype().name, shape)
        self.batch = _check_graph(graph, self.metadata, path)
        self.request = core.compile_model(model, 'CPU', settings).create_infer_request()

    def run(self, images: np.ndarray, valid_sizes: np.ndarray, original_sizes: np.ndarray) -> list[np.ndarray]:
        """See :class:`Session`."""
        results = self.request.infer(dict(zip(INPUTS, (images, valid_sizes, original_sizes))))
        return [np.array(results[name]) for name in outputs_of(self.metadata)]


def outputs_of(metadata: Metadata) -> list[str]:
    """Names of the outputs of a file with this metadata."""
    return [*OUTPUTS, *MASKS] if metadata.masks else list(OUTPUTS)


def open_session(path: Path, provider: str = 'cpu', precision: str = 'fp32', threads: int | None = None) -> Session:
    """Load an exported file.

    Raises:
        UserError: see :class:`mmcondetr.runtime.Detector`.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise UserError(f'threads must be 1 or more, or None for the choice of the library, got {threads!r}.')
    if precision not in PRECISIONS:
        raise UserError(f"precision must be one of {', '.join(PRECISIONS)}, got '{precision}'.")
    if not path.is_file():
        raise UserError(f"Model '{path}' does not exist.")
    if path.suffix not in ('.onnx', '.xml'):
        raise UserError(f"Model '{path}': must be an exported .onnx or .xml file.")
    if path.suffix == '.xml' and not path.with_suffix('.bin').is_file():
        raise UserError(f"Model '{path}': its weights '{path.with_suffix('.bin').name}' are not beside it.")
    if provider == 'openvino' or path.suffix == '.xml':
        if provider not in ('openvino', 'cpu'):
            raise UserError(f"provider '{provider}' runs .onnx files only, and '{path}' is OpenVINO's.")
        return OpenVINOSession(path, precision, threads)
    if precision != 'fp32':
        raise UserError(f"precision '{precision}' is for provider 'openvino'; ONNX Runtime computes in the file's own.")
    return OnnxRuntimeSession(path, PROVIDERS.get(provider, (provider,)), threads)


def _unreadable(path: Path, library: str, error: Exception) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reasons = [line for line in lines if not line.startswith(('Exception from', 'Check '))]  # OpenVINO's places in C++
    return UserError(f"Model '{path}' cannot be read by {library}: {(reasons or lines)[0][:200]}")


def _openvino_metadata(model) -> str | None:
    for place in ([KEY], ['framework', KEY]):  # of a .xml file, and where OpenVINO puts an .onnx file's metadata
        if model.has_rt_info(place):
            value = model.get_rt_info(place)
            return value if isinstance(value, str) else value.astype(str)
    return None


def _read_metadata(text: str | None, path: Path, producer: str) -> Metadata:
    if text is None:
        by = f" (its producer is '{producer}')" if producer else ''
        raise UserError(
            f"Model '{path}' holds no metadata '{KEY}'{by}: only files written by `mmcondetr export` can be run."
        )
    return parse(text, str(path))


def _check_graph(graph: dict[str, tuple[str, Sequence]], metadata: Metadata, path: Path) -> int | None:
    """Check a graph's names, types and shapes against its metadata; returns its batch size, None if dynamic."""
    shapes = dict(images=(None, 3, None, None), valid_sizes=(None, 2), original_sizes=(None, 2))
    shapes |= dict(boxes=(None, metadata.max_detections, 4))
    shapes |= {name: (None, metadata.max_detections) for name in ('scores', 'labels')}
    if metadata.masks:
        shapes['masks'] = (None, metadata.max_detections, None, None)
    if set(graph) != set(shapes):
        raise UserError(
            f"Model '{path}' does not fit its metadata: inputs and outputs are {', '.join(sorted(graph))}, "
            f'but must be {", ".join(shapes)}.'
        )
    for name, expected in shapes.items():
        kind, shape = graph[name]
        expected_kind = {**INPUTS, **OUTPUTS, **MASKS}[name]
        fits = len(shape) == len(expected) and all(
            size is None or given == size or not isinstance(given, int) for given, size in zip(shape, expected)
        )
        if kind != expected_kind or not fits:
            raise UserError(
                f"Model '{path}' does not fit its metadata: {name} is {kind} {list(shape)}, but must be "
                f'{expected_kind} {list(expected)}.'
            )
    batch = graph['images'][1][0]
    return batch if isinstance(batch, int) else None
