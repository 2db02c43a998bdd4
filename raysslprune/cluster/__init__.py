"""All of Ray: the cluster and its nodes, jobs by Tune, trainings by Train, shared masks, metrics for Prometheus."""
