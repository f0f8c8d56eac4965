# Frozen backbone: only the transformer and the head are trained. For few images, or little memory.
_base_ = '../shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'

load_from = '{{ fileDirname }}/../shapes/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(backbone=dict(frozen_stages=3, norm_eval=True, norm_cfg=dict(requires_grad=False)))
