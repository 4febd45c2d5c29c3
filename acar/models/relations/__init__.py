"""The relation operators that the paper compares (tables 1a, 1c, 1d, 1f), one file each.

The published one, HR2O as modified non-local blocks over maps, is `acar.models.hr2o`; ACRN, the first-order
encoder, `acar.models.first_order`. `acar.models.heads.build_head` puts them into heads.
"""
