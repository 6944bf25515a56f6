"""The options of every benchmark."""

import argparse
from pathlib import Path


def new_parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser of `--size`, `--repeats`, `--device` and `--json`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size",
        choices=("tiny", "small", "full"),
        default="small",
        help="full adds how cost grows; tiny only shows that everything runs",
    )
    parser.add_argument(
        "--repeats", type=int, default=repeats, help="rounds that count (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    return parser


def parse(description: str | None) -> argparse.Namespace:
    """What the options of `new_parser` say."""
    return new_parser(description).parse_args()
