"""Train a network once, and run a job: one training and the masks that are made beside it."""
