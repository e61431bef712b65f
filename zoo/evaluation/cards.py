"""Model cards: what a shipped model is, what made it, how good it is, and how to see that."""

from typing import Any

from snapjax.codes.parameters import count_trainable
from zoo.evaluation.compare import SCORES
from zoo.pretrained.pretrained_model import Pretrained


def card(name: str, loaded: Pretrained, summary: dict[str, Any], facts: dict[str, str]) -> str:
    """The Markdown card of a trained model.

    Args:
      name: under which it ships.
      loaded: the model; "scores" in its record are of a data set it is judged by, and "base" is
        what it is built on.
      summary: of its run, see `zoo.train.run.finish`.
      facts: "command", "data", "data_licence", "licence", "limits".
    """
    model, config = loaded.model, loaded.config
    boundary, task = model.boundary, model.config.task
    scores, base = loaded.record.get("scores"), loaded.record.get("base")
    where = f" --task {scores['task']} --data FILE" if scores else " --data FOLDER"
    if config.data.source in ("digits", "topics"):  # embedded, and what it is scored on unasked
        where = ""
    inputs = "text" if hasattr(model.config, "vocabulary") else "image"
    accuracy, loss = "accuracy", f"{'masked-token ' if task == 'mlm' else ''}cross-entropy"
    if config.distill.teacher is not None:
        loss = "loss against the teacher"
        if config.data.task == "unlabelled":
            accuracy = ("mean cosine to" if task == "encode" else "agreement with") + " the teacher"
    rows = {
        "model": f"`{model.config.name}`, {count_trainable(loaded.params):,} trainable parameters",
        "task": {
            "mlm": "masked language model",
            "classify": f"{inputs} classification",
            "encode": f"{inputs} embeddings",
        }[task],
        "stages": f"{model.config.stages}, so {model.config.stages - 1} boundaries",
        "boundary": f"`{boundary.code}`, {8 * boundary.bytes_per_token} bits a token and hop "
        f"({8 * boundary.bytes_per_token / boundary.features:g} a feature)",
        "spike rate of each boundary": ", ".join(f"{rate:.3f}" for rate in summary["spike_rate"])
        if boundary.spiking
        else "-",
        "data": facts["data"],
        "licence of the data": facts["data_licence"],
        "licence of the weights": facts["licence"],
        # Older runs call an encoder's cosine "accuracy".
        f"validation {accuracy}": f"{summary.get('cosine', summary.get('accuracy')):.4f} "
        f"({summary['samples']:,} samples)",
        f"validation {loss}": f"{summary['loss']:.4f}",
        "trained for": f"{summary['steps']:,} steps of {config.train.batch_size} samples, "
        f"{summary['seconds'] / 60:.0f} minutes on {summary['hardware']}",
    }
    for key, title in SCORES.items():
        if scores and key in scores:
            counted = f"{scores['samples']:,} {'pairs' if scores['task'] == 'stsb' else 'samples'}"
            rows[f"{scores['task']}, {title}"] = f"{scores[key]:.4f} ({counted})"
    kinds = loaded.record.get("agreement")
    if kinds:
        what = "correlation of all cosines" if task == "encode" else "share of equal answers"
        rows[f"agreement with the dense model ({what})"] = ", ".join(
            f"{each['agreement']:.3f} on {each['data']}" for each in kinds
        )
    if base:
        rows["built on"] = f"`{base['name']}`, whose weights are not repeated here"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {name}

| | |
|---|---|
{table}

Made by

    {facts["command"]}

and scored again by

    snapjax evaluate {name}{where}

```python
from zoo import load_pretrained
loaded = load_pretrained("{name}")
loaded.model, loaded.params
```

Limits: {facts["limits"]}
"""
