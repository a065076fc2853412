"""Federated Averaging whose server learns the sum, and no client's part of it."""
