import numpy as np
import pytest
import torch

from utils.inference.collection_cams import Inferred
from utils.labels.cam_formats import write_irn, write_npz, write_psa


@pytest.fixture
def found():
    rng = np.random.default_rng(0)
    return Inferred(
        id="a",
        image=torch.from_numpy(rng.integers(0, 256, (3, 37, 50), dtype=np.uint8)),
        classes=np.array([2, 14]),
        cams=rng.random((2, 37, 50), np.float32),
        scores=np.zeros(20, np.float32),
        mask=None,
    )


def test_what_irn_reads(tmp_path, found):
    """As IRN's later steps open it: np.load(..., allow_pickle=True).item()."""
    write_irn(tmp_path / "a.npy", found)
    content = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert set(content) == {"keys", "cam", "high_res"}
    assert content["keys"].dtype == np.int64 and content["keys"].tolist() == [2, 14]
    assert torch.is_tensor(content["cam"]) and content["cam"].dtype == torch.float32
    assert content["cam"].shape == (2, (37 - 1) // 4 + 1, (50 - 1) // 4 + 1)
    assert content["high_res"].dtype == np.float32
    assert (content["high_res"] == found.cams).all()
    # The two lines of IRN that use them:
    keys = np.pad(content["keys"] + 1, (1, 0), mode="constant")
    cams = np.pad(content["high_res"], ((1, 0), (0, 0), (0, 0)), constant_values=0.3)
    assert keys[np.argmax(cams, axis=0)].shape == (37, 50)


def test_what_affinitynet_reads(tmp_path, found):
    write_psa(tmp_path / "a.npy", found)
    content = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    assert list(content) == [2, 14] and all(type(key) is int for key in content)
    assert content[14].dtype == np.float32 and (content[14] == found.cams[1]).all()


def test_our_own_format_needs_no_pickle(tmp_path, found):
    write_npz(tmp_path / "a.npz", found)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as content:
        assert content["cams"].dtype == np.float16 and content["classes"].tolist() == [2, 14]
