"""The algorithm "direct" on matrix registers, for float32 where the processor has them: see kernels.conv_amx.

Each float32 is the sum of three bfloat16, and a product the sum of six of theirs: errors of long sums are about half of float32's.
"""

import dataclasses
import functools
import itertools
import math
import os
from typing import NamedTuple

import numpy as np

from fastconv.functional.arrays import FLOAT32, zeros
from fastconv.functional.conv_tiles import PART_BYTES, Phase, input_phases, inside
from fastconv.functional.options import flag
from fastconv.kernels import conv_amx, conv_amx_weight, conv_direct, conv_direct_weight, strided
from fastconv.kernels.amx import AVAILABLE, COLUMNS, DEPTH, HALF, STEP, TALL
from fastconv.memory import empty

WORK, WEIGHT_WORK, CHANNELS, OUTPUTS, INSIDE, FILLED, SPLIT = 3 << 27, 9 << 27, 48, 600, 0.75, 0.8, 4
"""From so many floating-point operations on matrix registers gain, 2 to 30 % on the average of 500 geometries, with so many channels of
a group and outputs of a channel, and where such a share of the taps meets the image, and of a step's numbers is no padding: less work
waits for memory, and vectors leave rows of padding out. Weight gradients (1,560 geometries) gain 19 %, but not with strides, nor where
rows of the filter lie so far apart that more than SPLIT pixels of the input are split for one of the output: that is for few products."""

PANEL_BYTES, UNIT_BYTES, SUMS_BYTES = 3 << 18, 3 << 18, 3 << 18
"""Of a job's input, in thirds, and of what a job of a weight gradient reads at once, and adds to: filters that all tiles read are in L2
beside it."""

LONG, STEPS = 48, 36
"""Sums of more steps, in the phase that has fewest, are taken in slices of so many, or of one block of channels: filters of two vectors of
36 steps are 220 KB, which stay in L2 beside a panel. Sums of 32 steps would take 1.14 of the time in slices."""

FEWEST_JOBS, FEWEST_OUTPUTS, FEWEST_PIXELS = 8, 256, 128
"""Jobs are as many as this if each has so many outputs; so many pixels at once of a weight gradient: fewer change the sums often."""

_allowed = AVAILABLE and os.environ.get("FASTCONV_AMX", "1") != "0"


def set_amx(allowed):
    """Let convolutions use the matrix registers of Intel's AMX, or not, in the whole process.

    They are allowed at first where the processor has them, unless the environment has ``FASTCONV_AMX=0``; elsewhere this changes nothing.
    Each float32 is multiplied as three bfloat16. Errors are about half of those of float32 in vectors; but infinities become NaN, and
    numbers below 1e-33 lose digits, see docs/algorithms.md.

    Parameters
    ----------
    allowed : bool

    Raises
    ------
    TypeError
        When `allowed` is no bool.
    """
    global _allowed
    _allowed = flag("allowed", allowed) and AVAILABLE


def get_amx():
    """Return whether convolutions may use matrix registers (bool): False where there are none."""
    return _allowed


def takes(g, dtype, wanted):
    """Whether the algorithm "direct" computes the "forward" pass or the gradient of the "input" or the "weight" here, if it may."""
    return dtype == FLOAT32 and pays(g, wanted)


@functools.lru_cache(maxsize=4096)
def pays(g, wanted):
    """Whether matrix registers, where there are some, take less time than vectors."""
    if g.flops < WORK or min(g.IC, g.OC) // g.groups < CHANNELS or g.N * g.OH * g.OW < OUTPUTS:
        return False
    if wanted == "weight":
        filled = (c / (TALL * -(-c // TALL)) for c in (g.IC // g.groups, g.OC // g.groups))
        if g.flops < WEIGHT_WORK or math.prod(filled) < FILLED:
            return False
        if g.KH * g.KW == 1:
            return g.groups == 1 and not _padded(g)
        return g.SH * g.SW == 1 and _pixels_filled(g) >= FILLED and _pixels_split(g) <= SPLIT
    rows, columns = (g.H, g.OH, g.KH, g.SH, g.DH, g.PT), (g.W, g.OW, g.KW, g.SW, g.DW, g.PL)
    summed = (g.OC if wanted == "input" else g.IC) // g.groups
    return inside(*rows) * inside(*columns) >= INSIDE and summed >= FILLED * DEPTH * -(-summed // DEPTH)


def beats_winograd(g, wanted):
    """Whether they also take less time than Winograd's algorithm."""
    return g.SH * g.SW > 1 and pays(g, wanted)


class Plan(NamedTuple):
    """How kernels compute some phases, which give `outputs` numbers of an image for each channel: arguments of conv_direct.pack, of
    conv_amx.convolve. Packed weights are `size` numbers in thirds, and two thirds of that as they are."""

    flops: int
    outputs: int
    plain_table: np.ndarray
    blocks: tuple
    by_input: bool
    size: int
    table: np.ndarray
    offsets: np.ndarray
    channels: tuple
    window: tuple
    taps: tuple
    layout: tuple
    steps: tuple
    cut: tuple


def _plan(shape, groups, target, phases, strides, dilation, by_input):
    """The plan for images of `shape` (N, H, W, C) and outputs `target` (YH, YW, OC, YSH, YSW)."""
    (N, H, W, C), (_, YW, OC, YSH, YSW), (SH, SW), (DH, DW) = shape, target, strides, dilation
    OH, OW, PT, PL = (max(getattr(phase, name) for phase in phases) for name in ("OH", "OW", "PT", "PL"))
    KH = (max((phase.KH - 1) * DH - phase.PT for phase in phases) + PT) // DH + 1
    KW = (max((phase.KW - 1) * DW - phase.PL for phase in phases) + PL) // DW + 1
    window, taps, CG, vectors = (OH, OW, SH, SW, PT, PL), (KH, KW, DH, DW), C // groups, -(-(OC // groups) // COLUMNS)
    all_blocks = -(-CG // DEPTH)
    own_taps = [phase.KH * phase.KW for phase in phases]
    CB = _part(all_blocks, lambda blocks: blocks * max(own_taps) <= STEPS) if all_blocks * min(own_taps) > LONG else all_blocks
    images, rows, columns = _cut(N, window, taps, 3 * 4 * HALF * CB)
    Q, RC = _grid(window, taps, (H, W), rows, columns)
    span = -(-((rows - 1) * SH + (KH - 1) * DH + 1) // SH)
    after = (max(0, -(-PL // SW)) + 1) * HALF  # zeros behind the last row, which its last outputs see
    region = ((images - 1) * RC + span) * Q * HALF + after
    third = SH * SW * region + TALL * HALF  # the last tile reads beyond the last output
    plain, table, offsets, size = [], [], [], 0
    for phase in phases:
        steps, place = all_blocks * phase.KH * phase.KW, (phase.place[0] * YW + phase.place[1]) * OC
        plain.append([size // STEP * DEPTH * COLUMNS, *phase[:-1], place])
        table.append([size, steps, len(offsets), phase.OH, phase.OW, place])
        for block, kh, kw in itertools.product(range(CB), range(phase.KH), range(phase.KW)):
            i, j = kh * DH + PT - phase.PT, kw * DW + PL - phase.PL
            offsets.append(3 * block * third + (i % SH * SW + j % SW) * region + (i // SH * Q + j // SW) * HALF)
        size += groups * vectors * steps * STEP
    jobs = -(-N // images) * -(-OH // rows) * -(-OW // columns)
    return Plan(
        flops=sum(2 * N * phase.OH * phase.OW * phase.KH * phase.KW * C * OC // groups for phase in phases),
        outputs=sum(phase.OH * phase.OW for phase in phases),
        plain_table=np.array(plain, np.int64),
        blocks=(groups, vectors, all_blocks, DEPTH),
        by_input=by_input,
        size=size,
        table=np.array(table, np.int64),
        offsets=np.array(offsets, np.int64),
        channels=(groups, vectors),
        window=window,
        taps=taps,
        layout=(CB, RC, Q, region, third, after),
        steps=(YSH, YSW),
        cut=(images, rows, columns, 2 * -(-vectors // (2 * max(1, FEWEST_JOBS // jobs)))),
    )


def _grid(window, taps, size, rows, columns):
    """(Q, RC): outputs from row to row of a job, and rows from image to image, with no more between them than padding needs."""

    def apart(outputs, own, stride, taps, dilation, before, size):
        seen = (own - 1) * stride + (taps - 1) * dilation + 1
        if own == outputs:  # what lies behind one lies before the next
            inside = min(size, seen - before)
            seen = inside + max(before, seen - before - inside)
        return max(own, -(-seen // stride))

    (OH, OW, SH, SW, PT, PL), (KH, KW, DH, DW), (H, W) = window, taps, size
    return apart(OW, columns, SW, KW, DW, PL, W), apart(OH, rows, SH, KH, DH, PT, H)


def _part(size, fits):
    """The largest of even parts of `size` that fits, or 1."""
    return next(part for parts in range(1, max(1, size) + 1) for part in [-(-size // parts)] if part == 1 or fits(part))


def _cut(N, window, taps, pixel_bytes):
    """(images, rows, columns) of a job, in even parts: a panel of PANEL_BYTES at most, and outputs for FEWEST_JOBS."""
    (OH, OW, SH, SW, _, _), (KH, KW, DH, DW) = window, taps
    outputs = max(FEWEST_OUTPUTS, -(-N * OH * OW // FEWEST_JOBS))

    def fits(images, rows, columns):
        pixels = ((rows - 1) * SH + (KH - 1) * DH + 1) * ((columns - 1) * SW + (KW - 1) * DW + 1)
        return images * pixels * pixel_bytes <= PANEL_BYTES and images * rows * columns <= outputs

    columns = _part(OW, lambda columns: columns <= TALL or fits(1, 1, columns))
    rows = _part(OH, lambda rows: fits(1, rows, OW)) if columns == OW else 1
    return _part(N, lambda images: fits(images, OH, OW)) if rows == OH and columns == OW else 1, rows, columns


@functools.lru_cache(maxsize=1024)
def _flat(g):
    """A product of pixels and a matrix as a convolution of a single row; the same geometry for others."""
    if (g.KH, g.KW, g.OH, g.OW) == (1, 1, g.H, g.W) and not _padded(g):
        return dataclasses.replace(g, N=1, H=1, W=g.N * g.H * g.W, OH=1, OW=g.N * g.H * g.W)
    return g


def _padded(g):
    """Whether there is any padding."""
    return g.PT or g.PB or g.PL or g.PR


@functools.lru_cache(maxsize=1024)
def forward_plan(g):
    """The plan of the forward pass."""
    phase = Phase(g.KH, g.KW, 0, g.KW, 1, g.OH, g.OW, g.PT, g.PL, (0, 0))
    return _plan((g.N, g.H, g.W, g.IC), g.groups, (g.OH, g.OW, g.OC, 1, 1), (phase,), (g.SH, g.SW), (g.DH, g.DW), False)


@functools.lru_cache(maxsize=1024)
def input_plans(g):
    """The plans of the input gradient: one for all phases, or one for each where taps stay dilated."""
    together, dilation = input_phases(g)
    target, shape = (g.H, g.W, g.IC, g.SH, g.SW), (g.N, g.OH, g.OW, g.OC)
    return tuple(_plan(shape, g.groups, target, some, (1, 1), dilation, True) for some in together)


def _convolve(plan, x, weight, y, bias):
    """Computes what is planned of x (N, H, W, C) into y (N, YH, YW, OC)."""
    plain, packed = empty((plan.size // STEP * DEPTH * COLUMNS,), weight.dtype), empty((plan.size,), weight.dtype)
    conv_direct.pack(plain.size, weight, plain, plan.plain_table, plan.blocks, plan.by_input)
    conv_amx.split_filters(plan.size, plain.reshape(-1, DEPTH, COLUMNS), packed)
    conv_amx.convolve(plan.flops, x, packed, y, bias, plan.table, plan.offsets, plan.channels, plan.window, plan.taps, plan.layout,
                      plan.steps, *plan.cut)  # fmt: skip


def forward(g, x, weight, bias):
    """x (N, H, W, IC), weight OIHW, bias (OC,) to (N, OH, OW, OC)."""
    f = _flat(g)
    y = empty((f.N, f.OH, f.OW, f.OC), x.dtype)
    _convolve(forward_plan(f), x.reshape(f.N, f.H, f.W, f.IC), weight, y, bias)
    return y.reshape(g.N, g.OH, g.OW, g.OC)


def backward_input(g, grad_output, weight):
    """grad_output (N, OH, OW, OC), weight OIHW to (N, H, W, IC)."""
    f = _flat(g)
    plans = input_plans(f)
    all_seen = sum(plan.outputs for plan in plans) == f.H * f.W
    apart = f.KH * f.KW == 1 and not _padded(f)
    grad_input = (empty if all_seen or apart else zeros)((f.N, f.H, f.W, f.IC), grad_output.dtype)  # no window reads the others
    if apart and not all_seen:
        strided.clear_unseen(grad_input.size, grad_input, (f.OH, f.OW, f.SH, f.SW))
    grad_output, bias = grad_output.reshape(f.N, f.OH, f.OW, f.OC), np.zeros(f.IC, grad_output.dtype)
    for plan in plans:
        _convolve(plan, grad_output, weight, grad_input, bias)
    return grad_input.reshape(g.N, g.H, g.W, g.IC)


def backward_weight(g, x, grad_output):
    """x (N, H, W, IC), grad_output (N, OH, OW, OC) to OIHW."""
    f = _flat(g)
    x, grad_output = x.reshape(f.N, f.H, f.W, f.IC), grad_output.reshape(f.N, f.OH, f.OW, f.OC)
    x_apart, g_apart = (f.H * f.W * f.IC, f.W * f.IC, f.IC), (f.OH * f.OW * f.OC, f.OW * f.OC, f.OC)
    unpack = conv_amx_weight.unpack
    if f.KH * f.KW * f.groups == 1 and not _padded(f):
        x_apart = f.H * f.W * f.IC, f.SH * f.W * f.IC, f.SW * f.IC
        f = _seen(f, max(f.IC, f.OC), min(f.IC, f.OC))
        if g.OC > g.IC:  # those of fewer channels are transposed
            x, grad_output, x_apart, g_apart, unpack = grad_output, x, g_apart, x_apart, conv_direct_weight.unpack
    splits, shape, offsets, *rest = _weight_plan(f)
    parts, grad_weight = empty((splits, *shape), x.dtype), empty(g.weight_shape, x.dtype)
    size = f.N, f.H, f.W, f.IC, f.OC
    conv_amx_weight.backward_weight(g.flops, x, grad_output, parts, offsets, size, x_apart, g_apart, f.window, f.taps, *rest)
    unpack(parts.size, parts, grad_weight)
    return grad_weight


@functools.lru_cache(maxsize=1024)
def _seen(g, IC, OC):
    """A 1x1 convolution of those pixels alone that g, one with a stride, sees."""
    return dataclasses.replace(g, IC=IC, OC=OC, H=g.OH, W=g.OW, SH=1, SW=1)


@functools.lru_cache(maxsize=1024)
def _weight_plan(g):
    """Splits, the shape of each one's part, and the last arguments of conv_amx_weight.backward_weight."""
    (OH, OW, SH, SW, _, _), (KH, KW, DH, DW) = g.window, g.taps
    shape = g.groups, -(-g.IC // g.groups // COLUMNS), -(-g.OC // g.groups // TALL), KH, KW, TALL, COLUMNS
    _, vectors, CB, *_ = shape
    splits = max(1, min(FEWEST_JOBS, g.N * OH * OW // FEWEST_OUTPUTS, PART_BYTES // (4 * math.prod(shape))))
    shares = min(-(-FEWEST_JOBS // (splits * g.groups)), -(-vectors // 2))
    share, own, copies = 2 * -(-vectors // (2 * shares)), CB, min(2, KH * KW)

    def pixels():
        return UNIT_BYTES // (3 * 2 * (own * TALL + copies * SH * SW * share * COLUMNS))

    def is_too_much():  # few pixels at a time change the sums often, more sums than stay in L2 come and go for each tap
        return pixels() < FEWEST_PIXELS or (KH * KW > 1 and 4 * share * own * math.prod(shape[3:]) > SUMS_BYTES)

    while is_too_much() and max(share // 2, own) > 1:
        wider = share > 2 and (own == 1 or copies * SH * SW * share * COLUMNS >= own * TALL)
        share, own = (2 * -(-share // 4), own) if wider else (share, -(-own // 2))
    most = max(DEPTH, min(pixels(), -(-g.N * OH * OW // splits)))

    def grid(rows, columns):
        return _grid(g.window, g.taps, (g.H, g.W), rows, columns)

    columns = _part(OW, lambda columns: columns <= most)
    rows = _part(OH, lambda rows: rows * grid(rows, OW)[0] <= most) if columns == OW else 1
    Q, RC = grid(rows, columns)
    images = max(1, min(-(-g.N // splits), most // (RC * Q))) if rows == OH and columns == OW else 1
    steps = -(-(((images - 1) * RC + rows - 1) * Q + columns) // DEPTH)
    reach = (KH - 1) * DH // SH * Q + (KW - 1) * DW // SW
    region = -(-(steps * DEPTH + reach) // 2)
    layout = RC, Q, copies, region, steps
    return splits, shape, np.arange(steps) * conv_amx_weight.ROWS_STEP, layout, images, rows, columns, share, own


def _pixels_filled(g):
    """The share of the pixels in a weight gradient's steps that are no padding."""
    layout, images, rows, columns = _weight_plan(g)[3:7]
    units = -(-g.N // images) * -(-g.OH // rows) * -(-g.OW // columns)
    return g.N * g.OH * g.OW / (units * layout[-1] * DEPTH)


def _pixels_split(g):
    """Pixels of the input that are split for each of a weight gradient's steps, in terms of a step's."""
    *_, region, steps = _weight_plan(g)[3]
    return 2 * region / (steps * DEPTH)
