"""`acar check-data`: everything that is in a data set's files, and everything that is wrong with them.

Readers of the stages stop at the first mistake; here all are collected, before hours of work. Never imports torch.
"""
