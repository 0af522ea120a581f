"""From a blueprint to a catalog: see :mod:`holo.build.make`. Importing this imports nothing: commands are quick."""
