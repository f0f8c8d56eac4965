_base_ = '../dab_detr/dab-detr_r50-dc5_8xb1-50e_coco.py'

model = dict(
    decoder=dict(reference_point=dict(type='mmcondetr.LabelledAnchorBoxes')),
    training_queries=dict(type='mmcondetr.DenoisingQueries', num_groups=5, label_noise=0.2, box_noise=0.4),
)
