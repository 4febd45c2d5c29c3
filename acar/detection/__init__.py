"""Person boxes: the detector, imported box files, selection and label matching."""
