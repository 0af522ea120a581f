"""A catalog becomes a directory: survey, plan, tasks, engine. Importing this imports nothing."""
