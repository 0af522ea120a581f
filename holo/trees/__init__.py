"""Prepared trees: what a space, or a throw-away environment, is made of in one step."""
