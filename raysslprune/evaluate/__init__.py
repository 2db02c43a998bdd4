"""Measurements on a trained network: metrics, features, and linear SVMs on them."""
