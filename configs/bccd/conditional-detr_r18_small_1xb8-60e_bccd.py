# Blood cells, from the shapes model's weights instead of ImageNet's. Data: BCCD_ROOT=/path/to/bccd/
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(bbox_head=dict(num_classes=3))
max_epochs = 60
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[50], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=8)
