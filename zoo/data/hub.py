"""Whether the Hugging Face Hub is within reach, asked once and quickly.

`datasets` by itself tries again and again, with a warning each time, before it looks into its
cache.
"""

import contextlib
from collections.abc import Iterator

PATIENCE = 5  # seconds to wait for the first answer; a Hub that is there takes less than one


@contextlib.contextmanager
def offline_where_unreachable(name: str) -> Iterator[str]:
    """Has `datasets` use its cache alone in this context, where the Hub cannot be reached.

    Args:
      name: of the data set that is wanted.

    Yields:
      why the Hub is not asked; "" where it is.
    """
    reason = _unreachable(name)
    if not reason:
        yield ""
        return
    import datasets
    from huggingface_hub import constants

    # Each reads its own when it is asked something.
    settings = (datasets.config, constants)
    before = [each.HF_HUB_OFFLINE for each in settings]
    try:
        for each in settings:
            each.HF_HUB_OFFLINE = True
        yield reason
    finally:
        for each, value in zip(settings, before, strict=True):
            each.HF_HUB_OFFLINE = value


def _unreachable(name: str) -> str:
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    if datasets.config.HF_HUB_OFFLINE or constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().dataset_info(name, timeout=PATIENCE)
    except HfHubHTTPError:
        return ""  # it answers; what it says is told when the data set is loaded
    except Exception as error:  # of whatever HTTP library huggingface_hub uses
        return f"{constants.ENDPOINT} cannot be reached ({error})"
    return ""
