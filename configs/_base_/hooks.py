# What this package adds to any runtime: checkpoints that survive a kill, a check of the classes before training, a head
# that keeps the classes of a loaded checkpoint, and pictures with boxes clipped to the image.
custom_imports = dict(imports=['mmcondetr'], allow_failed_imports=False)
our_hooks = dict(
    checkpoint=dict(type='mmcondetr.CheckpointHook', interval=1, max_keep_ckpts=2),
    check_classes=dict(type='mmcondetr.CheckClassesHook'),
    match_classes=dict(type='mmcondetr.MatchClassesHook'),
    visualization=dict(type='mmcondetr.VisualizationHook'),
)
