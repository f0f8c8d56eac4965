"""Runs an entry that is an exported file, without PyTorch in the process: its memory is what a service needs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np

from mmcondetr.errors import UserError
from mmcondetr.runtime.sessions import open_session
from tools.benchmark.serving import Steps, Unavailable, serve
from tools.benchmark.workload import EXPORTED, Workload


def prepare(workload: Workload) -> Steps:
    """The file, loaded, and a step that detects in images of random pixels.

    Raises:
        Unavailable: there is no such file, or no runtime for it.
    """
    if workload.file is None:
        raise Unavailable('no file was exported')
    try:
        provider = EXPORTED[workload.implementation].provider
        session = open_session(Path(workload.file), provider, workload.precision, workload.threads)
    except UserError as error:
        raise Unavailable(str(error)) from error
    shape = workload.batch, 3, workload.height, workload.width
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sizes = np.array([shape[2:]] * workload.batch)
    return Steps(lambda: session.run(images, sizes, sizes))


def versions() -> dict[str, str]:
    """Versions of the libraries that run files."""
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    return {name: found[name] for name in ('onnxruntime', 'openvino', 'nncf') if name in found}


if __name__ == '__main__':
    serve(prepare, versions)
