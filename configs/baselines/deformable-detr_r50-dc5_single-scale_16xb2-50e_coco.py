_base_ = './deformable-detr_r50_single-scale_16xb2-50e_coco.py'

model = dict(backbone=dict(type='mmcondetr.ResNetDC5'))
