"""Answers to questions about spaces, catalogs and bundles. Nothing here changes anything.

name --references--> tree --compare--> changes: packages first, then files
                      |
                      +--> look: what is in it
"""
