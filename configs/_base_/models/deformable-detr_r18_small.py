# mmdet's own Deformable DETR on one scale, with the width, depth and data of the small Conditional DETR.
_base_ = './conditional-detr_r18_small.py'

attention = dict(embed_dims=128, num_heads=8, dropout=0.0, batch_first=True)
deformable = dict(embed_dims=128, num_heads=8, num_levels=1, dropout=0.0, batch_first=True)
ffn = dict(embed_dims=128, feedforward_channels=512, ffn_drop=0.0)
model = dict(
    type='mmdet.DeformableDETR',
    num_feature_levels=1,
    with_box_refine=False,
    as_two_stage=False,
    neck=dict(norm_cfg=dict(_delete_=True, type='GN', num_groups=32)),
    positional_encoding=dict(_delete_=True, num_feats=64, normalize=True, offset=-0.5),
    encoder=dict(_delete_=True, num_layers=3, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        _delete_=True,
        num_layers=4,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
        return_intermediate=True,
        post_norm_cfg=None,
    ),
    bbox_head=dict(type='mmdet.DeformableDETRHead', sync_cls_avg_factor=True),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='mmdet.FocalLossCost', weight=2.0),
                dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='mmdet.IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
)
