# Data and schedule of the small Conditional DETR.
_base_ = [
    '../_base_/models/dab-detr_r18_small.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
