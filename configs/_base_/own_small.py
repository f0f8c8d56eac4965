# For one's own data on a CPU: the small model from the weights that ship with the project, trained on shapes only.
_base_ = [
    './models/conditional-detr_r18_small.py',
    './datasets/own_detection.py',
    './schedules/adamw_from-scratch.py',
    './default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'), logger=dict(interval=10))
# The moving average of the weights is evaluated and saved, over some 100 steps (fewer at first); update_buffers: with
# BatchNorm's statistics, which this model trains. With batches of 4: docs/training-faster.md.
custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=0.01, gamma=100, update_buffers=True)
]
