"""What a person reads in a terminal: tables, progress, explanations."""
