_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

model = dict(
    training_queries=dict(type='mmcondetr.DenoisingPoints', num_groups=5, label_noise=0.2, box_noise=0.4),
)
