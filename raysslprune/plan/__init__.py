"""From points to jobs: their graph, their order, their cost, and the rewind study's search."""
