"""The weight gradient of few channels, a vector being the same number of as many images as it has lanes; see conv_lanes.

Of one tap of the filter and one input channel, a tile is the gradients of all output channels; a lane has the sums of its own images,
which are added up last.
"""

import numpy as np
from numba import prange

from fastconv.kernels.apart import apart
from fastconv.kernels.conv_lanes import fill_lanes, share
from fastconv.kernels.jit import kernel
from fastconv.kernels.panel import clip
from fastconv.kernels.scratch import scratch
from fastconv.kernels.tiles import tiles_elementwise
from fastconv.kernels.vector import lanes, sum_lanes
from fastconv.kernels.vector_memory import flat, load, zero


@apart
def _split(s, X, G, parts, window, taps, rows):
    """Split `s` of `backward_weight`."""
    (N, H, W, C), OC = X.shape, G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, _ = taps
    x, g, d, L = flat(X), flat(G), flat(parts), lanes(X)
    splits, width = parts.shape[0], (OW - 1) * SW + KW
    units, height = (N + L - 1) // L * ((OH + rows - 1) // rows), min(H, (rows - 1) * SH + (KH - 1) * DH + 1)
    panel, gradients = scratch(height * width * C * L, x.dtype), scratch(rows * OW * OC * L, x.dtype)
    count = KH * KW * C * OC
    sums = scratch(count * L, x.dtype)  # (tap, input channel, output channel, lane)
    zero(sums, 0, count * L)
    for unit in range(s * units // splits, (s + 1) * units // splits):
        n0, images, oh0, oh1, ih0, ih1 = share(unit, N, H, L, window, taps, rows)
        fill_lanes(x, n0, images, ih0, ih1 - ih0, H, W, C, 0, C, panel, PL, width)
        fill_lanes(g, n0, images, oh0, oh1 - oh0, OH, OW, OC, 0, OC, gradients, 0, OW)
        for kh in range(KH):
            top = oh0 * SH + kh * DH - PT
            low, high = clip(top, SH, oh1 - oh0, H)
            over = (high - low, OW * OC * L, SH * width * C * L, OW, OC * L, SW * C * L)
            row = (top + low * SH - ih0) * width * C * L
            for i in range(KW * C):  # the numbers under a row of the filter
                tiles_elementwise(OC, gradients, low * OW * OC * L, L, panel, row + i * L, sums, (kh * KW * C + i) * OC * L, L, L,
                                  sums, 0, 1, over)
    for i in range(KH * KW * C):
        for oc in range(OC):
            d[(s * OC + oc) * KH * KW * C + i] = sum_lanes(load(sums, (i * OC + oc) * L, L))


@kernel
def backward_weight(X, G, parts, window, taps, rows):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts (splits, OC, KH, KW * C), to be summed over splits.
    Parallel over splits of the vectors of images and blocks of `rows` output rows."""
    for s in prange(parts.shape[0]):
        _split(np.int64(s), X, G, parts, window, taps, rows)
