import pytest

from utils.labels.background import BackgroundWriter


def test_an_error_while_writing_surfaces():
    def fail():
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"), BackgroundWriter() as writer:
        writer.submit(fail)
