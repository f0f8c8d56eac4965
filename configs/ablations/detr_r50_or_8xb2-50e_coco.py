_base_ = './detr_r50_or-fl_8xb2-50e_coco.py'

class_weight = [1.0] * 80 + [0.1]  # the last one is background
model = dict(
    num_queries=100,
    bbox_head=dict(
        type='mmcondetr.SoftmaxDETRHead',
        loss_cls=dict(_delete_=True, type='mmdet.CrossEntropyLoss', class_weight=class_weight, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='mmcondetr.SoftmaxHungarianMatcher', class_cost=1.0)),
)
