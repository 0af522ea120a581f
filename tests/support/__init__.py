"""What the tests share: filesystems, trees, and ways to look at them that owe nothing to holo."""
