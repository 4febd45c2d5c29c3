"""Annotation files of this and other projects: told by content, read, written and converted (docs/data.md).

Every reader ends in one table (`annotations.Annotations`); every writer begins with it. Never imports torch.
"""
