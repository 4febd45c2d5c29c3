"""Checkpoints in and out: other projects' weights to our safetensors, ours to ACAR-Net's layout, and downloads.

A file is recognised by its content, never by its suffix, and nothing in it is ever run: pickles are read by an
interpreter of our own (`acar.pickles`) that knows tensors, arrays and plain containers.
"""
