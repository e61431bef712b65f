"""Model-FLOPs utilisation: the operations by hand, the rates of known devices."""

import jax
import numpy as np
import pytest

from snapjax import cost
from zoo.models.registry import create_model
from zoo.train import utilisation


@pytest.mark.parametrize("variant", ["ann", "hnn"])
def test_operations_of_a_sample_by_hand(variant):
    model = create_model("vit_nano_patch2_8", variant, stages=4)
    batch = {
        "image": np.zeros((1, 8, 8, 1), np.float32),
        "label": np.zeros(1, np.int32),
        "weight": np.ones(1, np.float32),
    }
    tokens, width, hidden, layers = 16, 64, 128, 4
    block = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    # The gradient of a matmul is two of its size, but of the first only that of its weights.
    patch, head = tokens * 4 * width, width * 10
    macs = 3 * layers * block + 2 * patch + 3 * head
    assert utilisation.flops_per_sample(model, batch) == 2 * macs


def test_peak_of_a_profile_and_of_an_unknown_device():
    count = jax.device_count()
    profile = cost.load_profile("h100-nvlink")
    assert utilisation.peak_flops("h100-nvlink", "bfloat16") == 2 * count * profile["rate_mac_16"]
    assert utilisation.peak_flops("h100-nvlink", "bfloat16") == pytest.approx(count * 989e12)
    assert utilisation.peak_flops(None, "float32") is None  # a CPU: nobody knows
    with pytest.raises(ValueError, match="did you mean 'h100-nvlink'"):
        utilisation.peak_flops("h100-nvlinks", "float32")
    for name in utilisation.PROFILES.values():
        assert name in cost.list_profiles()
