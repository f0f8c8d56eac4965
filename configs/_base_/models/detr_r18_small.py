# mmdet's own DETR with the width, depth and data of the small Conditional DETR. No focal loss, as in the paper.
_base_ = './conditional-detr_r18_small.py'

attention = dict(embed_dims=128, num_heads=8, dropout=0.0, batch_first=True)
ffn = dict(embed_dims=128, feedforward_channels=512, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    type='mmdet.DETR',
    positional_encoding=dict(_delete_=True, num_feats=64, normalize=True),
    encoder=dict(_delete_=True, num_layers=3, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        _delete_=True,
        num_layers=4,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        return_intermediate=True,
    ),
    bbox_head=dict(
        type='mmdet.DETRHead',
        loss_cls=dict(
            _delete_=True,
            type='mmdet.CrossEntropyLoss',
            bg_cls_weight=0.1,
            use_sigmoid=False,
            loss_weight=1.0,
            class_weight=1.0,
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='mmdet.ClassificationCost', weight=1.0),
                dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
)
