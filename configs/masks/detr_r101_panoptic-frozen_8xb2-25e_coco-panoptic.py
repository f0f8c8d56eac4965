_base_ = './detr_r50_panoptic-frozen_8xb2-25e_coco-panoptic.py'
load_from = 'https://dl.fbaipublicfiles.com/detr/detr-r101-panoptic-40021d53.pth'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'))
)
