"""Depthwise convolution, one filter a channel: channels are the vector. Arrays (N, H, W, C), weights (KH, KW, C).

`window` = (SH, SW, DH, DW, PT, PL).
"""

from numba import prange

from fastconv.kernels.jit import kernel


@kernel
def forward(x4, weight, bias, y4, window):
    """Reads x (N, H, W, C), weight (KH, KW, C), bias (C,); writes y (N, OH, OW, C). Parallel over images and output rows."""
    N, H, W, C = x4.shape
    _, OH, OW, _ = y4.shape
    KH, KW, _ = weight.shape
    SH, SW, DH, DW, PT, PL = window
    x, w, y = x4.ravel(), weight.ravel(), y4.ravel()
    for job in prange(N * OH):
        n, oh = job // OH, job % OH
        for ow in range(OW):
            out = (job * OW + ow) * C
            for c in range(C):
                y[out + c] = bias[c]
            for kh in range(KH):
                ih = oh * SH + kh * DH - PT
                if 0 <= ih < H:
                    for kw in range(KW):
                        iw = ow * SW + kw * DW - PL
                        if 0 <= iw < W:
                            pixel, tap = ((n * H + ih) * W + iw) * C, (kh * KW + kw) * C
                            for c in range(C):
                                y[out + c] += x[pixel + c] * w[tap + c]


@kernel
def backward_input(g4, weight, d4, window):
    """Reads grad_output g (N, OH, OW, C) and weight (KH, KW, C); writes grad_input d (N, H, W, C). Parallel over images and input rows."""
    N, H, W, C = d4.shape
    _, OH, OW, _ = g4.shape
    KH, KW, _ = weight.shape
    SH, SW, DH, DW, PT, PL = window
    g, w, d = g4.ravel(), weight.ravel(), d4.ravel()
    for job in prange(N * H):
        n, ih = job // H, job % H
        for iw in range(W):
            out = (job * W + iw) * C
            for c in range(C):
                d[out + c] = 0
            for kh in range(KH):
                top = ih + PT - kh * DH
                if top % SH == 0 and 0 <= top < OH * SH:
                    for kw in range(KW):
                        left = iw + PL - kw * DW
                        if left % SW == 0 and 0 <= left < OW * SW:
                            pixel, tap = ((n * OH + top // SH) * OW + left // SW) * C, (kh * KW + kw) * C
                            for c in range(C):
                                d[out + c] += g[pixel + c] * w[tap + c]


@kernel
def backward_weight(x4, g4, parts, window):
    """Reads x (N, H, W, C) and grad_output g (N, OH, OW, C); writes parts (splits, KH, KW, C), to be summed over splits of the batch.

    Parallel over splits.
    """
    N, H, W, C = x4.shape
    _, OH, OW, _ = g4.shape
    splits, KH, KW, _ = parts.shape
    SH, SW, DH, DW, PT, PL = window
    x, g, d = x4.ravel(), g4.ravel(), parts.ravel()
    for s in prange(splits):
        for i in range(s * KH * KW * C, (s + 1) * KH * KW * C):
            d[i] = 0
        for row in range(s * N * OH // splits, (s + 1) * N * OH // splits):
            n, oh = row // OH, row % OH
            for kh in range(KH):
                ih = oh * SH + kh * DH - PT
                if 0 <= ih < H:
                    for ow in range(OW):
                        for kw in range(KW):
                            iw = ow * SW + kw * DW - PL
                            if 0 <= iw < W:
                                pixel, out, tap = ((n * H + ih) * W + iw) * C, (row * OW + ow) * C, ((s * KH + kh) * KW + kw) * C
                                for c in range(C):
                                    d[tap + c] += x[pixel + c] * g[out + c]
