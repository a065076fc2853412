"""Federated Averaging of a small CNN on 5,000 MNIST digits."""
