# mmdet's own Deformable DETR on four scales, without refinement and second stage (Table 2).
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmcondetr'], allow_failed_imports=False)

model = dict(backbone=dict(init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')))
