"""Instance and panoptic masks of a DETR's detections (DETR, arXiv 2005.12872, section 4.4)."""
