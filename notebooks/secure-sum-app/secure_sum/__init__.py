"""Federated Averaging in which the server learns the sum, and no client's part of it."""
