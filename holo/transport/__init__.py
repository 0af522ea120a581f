"""How catalogs and their blobs get into a library, and out of it. Importing this imports nothing."""
