import builtins

import numpy as np
import pytest

from utils.labels import crf
from utils.labels.crf import CrfConstants


def two_regions():
    """A picture of two colours whose label map has ragged borders and speckles."""
    image = np.full((40, 60, 3), (200, 60, 40), np.uint8)
    image[:, 30:] = (30, 60, 200)
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 15
    rng = np.random.default_rng(0)
    labels = truth.copy()
    labels[rng.random(labels.shape) < 0.1] = 15
    labels[:, 30:36] = 0
    return image, labels, truth


def test_the_crf_follows_the_photograph():
    pytest.importorskip("pydensecrf", reason="pydensecrf2 is an optional package")
    image, labels, truth = two_regions()
    refined = crf.refine(image, labels, CrfConstants())
    assert refined.dtype == np.uint8 and set(np.unique(refined)) <= {0, 15}
    assert (refined == truth).mean() > 0.99 > (labels == truth).mean()
    one = np.full((40, 60), 7, np.uint8)
    assert (crf.refine(image, one, CrfConstants()) == one).all()


def test_the_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pydensecrf"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(crf.InputError, match="pip install pydensecrf2"):
        crf.require_crf()
