"""Cuts a trained model with spikes, without training: fits every boundary to unlabelled samples.

snapjax calibrate minilm_l6 --stages 3 --bits 1 --data FOLDER_OR_FILE \\
    --set data.text_column=sentence1 --out minilm_1bit.safetensors

Several methods are tried, and the one whose output is nearest to the dense model's on samples that
none was fitted to is kept; with --choose stsb the one that ranks the pairs of the data best.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_set_flag, make_parser


def parser() -> argparse.ArgumentParser:
    parser = make_parser("calibrate", __doc__, "the method taken and every method's error")
    parser.add_argument("model", metavar="NAME", help="name, folder, file or Hub id of a model")
    parser.add_argument("--stages", type=int, default=3, help="pieces; must divide the layers")
    parser.add_argument("--bits", type=float, default=1.0, help="a feature and hop")
    parser.add_argument("--steps", type=int, default=8, help="spikes a feature may send, at most")
    parser.add_argument("--code", default="phase")
    parser.add_argument(
        "--method", action="append", default=[], help="may be repeated; default: those that won"
    )
    parser.add_argument("--data", metavar="FILE_OR_HUB_NAME", help="default: the model's own")
    add_set_flag(parser, "how the data are read, such as data.text_column=sentence")
    parser.add_argument(
        "--choose", choices=("output", "stsb"), default="output",
        help="by the output's error, or by 1 - Spearman on the pairs and scores of the data",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    return parser


def run(args: argparse.Namespace) -> Answer:
    import jax
    from rich.console import Console

    from zoo.embedding import similarity
    from zoo.embedding.encoder import Encoder
    from zoo.evaluation import inputs
    from zoo.evaluation.inputs import spec_for
    from zoo.models import calibration
    from zoo.models.registry import default_boundary
    from zoo.pretrained import single_file
    from zoo.pretrained.load import load_pretrained, partition
    from zoo.utils.files import check_out

    check_out(args.out, ".safetensors")
    loaded = load_pretrained(args.model)
    spec = spec_for(loaded, args.data, args.assignments)
    width = loaded.model.config.width
    if not 0 < args.bits < float("inf"):
        raise ValueError(f"bits={args.bits} a feature must be a positive number")
    boundary = replace(
        default_boundary(width, "hnn"), code=args.code, steps=args.steps,
        budget=max(1, round(args.bits * width)),
    )  # fmt: skip
    cut = partition(loaded, stages=args.stages, boundary=boundary)
    error = None
    if args.choose == "stsb":
        error = lambda model, params: 1 - similarity.score(
            Encoder.of(replace(cut, model=model, params=params)), spec
        )["spearman"]  # fmt: skip
        similarity.read_pairs(spec)  # what is wrong with them is said before anything is fitted
    samples = inputs.batches(cut, spec, args.samples, args.batch_size, args.seed)
    fitted, held_out = samples[::2] + samples[3::4], samples[1::4]
    with Console(stderr=True).status("") as status:
        model, params, errors = calibration.choose(
            cut.model, cut.params, fitted, held_out or fitted, args.method or calibration.DEFAULT,
            key=jax.random.key(args.seed), error=error, progress=status.update,
        )  # fmt: skip
    best = min(errors, key=errors.__getitem__)
    chosen = {"method": best, "chosen_by": args.choose, "errors": errors}
    record = {**loaded.record, "calibration": chosen}
    single_file.save(args.out, model, params, loaded.source, record, loaded.tokenizer)
    result = {
        "model": model.config.name,
        "stages": args.stages,
        **chosen,
        "bits_per_token": 8 * model.boundary.bytes_per_token,
        "out": str(args.out),
    }

    def show() -> None:
        for method, error in sorted(errors.items(), key=lambda item: item[1]):
            print(f"{method:20} error {error:.4f}")
        print(f"{args.out}: {best}, {result['bits_per_token']} bits a token and hop")

    return Answer(result, show)


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
