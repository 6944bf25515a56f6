import pytest

from tests.every_script import run_every_script

pytestmark = pytest.mark.gpu


def test_every_script(tmp_path, device):
    run_every_script(tmp_path, device)
