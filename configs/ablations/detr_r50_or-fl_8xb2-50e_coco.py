_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

# DETR's additive decoder: p_q = o_q in every layer, added to the content.
model = dict(
    decoder=dict(
        layer=dict(type='mmcondetr.AdditiveDecoderLayer'),
        reference_point=dict(type='mmcondetr.AdditiveReferencePoint'),
        spatial_query=dict(type='mmcondetr.PositionSpatialQuery'),
    )
)
