"""From points to jobs: their graph, their order, what they cost, and the search of the rewind study."""
