"""A trained network over the views of a clip: what prediction and the report's examples share."""
