"""What the paper says, as data: recipes, scales, and the experiments that several figures share."""
