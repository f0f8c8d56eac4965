_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

# DETR's additive decoder does not look at a spatial query: the one without parameters stands there.
model = dict(
    decoder=dict(
        layer=dict(type='mmcondetr.AdditiveDecoderLayer'), spatial_query=dict(type='mmcondetr.PositionSpatialQuery')
    )
)
