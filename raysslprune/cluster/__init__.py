"""All that needs Ray: nodes, Tune, Train, workers that stay, shared masks, metrics for Prometheus."""
