"""Ensembles: the weighted average of several runs' detections, from tables or files."""
