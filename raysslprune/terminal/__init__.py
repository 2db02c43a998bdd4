"""Output for people in a terminal: tables, progress, and explanations of results."""
