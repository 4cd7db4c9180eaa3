"""The only part of the project that imports PaddleSeg (2.8.0), which is left as it is installed.

- `components`: its networks, data sets, transforms and optimizers by name.
- `loop`: its own training loop, as a reference.
- `counterparts` and `compare`: its networks beside ours, with the same weights.
- `pipeline`: its deployment, for benchmarks.
- `releases`: its trained RTFormers, with their scores.

Its losses, metrics, evaluation and prediction are not used.
"""
