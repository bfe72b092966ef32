"""What opens ground truth after training: benchmarks, their protocols, rates and pictures."""
