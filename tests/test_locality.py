"""One pixel is changed: what follows it, with the sums over the image free and held."""

import numpy as np

from udnet.experiments import locality


def test_with_the_sums_held_a_change_stays_within_the_reach_of_the_convolutions(tmp_path, monkeypatch):
    found = locality.changes("seeded")
    assert (found.free > 0).mean() > 0.99, "with the sums free everything moves"
    # Two convolutions each at full, half, quarter and eighth size going down, the blocks at an eighth two each, going
    # up two each and the upsampling's neighbour; the pooling's grid decides the last few pixels.
    reach = locality.reach(found.held)
    assert max(reach) - min(reach) <= 8
    farthest = 2 + 2 * 2 + 4 * 2 + 8 * (2 + 2) + 8 + 4 * 2 + 4 + 2 * 2 + 2 + 2 + 4
    assert max(reach) <= farthest
    assert found.held[locality.AT] > 1e-3
    monkeypatch.setattr(locality, "changes", lambda weights: found)
    kept = locality.run(tmp_path)
    assert locality.reach(kept.held) <= reach
    np.testing.assert_allclose(kept.held, found.held, rtol=1e-3, atol=1e-7)
    assert kept.weights == found.weights
