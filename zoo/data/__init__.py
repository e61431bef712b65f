"""Data to train and evaluate on: from embedded text and images to files and the Hub.

| file | what it does |
|---|---|
| `sources.py`, `prepare.py` | a `DataSpec` is found, checked and becomes a `Data` |
| `embedded.py`, `tables.py`, `idx.py`, `pictures.py`, `files.py` | where the bytes come from |
| `images.py`, `augment.py` | splits of images |
| `labels.py` | labels as numbers of classes |
| `text.py`, `masking.py`, `tokenizer.py` | splits of text |
| `order.py`, `lengths.py`, `batches.py`, `prefetch.py` | who sees which sample when |

May import config and utils.
"""

from zoo.config.data import DataSpec
from zoo.data.batches import Batch, Split, eval_batches, steps_per_epoch, train_batches
from zoo.data.order import epoch_order, sample_rng
from zoo.data.prefetch import Prefetch, prefetch
from zoo.data.prepare import Data
from zoo.data.sources import load

__all__ = [
    "Batch",
    "Data",
    "DataSpec",
    "Prefetch",
    "Split",
    "epoch_order",
    "eval_batches",
    "load",
    "prefetch",
    "sample_rng",
    "steps_per_epoch",
    "train_batches",
]
