# mmdet's own DETR-R50 (100 queries, cross-entropy with background), with ImageNet weights by URL.
_base_ = '../datasets/coco_detr.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')
    )
)
