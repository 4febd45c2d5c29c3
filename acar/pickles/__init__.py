"""Pickles read without running anything in them: an interpreter of our own, and what stands for numpy in it.

`acar.weights` adds torch's tensors to it, `acar.data.plain_pickle` nothing but plain containers. Never imports torch.
"""
