"""The network: backbone, RoI features, first-order encoder, relation operators, classifier, loss."""
