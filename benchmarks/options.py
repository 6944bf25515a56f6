"""The options of every benchmark."""

import argparse


def parse(description: str) -> argparse.Namespace:
    """Parse `--size`, `--repeats` and `--device`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", choices=("small", "full"), default="small", help="full adds how cost grows"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: 5)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return parser.parse_args()
