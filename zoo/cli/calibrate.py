"""Cuts a trained model with spikes, without training: fits every boundary to unlabelled samples.

snapjax calibrate minilm_l6 --stages 3 --bits 1 --data FOLDER_OR_FILE \\
    --set data.text_column=sentence1 --out minilm_1bit.safetensors
snapjax calibrate minilm_l6 --data captions.tsv:sentence1 --data books.txt --other forum.txt \\
    --out minilm_1bit.safetensors

A cut loses more on other kinds of data than on those that it was fitted to. Give --data once for
each kind that it will meet; --other tells the agreement with the dense model on a kind that is not
fitted to.

Several methods are tried, and the one whose output is nearest to the dense model's on samples that
none was fitted to is kept; with --choose stsb the one that ranks the pairs of the data best.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.cli import command_line
from zoo.cli.command_line import (
    Answer,
    add_batch_flags,
    add_cut_flags,
    add_output,
    add_set_flag,
    make_parser,
)
from zoo.config.old_names import current_method


def parser() -> argparse.ArgumentParser:
    parser = make_parser("calibrate", __doc__, "the method taken and every method's error")
    parser.add_argument("model", metavar="NAME", help="name, folder, file or Hub id of a model")
    add_cut_flags(parser)
    parser.add_argument(
        "--method",
        type=current_method,
        action="append",
        default=[],
        help="may be repeated; default: those that won",
    )
    parser.add_argument(
        "--data", metavar="SOURCE[:COLUMN]", action="append",
        help="file, folder or Hub name, and the column of its texts; may be repeated; default: "
        "the model's own",
    )  # fmt: skip
    parser.add_argument(
        "--other", metavar="SOURCE[:COLUMN]", action="append", default=[],
        help="data to tell the agreement on; may be repeated",
    )  # fmt: skip
    add_set_flag(parser, "how the data are read, such as data.text_column=sentence")
    parser.add_argument(
        "--choose", choices=("output", "stsb"), default="output",
        help="by the output's error, or by 1 - Spearman on the pairs and scores of the data",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=1024)
    add_batch_flags(parser)
    add_output(parser, "--out", ".safetensors", required=True, help="a .safetensors file")
    return parser


def run(args: argparse.Namespace) -> Answer:
    from zoo.evaluation.cut import cut, measure_of
    from zoo.evaluation.inputs import spec_for
    from zoo.evaluation.own_data import check_source
    from zoo.models import calibration
    from zoo.models.registry import spike_boundary
    from zoo.pretrained import single_file
    from zoo.pretrained.load import load_pretrained
    from zoo.utils.progress import Progress, plain_console

    for source in args.data or [None]:
        check_source(args.model, source)
    loaded = load_pretrained(args.model)
    specs, others = (
        [spec_for(loaded, source, args.assignments) for source in sources]
        for sources in (args.data or [None], args.other)
    )
    width = loaded.model.config.width
    with Progress(plain_console(stderr=True)) as progress:
        made = cut(
            loaded, specs, others=others, stages=args.stages,
            boundary=spike_boundary(width, args.code, args.steps, args.bits),
            methods=args.method or calibration.DEFAULT, choose_by=args.choose,
            samples=args.samples, batch_size=args.batch_size, seed=args.seed,
            progress=progress,
        )  # fmt: skip
    single_file.save(args.out, made.model, made.params, made.source, made.record, made.tokenizer)
    chosen = made.record["calibration"]
    result = {
        "model": made.model.config.name,
        "stages": args.stages,
        **chosen,
        "error_is": measure_of(args.choose, loaded.model.config.task),
        "bits_per_token": 8 * made.model.boundary.bytes_per_token,
        "out": str(args.out),
    }
    return Answer(result, lambda: _show(result))


def _show(result: Mapping[str, Any]) -> None:
    print(f"error: {result['error_is']}")
    for method, error in sorted(result["errors"].items(), key=lambda item: item[1]):
        print(f"  {method:22} {error:.3g}")
    for source, share in result["agreement"].items():
        seen = "held out" if source in result["fitted_to"] else "not fitted to"
        print(f"{source}: agreement {share:.4f} with the dense model, {seen}")
    bits = result["bits_per_token"]
    print(f"{result['out']}: {result['method']}, {bits} bits a token and hop")


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
