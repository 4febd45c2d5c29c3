"""ACAR-Net with its Actor-Context Feature Bank: train, run and evaluate on AVA-style video."""

__version__ = "0.1.0"
