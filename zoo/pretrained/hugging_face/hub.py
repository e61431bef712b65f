"""Folders by Hub id, through huggingface_hub: its cache, its offline mode, its credentials.

Only JSON, safetensors, vocabularies and the README of a repository are fetched.
"""

import re
from pathlib import Path

from zoo.pretrained.hugging_face.tensors import CONVERT

ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")
PATTERNS = {
    "allow_patterns": [
        *("*.json", "*.safetensors", "vocab.txt", "README.md", "*_Pooling/*.json"),
        *("*_Transformer/*.json", "*_Transformer/*.safetensors"),
    ],
    # Folders of other formats, which may hold JSON and safetensors too.
    "ignore_patterns": ["onnx/*", "openvino/*", "coreml/*", "checkpoint-*/*"],
}
# It comes last, so that what broke off is never taken for a model, or for a plainer one.
LAST = "config.json"
PATIENCE = 5  # seconds to wait for the first answer; a Hub that is there takes less than one


def fetch(identity: str) -> tuple[Path, str]:
    """The local folder of a repository, and its id with the commit, "organisation/name@commit".

    The newest commit is asked for; where the Hub cannot be reached, or HF_HUB_OFFLINE=1 says not to
    try, the one that the cache holds is taken.

    Args:
      identity: "organisation/name" for the default branch, or "organisation/name@revision" for
        another branch, a tag or a commit.

    Raises:
      ValueError: there is no such repository, it holds no safetensors, it is neither in the cache
        nor within reach, or fetching it broke off.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if not (parts := ID.fullmatch(identity)):
        raise ValueError(
            f"Hub id {identity!r} must be organisation/name or organisation/name@revision"
        )
    name, revision = parts.groups()
    if not constants.HF_HUB_OFFLINE:
        try:
            info = HfApi().model_info(name, revision=revision, timeout=PATIENCE)
        except HfHubHTTPError as error:
            raise ValueError(f"{name!r} is not here, and as a Hub id: {error}") from error
        except Exception as error:  # of whatever HTTP library huggingface_hub uses
            reason = f"{constants.ENDPOINT} cannot be reached ({error})"
        else:
            files = [entry.rfilename for entry in info.siblings or ()]
            if not any(file.endswith(".safetensors") for file in files):
                raise ValueError(
                    f"Hub id {name!r} holds no safetensors, only {', '.join(files)}; pickles are "
                    f"not opened, because reading one runs code. Convert it where you trust it: "
                    f"{CONVERT}"
                )
            try:
                first = {**PATTERNS, "ignore_patterns": [*PATTERNS["ignore_patterns"], LAST]}
                snapshot_download(name, revision=revision, **first)
                # By the revision's name, not the commit's: the cache then knows it as the newest.
                folder = snapshot_download(name, revision=revision, **PATTERNS)
            except Exception as error:  # as above, and of the disk
                raise ValueError(
                    f"Hub id {name!r}: fetching it from {constants.ENDPOINT} broke off ({error}); "
                    "run it again, what was fetched whole is kept"
                ) from error
            return Path(folder), f"{name}@{Path(folder).name}"
    else:
        reason = "HF_HUB_OFFLINE is set"
    try:
        folder = snapshot_download(name, revision=revision, local_files_only=True, **PATTERNS)
        if not any((Path(folder) / file).is_file() for file in (LAST, "modules.json")):
            raise FileNotFoundError(folder)
    except FileNotFoundError:
        raise ValueError(
            f"{name!r} is not here, and as a Hub id: {reason}, and it is not whole in the "
            f"cache {constants.HF_HUB_CACHE}; give the path of a folder that holds it, or fetch it "
            "once with a network"
        ) from None
    return Path(folder), f"{name}@{Path(folder).name}"
