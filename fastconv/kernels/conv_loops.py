"""Convolution as the textbook writes it: the loops are the formulas. The lesson, the fallback and the yardstick of the others.

As everywhere in deep learning, "convolution" means cross-correlation: the filter is not flipped. Arrays are (N, H, W, C) and
weights (OC, C/groups, KH, KW); `window` = (SH, SW, DH, DW, PT, PL).
"""

from numba import prange

from fastconv.kernels.jit import kernel


@kernel
def forward(x, weight, bias, y, window, groups):
    """Reads x (N, H, W, C), weight, bias (OC,); writes y (N, OH, OW, OC). Parallel over images and output rows.

    y[n, oh, ow, oc] = bias[oc] + sum over kh, kw, ic of x[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL, ic] * weight[oc, ic, kh, kw]
    """
    N, H, W, C = x.shape
    _, OH, OW, OC = y.shape
    _, CG, KH, KW = weight.shape
    SH, SW, DH, DW, PT, PL = window
    for job in prange(N * OH):
        n, oh = job // OH, job % OH
        for ow in range(OW):
            for oc in range(OC):
                total = bias[oc]
                c0 = oc // (OC // groups) * CG
                for kh in range(KH):
                    ih = oh * SH + kh * DH - PT
                    for kw in range(KW):
                        iw = ow * SW + kw * DW - PL
                        if 0 <= ih < H and 0 <= iw < W:
                            for ic in range(CG):
                                total += x[n, ih, iw, c0 + ic] * weight[oc, ic, kh, kw]
                y[n, oh, ow, oc] = total


@kernel
def backward_input(grad_output, weight, grad_input, window, groups):
    """Reads grad_output (N, OH, OW, OC) and weight; writes grad_input (N, H, W, C). Parallel over images and input rows.

    Every output that an input element took part in gives back its gradient times the weight between them: the full convolution
    with the filter rotated by 180 degrees. Gathered, so that each job owns the rows it writes.
    """
    N, H, W, C = grad_input.shape
    _, OH, OW, OC = grad_output.shape
    _, CG, KH, KW = weight.shape
    SH, SW, DH, DW, PT, PL = window
    OCG = OC // groups
    for job in prange(N * H):
        n, ih = job // H, job % H
        for iw in range(W):
            for c in range(C):
                total = grad_output.dtype.type(0)
                oc0, ic = c // CG * OCG, c % CG
                for kh in range(KH):
                    top = ih + PT - kh * DH
                    for kw in range(KW):
                        left = iw + PL - kw * DW
                        if top % SH == 0 and left % SW == 0 and 0 <= top < OH * SH and 0 <= left < OW * SW:
                            for oc in range(oc0, oc0 + OCG):
                                total += grad_output[n, top // SH, left // SW, oc] * weight[oc, ic, kh, kw]
                grad_input[n, ih, iw, c] = total


@kernel
def backward_weight(x, grad_output, grad_weight, window, groups):
    """Reads x (N, H, W, C) and grad_output (N, OH, OW, OC); writes grad_weight (OC, C/groups, KH, KW). Parallel over OC and C/groups.

    A weight took part in every output pixel: grad_weight[oc, ic, kh, kw] is the sum over n, oh, ow of
    grad_output[n, oh, ow, oc] * x[n, oh*SH + kh*DH - PT, ow*SW + kw*DW - PL, ic], the convolution of x with grad_output.
    """
    N, H, W, C = x.shape
    _, OH, OW, OC = grad_output.shape
    _, CG, KH, KW = grad_weight.shape
    SH, SW, DH, DW, PT, PL = window
    for job in prange(OC * CG):
        oc, ic = job // CG, job % CG
        c = oc // (OC // groups) * CG + ic
        for kh in range(KH):
            for kw in range(KW):
                total = x.dtype.type(0)
                for n in range(N):
                    for oh in range(OH):
                        ih = oh * SH + kh * DH - PT
                        for ow in range(OW):
                            iw = ow * SW + kw * DW - PL
                            if 0 <= ih < H and 0 <= iw < W:
                                total += grad_output[n, oh, ow, oc] * x[n, ih, iw, c]
                grad_weight[oc, ic, kh, kw] = total
