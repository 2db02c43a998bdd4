"""The paper as data: recipes, scales, and the experiments that several figures share."""
