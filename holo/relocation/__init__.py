"""Moving a recorded tree to another path: what names the path, and how it is patched."""
