"""Experiment trackers: finished steps as runs of MLflow or Weights & Biases.

``runs`` says what a step is to a tracker, ``follow`` sends steps in the background; ``mlflow`` and ``wandb`` know one
tracker each. The root is the truth: what a tracker lacks, because it was away or is new, the next command sends.
"""
