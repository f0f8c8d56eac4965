"""Registries of scope ``mmcondetr``, children of mmdet's: ``type='mmcondetr.X'`` finds X here and nowhere else."""

from mmdet import registry as mmdet_registry
from mmengine.registry import Registry

SCOPE = 'mmcondetr'


def _child(name: str, *locations: str) -> Registry:
    parent = getattr(mmdet_registry, name)
    return Registry(
        parent.name, parent=parent, scope=SCOPE, locations=[f'mmcondetr.{location}' for location in locations]
    )


MODELS = _child('MODELS', 'models', 'inference')
TASK_UTILS = _child('TASK_UTILS', 'models')
DATASETS = _child('DATASETS', 'datasets')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'datasets')
TRANSFORMS = _child('TRANSFORMS', 'datasets')
HOOKS = _child('HOOKS', 'engine', 'inference')
LOOPS = _child('LOOPS', 'engine')
METRICS = _child('METRICS', 'engine')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
