"""The other choices of the ablations (§4.3) and DETR's decoder; each one class, registered like the default."""
