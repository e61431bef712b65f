"""What a model costs on a hardware profile: operations, bytes on every link, energy, latency.

snapjax cost vit_nano_patch2_8.hnn_digits --rate measured
snapjax cost bert_micro --variant hnn --stages 4 --batch 16 --train --profile h100-nvlink
snapjax cost vit_tiny_patch4_28 --profile my-board.toml --html cost.html

Nothing is computed but measured spike rates, so a model of any size on any number of devices is
priced in seconds.
"""

import argparse
import sys
from collections.abc import Sequence

from zoo.cli import command_line
from zoo.cli.command_line import Answer, add_output, make_parser


def rate(text: str) -> str | float:
    if text == "measured":
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be measured, or a number in [0, 1]")
    return value


def parser() -> argparse.ArgumentParser:
    parser = make_parser("cost", __doc__, "everything counted and priced")
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a name of list_models() or list_pretrained(); see --list",
    )
    add("--variant", help="dense (ann) or spiking (hnn) boundaries; default hnn")
    add("--stages", type=int, help="devices that the model is cut over; default 4")
    add("--batch", type=int, default=1, help="samples a step")
    add("--microbatches", type=int, help="default: the most up to four a stage that batch allows")
    add("--tokens", type=int, help="of a text; default 128, or the model's longest")
    add(
        "--task",
        help="mlm, classify or encode, of a BERT; default encode with the pooler, as published "
        "figures are counted, and mlm with --train",
    )
    add("--steps", type=int, help="spike steps T of the boundaries; default 4")
    add("--bits", type=float, help="a feature on the boundaries; default 1")
    add("--rate", type=rate, metavar="measured|R", help="spike rate; default 0.5, assumed")
    add("--train", action="store_true", help="a whole training step; default the forward pass")
    add("--overlap", action="store_true", help="links work while the devices compute")
    add("--profile", default="snap-mesh", metavar="P", help="a name (see --list) or a TOML file")
    add_output(parser, "--html", ".html", metavar="FILE", help="also write a page with charts")
    add("--depth", type=int, default=4, help="levels of modules in the table")
    add("--list", action="store_true", help="print the names of models and profiles, and leave")
    return parser


def names() -> Answer:
    from snapjax.cost import list_profiles
    from zoo import list_models, list_pretrained

    named = {"models": list_models(), "trained": list_pretrained(), "profiles": list_profiles()}
    lines = [f"{kind}: {', '.join(each)}" for kind, each in named.items()]
    return Answer(named, lambda: print("\n".join(lines)))


def run(args: argparse.Namespace) -> Answer:
    if args.list:
        return names()
    if args.model is None:
        parser().error("name a MODEL; --list shows which there are")
    from rich.console import Console

    from zoo.cost import models as cost
    from zoo.utils.files import write_atomic

    changes = (args.variant, args.stages, args.steps, args.bits, args.task)
    model, params = cost.build(args.model, *changes, train=args.train)
    stages = model.config.stages
    microbatches = args.microbatches
    if microbatches is None:
        microbatches = cost.default_microbatches(args.batch, stages)
    setting = cost.Setting(args.batch, microbatches, tokens=args.tokens, train=args.train)
    spiking = model.boundary.spiking and stages > 1
    value, how = (0.5 if args.rate is None else args.rate), "assumed"
    if not spiking:
        value, how = 1.0, "no spikes"
    # On a terminal alone: what a program reads stays as it is.
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status("pricing"):
        if value == "measured":
            value, how = cost.measured_rate(model, params, tokens=args.tokens)
        found = cost.estimate(model, setting, args.profile, value, args.overlap)
    what = "training step" if args.train else "forward pass"
    title = f"{args.model}: one {what} of {args.batch} on {stages} stages"
    if args.html:
        write_atomic(args.html, found.html(title))
    parameters, boundaries = cost.parameter_counts(model)
    record = {
        "model": args.model,
        "step": "train" if args.train else "forward",
        "task": model.config.task,
        "batch": args.batch,
        "microbatches": microbatches,
        "tokens": cost.tokens_of(model, args.tokens),
        "stages": stages,
        "code": model.boundary.code,
        "rate": {"value": value if spiking else None, "how": how},
        **found.to_dict(),
        "parameters": parameters,
        "boundary_parameters": boundaries,
    }
    rate = f"{value:.3f}, " if spiking else ""
    return Answer(
        record, lambda: print(f"{title}; spike rate {rate}{how}\n\n{found.table(args.depth)}")
    )


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
