# Conditional DETR-R50 of the paper's size, from scratch: nothing is pretrained, so nothing is frozen. For one's
# own data sets; _base_/models/conditional-detr_r50.py is the paper's, which includes COCO and its schedule.
_base_ = './conditional-detr_r18_small.py'

embed_dims = 256
layer = dict(embed_dims=embed_dims, feedforward_channels=2048, dropout=0.1)
model = dict(
    num_queries=300,
    backbone=dict(
        depth=50, base_channels=64, num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), out_indices=(3,)
    ),
    neck=dict(type='mmcondetr.InputProjection', in_channels=[2048], out_channels=embed_dims),
    positional_encoding=dict(num_feats=embed_dims // 2),
    encoder=dict(num_layers=6, layer=layer),
    decoder=dict(
        num_layers=6,
        layer=layer,
        reference_point=dict(embed_dims=embed_dims),
        spatial_query=dict(embed_dims=embed_dims),
    ),
    bbox_head=dict(num_classes=80, embed_dims=embed_dims),
    test_cfg=dict(max_per_img=100),
)
