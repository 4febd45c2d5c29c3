"""The same networks in the plainest way: what a reader of the paper and of the released weights would write first.

Yardsticks for the benchmarks. Nothing here comes from `acar.models`; the parameter names are the released ones, so
both sides load the same state dict, and tests hold both to the same golden values.
"""
