"""The alternatives of the ablations (§4.3) and DETR's decoder, one class each, registered like the default."""
