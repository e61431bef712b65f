"""The tables of subcommands: where each one is, and what it does."""

from typing import NamedTuple


class Command(NamedTuple):
    """Where a subcommand is, and what it does in a few words."""

    module: str
    about: str


COMMANDS = {
    "demo": Command("zoo.cli.demo_command", "train a small model, cut it with spikes, show both"),
    "train": Command("zoo.cli.train", "train a model by preset"),
    "distill": Command("zoo.cli.distill", "cut a trained model and train it against itself"),
    "calibrate": Command("zoo.cli.calibrate", "cut a trained model without training"),
    "evaluate": Command("zoo.cli.evaluate", "score a model"),
    "embed": Command("zoo.cli.embed", "turn texts into vectors"),
    "mine": Command("zoo.cli.mine", "find pairs of like texts to distil on"),
    "compare": Command("zoo.cli.compare", "put models or runs side by side in one table"),
    "convert": Command("zoo.cli.convert", "write a model for transformers, or as one file"),
    "inspect": Command("zoo.cli.inspect", "list the tensors of a weight file"),
    "cost": Command("zoo.cli.cost", "price a model on a hardware profile"),
    "plot": Command("zoo.cli.plot", "draw the curves of runs"),
    "models": Command("zoo.cli.models", "list presets, models and trained weights"),
    "completion": Command("zoo.cli.completion", "print the shell's completion of this command"),
}
"""Of `snapjax`."""

COMPARED = {
    "models": Command("zoo.cli.compare_models", "score trained models on one data set"),
    "runs": Command("zoo.cli.compare_runs", "a dense run and a spiking run, with their curves"),
}
"""Of `snapjax compare`."""
