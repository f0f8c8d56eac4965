_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

model = dict(decoder=dict(reference_point=dict(type='mmcondetr.LearnedReferencePoint', num_queries=300)))
