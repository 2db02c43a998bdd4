"""What is measured of a network: metrics, features, and linear SVMs on them."""
