"""Processes that work side by side: the pool, and the tree walk that steals work."""
