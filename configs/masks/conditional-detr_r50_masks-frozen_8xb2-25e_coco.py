# Masks for the authors' detector, whose boxes do not change. DETR's recipe: 25 epochs, learning rate drop after 15.
_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
load_from = 'https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0/ConditionalDETR_r50_epoch50.pth'
model = dict(backbone=dict(out_indices=(0, 1, 2, 3)), mask_head=dict(type='mmcondetr.MaskHead', freeze_detector=True))
load = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
train_pipeline = [_base_.train_pipeline[0], load, *_base_.train_pipeline[2:]]  # noqa: F821
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=25)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=25, by_epoch=True, milestones=[15], gamma=0.1)]
