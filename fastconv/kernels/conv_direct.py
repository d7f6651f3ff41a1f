"""Direct convolution on the register tile, channels-last memory.

A tile is some neighbouring output pixels of one row times two vectors of output channels; its sum runs over KH rows of KW * IC
contiguous numbers of the input. Rows above and below the image are left out of the sum; only columns left and right of it are
made real, in a scratch panel of padded rows (a copy of 1 to 3 % of the time, where tiles of border pixels alone cost 14 %).
"""

import numpy as np
from numba import prange

from fastconv.kernels.dense import tiles
from fastconv.kernels.jit import device, kernel
from fastconv.kernels.simd import VECTOR_BYTES


@kernel
def pack(weight, packed, first, kh_step, kw_step, j_stride, r_stride, group_stride, J):
    """Reads weight, writes packed (groups, ceil(J / lanes), TH, TW, R, lanes): J vectorised channels, R summed ones, zeros in the tail.

    Element (group, j, th, tw, r) comes from weight[first + group*group_stride + j*j_stride + th*kh_step + tw*kw_step + r*r_stride].
    Parallel over groups and vectors.
    """
    groups, vectors, TH, TW, R, lanes = packed.shape
    w, p = weight.ravel(), packed.ravel()
    for job in prange(groups * vectors):
        j0 = job % vectors * lanes
        source = first + job // vectors * group_stride + j0 * j_stride
        cols = min(lanes, J - j0)
        for r in range(R):
            for th in range(TH):
                for tw in range(TW):
                    target = (((job * TH + th) * TW + tw) * R + r) * lanes
                    tap = source + th * kh_step + tw * kw_step + r * r_stride
                    for lane in range(cols):
                        p[target + lane] = w[tap + lane * j_stride]
                    for lane in range(cols, lanes):
                        p[target + lane] = 0


@device
def fill_panel(panel, p, x, n, ih0, ih1, H, W, C, left, width):
    """Rows ih0 .. ih1 of image n of x (N, H, W, C), `left` zero columns before them (a negative number cuts columns off), at panel[p]."""
    first, last = max(0, -left), min(W, width - left)  # columns of x that land in the panel
    for ih in range(ih0, ih1):
        row = p + (ih - ih0) * width * C
        for j in range(min(width, max(0, left)) * C):
            panel[row + j] = 0
        source, target = ((n * H + ih) * W + first) * C, row + (first + left) * C
        for j in range(max(0, last - first) * C):
            panel[target + j] = x[source + j]
        for j in range(max(0, last + left) * C, width * C):
            panel[row + j] = 0


@device
def clip(start, step, count, size):
    """The part [low, high) of 0 <= i < count with 0 <= start + i*step < size."""
    low = 0 if start >= 0 else min(count, (-start + step - 1) // step)
    high = 0 if start >= size else min(count, (size - 1 - start) // step + 1)
    return low, max(low, high)


@kernel
def convolve(X, weight, Y, bias, window, taps, place, groups, images, rows):
    """Reads X (N, H, W, C), weight (groups, vectors, KH, KW, C/groups, lanes), bias; writes pixels of Y (N, YH, YW, OC).

    Y[n, oh*YSH + Y0, ow*YSW + Y1] = bias + sum of X[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL] * weight over taps inside the image.
    `window` = (OH, OW, SH, SW, PT, PL), `taps` = (KH, KW, DH, DW), `place` = (YSH, YSW, Y0, Y1).
    Parallel over blocks of `images` images and `rows` output rows.
    """
    N, H, W, C = X.shape
    YH, YW, OC = Y.shape[1:]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    YSH, YSW, Y0, Y1 = place
    x, w, y, b = X.ravel(), weight.ravel(), Y.ravel(), bias.ravel()
    vectors, lanes = weight.shape[1], weight.shape[5]
    CG, OCG = C // groups, OC // groups
    padded = PL > 0 or (OW - 1) * SW + (KW - 1) * DW - PL >= W
    width = (OW - 1) * SW + (KW - 1) * DW + 1 if padded else W
    left, in_row = (0 if padded else -PL), width * C
    height = min(H, (rows - 1) * SH + (KH - 1) * DH + 1)
    # neighbouring taps of all channels are one run of memory: one long sum instead of KW short ones
    run, T = (KW * C, 1) if DW == 1 and groups == 1 else (CG, KW)
    row_blocks = (OH + rows - 1) // rows
    for job in prange((N + images - 1) // images * row_blocks):
        n0, oh0 = job // row_blocks * images, job % row_blocks * rows
        n1, oh1 = min(N, n0 + images), min(OH, oh0 + rows)
        ih0 = min(H, max(0, oh0 * SH - PT))
        ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
        panel = np.empty(images * height * in_row if padded else 0, x.dtype)
        if padded:
            for n in range(n0, n1):
                fill_panel(panel, (n - n0) * height * in_row, x, n, ih0, ih1, H, W, C, PL, width)
        source = panel if padded else x
        for group in range(groups):
            for v in range(0, vectors, 2):
                wide, cols = min(2, vectors - v), min(2 * lanes, OCG - v * lanes)
                w0 = (group * vectors + v) * KH * KW * CG * lanes
                for n in range(n0, n1):
                    image = (n - n0) * height * in_row if padded else (n * H + ih0) * in_row
                    for oh in range(oh0, oh1):
                        top = oh * SH - PT
                        low, high = clip(top, DH, KH, H)
                        a = image + (top + low * DH - ih0) * in_row + left * C + group * CG
                        c = ((n * YH + oh * YSH + Y0) * YW + Y1) * OC + group * OCG + v * lanes
                        over = (high - low, DH * in_row, KW * CG * lanes, T, DW * C, CG * lanes, run, 1, lanes)
                        tiles(OW, source, a, SW * C, w, w0 + low * KW * CG * lanes, KH * KW * CG * lanes, y, c, YSW * OC, lanes, wide, cols,
                              b, group * OCG + v * lanes, 0, over)


@kernel
def backward_weight(X, G, parts, window, taps, groups, images, rows):
    """Reads X (N, H, W, C) and the output's gradient G (N, OH, OW, OC); writes parts (splits, groups, vectors, KH, KW, C/groups, lanes).

    The sum of parts over splits is the packed gradient of the weight. `window` and `taps` as in `convolve`. Parallel over splits
    of the batch, groups and pairs of vectors, each with its own copy of the rows that it reads.
    """
    N, H, W, C = X.shape
    OC = G.shape[3]
    OH, OW, SH, SW, PT, PL = window
    KH, KW, DH, DW = taps
    x, g, d = X.ravel(), G.ravel(), parts.ravel()
    splits, vectors, lanes = parts.shape[0], parts.shape[2], parts.shape[6]
    CG, OCG, pairs = C // groups, OC // groups, (vectors + 1) // 2
    padded = PL > 0 or (OW - 1) * SW + (KW - 1) * DW - PL >= W
    width = (OW - 1) * SW + (KW - 1) * DW + 1 if padded else W
    left, in_row = (0 if padded else -PL), width * C
    height = min(H, (rows - 1) * SH + (KH - 1) * DH + 1)
    M, T = (KW * C, 1) if DW == 1 and groups == 1 else (CG, KW)
    size = KH * KW * CG * lanes  # of one vector's gradient
    for job in prange(splits * groups * pairs):
        s, group, v = job // (groups * pairs), job // pairs % groups, job % pairs * 2
        wide = min(2, vectors - v)
        d0 = ((s * groups + group) * vectors + v) * size
        panel = np.empty(images * height * in_row if padded else 0, x.dtype)
        packed = np.empty(wide * images * rows * OW * lanes, x.dtype)
        for e in range(d0, d0 + wide * size):
            d[e] = 0
        blocks = (N + images - 1) // images
        for block in range(s * blocks // splits, (s + 1) * blocks // splits):
            n0, n1 = block * images, min(N, (block + 1) * images)
            for oh0 in range(0, OH, rows):
                oh1 = min(OH, oh0 + rows)
                ih0 = min(H, max(0, oh0 * SH - PT))
                ih1 = max(ih0, min(H, (oh1 - 1) * SH + (KH - 1) * DH - PT + 1))
                if padded:
                    for n in range(n0, n1):
                        fill_panel(panel, (n - n0) * height * in_row, x, n, ih0, ih1, H, W, C, PL, width)
                source = panel if padded else x
                image = 0 if padded else (n0 * H + ih0) * in_row
                pack_gradient(packed, g, n0, n1, oh0, oh1, OH, OW, OC, group * OCG + v * lanes, min(wide * lanes, OCG - v * lanes), wide, lanes)
                pixels = (oh1 - oh0) * OW
                for kh in range(KH):
                    top = oh0 * SH + kh * DH - PT
                    low, high = clip(top, SH, oh1 - oh0, H)
                    for kw in range(T):
                        a = image + (top + low * SH - ih0) * in_row + (left + kw * DW) * C + group * CG
                        over = (n1 - n0, (height if padded else H) * in_row, pixels * lanes, high - low, SH * in_row, OW * lanes, OW, SW * C, lanes)
                        tiles(M, source, a, 1, packed, low * OW * lanes, (n1 - n0) * pixels * lanes, d, d0 + (kh * KW + kw) * CG * lanes, lanes,
                              size, wide, wide * lanes, packed, 0, 1, over)


@device
def pack_gradient(packed, g, n0, n1, oh0, oh1, OH, OW, OC, c0, cols, wide, lanes):
    """Channels c0 .. c0 + cols of rows oh0 .. oh1 of images n0 .. n1 into packed (wide, images, rows, OW, lanes), zeros in the tail."""
    q = 0
    size = (n1 - n0) * (oh1 - oh0) * OW * lanes
    for n in range(n0, n1):
        first = ((n * OH + oh0) * OW) * OC + c0
        for pixel in range((oh1 - oh0) * OW):
            source = first + pixel * OC
            for v in range(wide):
                for lane in range(min(lanes, cols - v * lanes)):
                    packed[v * size + q + lane] = g[source + v * lanes + lane]
                for lane in range(min(lanes, cols - v * lanes), lanes):
                    packed[v * size + q + lane] = 0
            q += lanes


@kernel
def unpack(parts, grad_weight):
    """Reads parts (splits, groups, vectors, KH, KW, R, lanes), writes their ordered sum as grad_weight (OC, R, KH, KW).

    Parallel over groups and vectors.
    """
    splits, groups, vectors, KH, KW, R, lanes = parts.shape
    OCG = grad_weight.shape[0] // groups
    p, d = parts.ravel(), grad_weight.ravel()
    size = groups * vectors * KH * KW * R * lanes
    for job in prange(groups * vectors):
        group, first = job // vectors, job % vectors * lanes
        base = job * KH * KW * R * lanes
        for s in range(1, splits):
            for i in range(base, base + KH * KW * R * lanes):
                p[i] += p[s * size + i]
        for lane in range(min(lanes, OCG - first)):
            target = (group * OCG + first + lane) * R * KH * KW
            for r in range(R):
                for tap in range(KH * KW):
                    d[target + r * KH * KW + tap] = p[base + (tap * R + r) * lanes + lane]
