"""How fast models train here: the boundary's share of a step, and the same sizes in PyTorch.

rounds.py   times several runs in turn
ours.py     this repository's training and forward steps as runs
peers.py    Hugging Face's models of the same sizes, on PyTorch, as runs; needs torch
inputs.py   a data set for a model, and how long a step waits for it
report.py   all of it for some models, as records and as a table

May import train and below.
"""
