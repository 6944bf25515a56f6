import torch

from networks.crops import inside


def test_inside():
    boxes = torch.tensor([[1, 2, 4, 6], [0, 0, 5, 7]])
    mask = inside(boxes, 5, 7)
    expected = torch.zeros(2, 1, 5, 7, dtype=torch.bool)
    expected[0, 0, 1:4, 2:6] = True
    expected[1] = True
    assert (mask == expected).all()
    assert (inside(boxes, 5, 7, step=3) == expected[..., ::3, ::3]).all()
