import argparse
import io
import sys

from datasets.command_line import run
from datasets.files import InputError


def test_names_that_the_terminal_cannot_show_are_escaped(monkeypatch):
    """A folder of another encoding, say: Python has its bytes as surrogates."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def command(_):
        print("na\u00efve \udcff")
        raise InputError("d\u00e9j\u00e0.jpg: no such file")

    assert run(command, argparse.Namespace(debug=False)) == 2
    assert out.buffer.getvalue() == b"na\\xefve \\udcff\n"
    assert err.buffer.getvalue() == b"error: d\\xe9j\\xe0.jpg: no such file\n"
