# mmdet's runtime with checkpoints that survive a kill, a check of the classes before training starts, a head that takes
# over the classes which a loaded checkpoint has, and pictures whose boxes end where the image does.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmcondetr'], allow_failed_imports=False)

default_hooks = dict(
    checkpoint=dict(type='mmcondetr.CheckpointHook', interval=1, max_keep_ckpts=2),
    check_classes=dict(type='mmcondetr.CheckClassesHook'),
    match_classes=dict(type='mmcondetr.MatchClassesHook'),
    visualization=dict(type='mmcondetr.VisualizationHook'),
)
