"""Turns a finished run into a model that ships: weights, config, tokenizer and a card.

  python scripts/export_pretrained.py runs/digits_hnn vit_nano_patch2_8.hnn_digits \
    --command "python scripts/train.py digits_hnn" --data "..." --data-licence "CC BY 4.0" \
    --hardware "2 CPU cores" --limits "..."

With --base, what is equal in another model is left out and taken from there: of a model whose
boundaries alone were trained, nothing else is written.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="MODEL.TAG, such as vit_nano_patch2_8.hnn_digits")
    parser.add_argument("--out", type=Path, help="all models; default zoo/pretrained/shipped")
    parser.add_argument("--command", required=True, help="what trained it")
    parser.add_argument("--data", required=True, help="what it was trained on, and the source")
    parser.add_argument("--data-licence", required=True)
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--limits", required=True, help="what it is not good for")
    parser.add_argument(
        "--base", metavar="NAME", help="a model that ships or is known by name, such as minilm_l6"
    )
    parser.add_argument(
        "--scores", type=Path, metavar="JSON",
        help="what evaluate.py --json printed of it, for the card, where the run's own validation "
        "is not what it is judged by",
    )  # fmt: skip
    return parser.parse_args(argv)


def scores_of(loaded: Any, path: Path) -> dict[str, Any]:
    """What evaluate.py printed of this model and no other."""
    from zoo.evaluation.compare import SCORES
    from zoo.utils.files import read_json

    scores = read_json(path)
    missing = {"model", "stages", "code", "task", "samples"} - scores.keys()
    if missing or not SCORES.keys() & scores.keys():
        raise ValueError(
            f"{path} lacks {sorted(missing) or 'a score'}; give what evaluate.py --json printed"
        )
    model = loaded.model
    wanted = {"model": model.config.name, "stages": model.config.stages,
              "code": model.boundary.code}  # fmt: skip
    given = {key: scores[key] for key in wanted}
    if given != wanted:
        raise ValueError(f"{path} is of another model: {given}, not {wanted}")
    return scores


def run(args: argparse.Namespace) -> int:
    from zoo.config.data import is_path
    from zoo.config.values import to_dict
    from zoo.evaluation.cards import card
    from zoo.pretrained import load as pretrained
    from zoo.pretrained.locate import SHIPPED
    from zoo.utils.files import read_json, write_atomic

    loaded = pretrained.load_pretrained(args.run)
    model, _, tag = args.name.partition(".")
    if model != loaded.model.config.name or not re.fullmatch(r"\w[\w.-]*", tag):
        raise ValueError(
            f"name={args.name!r} must be MODEL.TAG, here {loaded.model.config.name}.TAG, with "
            "letters, digits, '_', '-' and '.'"
        )
    summary = read_json(args.run / "summary.json")
    # A path says where a file was on one machine; its last part says what it was.
    source, teacher = loaded.config.data.source, loaded.config.distill.teacher
    source = Path(source).name if is_path(source) else source
    teacher = Path(teacher).name if teacher and Path(teacher).exists() else teacher
    config = replace(
        loaded.config,
        data=replace(loaded.config.data, source=source),
        model=replace(loaded.config.model, init_from=None),
        distill=replace(loaded.config.distill, teacher=teacher),
    )
    facts = {name: getattr(args, name) for name in
             ("command", "data", "data_licence", "licence", "limits")}  # fmt: skip
    record = {key: value for key, value in loaded.record.items() if key != "tokenizer"}
    record |= {"config": to_dict(config), "name": args.name, "card": facts}
    record.pop("scores", None)  # of a model that this one began as
    if args.scores is not None:
        record["scores"] = scores_of(loaded, args.scores)
    if "teacher" in record:  # where it lay is nobody's business, and what it was is
        record["teacher"] = {**record["teacher"], "source": teacher}
    folder = (args.out or SHIPPED) / args.name
    pretrained.export(folder, loaded.params, record, loaded.tokenizer, args.base)
    made = pretrained.load_pretrained(folder)
    text = card(args.name, made, summary | {"hardware": args.hardware}, facts)
    write_atomic(folder / "README.md", text)
    size = (folder / pretrained.WEIGHTS).stat().st_size
    print(f"{folder}: {size / 1e6:.2f} MB of weights")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from zoo.cli.command_line import exit_code  # after --help, which needs none of this

    return exit_code(run, args)


if __name__ == "__main__":
    sys.exit(main())
