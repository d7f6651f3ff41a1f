"""The asv suite, the workloads that it shares with the tests, and the comparison with PyTorch."""
