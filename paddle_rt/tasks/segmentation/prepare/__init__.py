"""Annotations of other tools as images with indexed PNG labels, lists and the names of the classes.

One module reads each format; all give `samples.Source`, which `write.prepare` writes.
"""
