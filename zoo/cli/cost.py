"""What a model costs on a hardware profile: operations, bytes on every link, energy, latency.

snapjax cost vit_nano_patch2_8.hnn_digits --profile ethernet-1g
snapjax cost runs/mine --batch 32
snapjax cost cut.safetensors --profile my-board.toml --html cost.html
snapjax cost bert_micro --variant hnn --stages 4 --batch 16 --train --profile h100-nvlink

A trained model is priced with the boundary that it was trained or calibrated with. Nothing is
computed but measured spike rates, so a model of any size on any number of devices is priced in
seconds.
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
        help="a name, see --list; or the folder of a run or model, a .safetensors file, a Hub id",
    )
    add("--variant", help="dense (ann) or spiking (hnn) boundaries; default hnn")
    add(
        "--stages",
        type=int,
        help="devices that the model is cut over; default the most up to 4 that divide its layers",
    )
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
    add(
        "--rate",
        type=rate,
        metavar="measured|R",
        help="spike rate, or measured by running the model here; default the one that a trained "
        "model's validation recorded, and 1, the worst case, where there is none",
    )
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
    from zoo.cost import priced
    from zoo.utils.files import write_atomic

    if args.depth < 1:
        raise ValueError(f"--depth {args.depth}: must be at least 1")
    changes = (args.variant, args.stages, args.steps, args.bits, args.task)
    found = priced.build(args.model, *changes, train=args.train)
    model, stages = found.model, found.model.config.stages
    microbatches = args.microbatches
    if microbatches is None:
        microbatches = cost.default_microbatches(args.batch, stages)
    setting = cost.Setting(args.batch, microbatches, tokens=args.tokens, train=args.train)
    tokens = cost.tokens_of(model, args.tokens)
    spiking = model.boundary.spiking and stages > 1
    # On a terminal alone: what a program reads stays as it is.
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status("pricing"):
        if not spiking:
            fires = priced.Rate(1.0, "no spikes")
        elif args.rate == "measured":
            fires = priced.measured_rate(found, tokens)
        else:
            fires = found.rate if args.rate is None else priced.Rate(args.rate, "assumed")
        estimate = cost.estimate(model, setting, args.profile, fires.value, args.overlap)
    what = "training step" if args.train else "forward pass"
    title = f"{args.model}: one {what} of {args.batch} on {stages} stages"
    if args.html is not None:
        write_atomic(args.html, estimate.html(title))
    parameters = priced.parameters_of(model)
    record = {
        "model": args.model,
        "step": "train" if args.train else "forward",
        "task": model.config.task,
        "batch": args.batch,
        "microbatches": microbatches,
        "tokens": tokens,
        "stages": stages,
        "code": model.boundary.code,
        "boundary": model.boundary.to_dict(),
        "rate": {"value": fires.value if spiking else None, "how": fires.how},
        **estimate.to_dict(),
        "parameters": parameters.total,
        "boundary_parameters": parameters.boundaries,
    }
    shown = f"{fires.value:.3f}, " if spiking else ""
    lines = [
        f"{title}; spike rate {shown}{fires.how}",
        f"{model.config.name} for {model.config.task!r}: {parameters}",
    ]
    return Answer(record, lambda: print("\n".join([*lines, "", estimate.table(args.depth)])))


def main(argv: Sequence[str] | None = None) -> int:
    return command_line.main(parser(), run, argv)
