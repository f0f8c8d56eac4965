"""``make demo``: a small detector, trained, evaluated and drawn."""
