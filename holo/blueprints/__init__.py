"""From a blueprint to a catalog: :mod:`holo.blueprints.make`. Importing this imports nothing: commands are quick."""
