"""One training, and one job: a training with the masks that are made beside it."""
