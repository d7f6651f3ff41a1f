"""Both sides of the comparison compute the same: otherwise its ratios would mean nothing."""

import numpy as np
import pytest

from benchmarks import side_fastconv, side_torch, workloads

pytest.importorskip("torch")


@pytest.mark.parametrize("layout", side_torch.LAYOUTS)
@pytest.mark.parametrize("direction", workloads.PASSES)
@pytest.mark.parametrize("name", workloads.REPRESENTATIVE)
def test_convolutions_agree(name, direction, layout):
    ours = side_fastconv.prepare_conv(name, direction, "auto")()
    theirs = side_torch.as_numpy(side_torch.prepare_conv(name, direction, layout)())
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("layout", side_torch.LAYOUTS)
@pytest.mark.parametrize("name", workloads.MODELS)
def test_training_steps_agree(name, layout):
    """Three steps on a few images from equal weights; in terms of the first loss, as the later ones may be nearly 0."""
    ours, theirs = side_fastconv.prepare_step(name, size=4), side_torch.prepare_step(name, layout, size=4)
    expected = [theirs() for _ in range(3)]
    np.testing.assert_allclose([ours() for _ in range(3)], expected, rtol=0, atol=1e-3 * expected[0])
