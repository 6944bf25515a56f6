"""The options of the benchmarks of speed and memory."""

import argparse
from pathlib import Path

import torch

from datasets import command_line
from utils.runs import options


def new_parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser of `--size`, `--repeats`, `--device` and `--json`."""
    parser = command_line.new_parser(description)
    parser.add_argument(
        "--size",
        choices=("tiny", "small", "full"),
        default="small",
        help="full adds how cost grows; tiny only shows that everything runs",
    )
    parser.add_argument("--repeats", type=options.count, default=repeats, help="rounds that count")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the tables to this file"
    )
    return parser


def parse(description: str | None, repeats: int = 5) -> argparse.Namespace:
    """What the options of `new_parser` say."""
    return new_parser(description, repeats).parse_args()


def parse_for_operators(description: str | None) -> argparse.Namespace:
    """The options that the operators' benchmarks share; sets the number of threads."""
    parser = new_parser(description, repeats=9)
    parser.add_argument("--threads", type=options.count, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what counts")
    parser.add_argument(
        "--tables",
        choices=("times", "busy"),
        default="times",
        help="time and memory, or how long a GPU is busy",
    )
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    return given
