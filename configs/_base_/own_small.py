# For one's own data on a CPU: the small model from the weights that ship with the project, trained on shapes only.
_base_ = [
    './models/conditional-detr_r18_small.py',
    './datasets/own_detection.py',
    './schedules/adamw_from-scratch.py',
    './default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'), logger=dict(interval=10))
