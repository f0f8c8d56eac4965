# The generated data set, learned from scratch on a CPU in minutes.
_base_ = [
    '../_base_/models/conditional-detr_r18_small.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_from-scratch.py',
    '../_base_/default_runtime.py',
]
