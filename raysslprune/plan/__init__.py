"""Jobs made from points: their graph, order and cost, and the search of the rewind study."""
