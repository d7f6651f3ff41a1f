"""Dense convolutions on the register tile: which kernel computes them, cut into which jobs, from weights packed in which order.

What is computed is a list of phases. The forward pass is one of them; the input gradient of a strided convolution has one for each
remainder of its strides, and all of them are computed from the same copy of the output's gradient.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from fastconv.functional import conv_lanes
from fastconv.functional.linear import PARTS
from fastconv.functional.phases import phases
from fastconv.kernels import conv_direct, conv_images, row_tile
from fastconv.kernels.panel import clip
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.kernels.simd import MAX_ROWS
from fastconv.memory import empty

PIXELS, PANEL_BYTES = 256, 1 << 18
"""A job takes so many output pixels, that weights are read from L2 often enough, and a panel of input rows that leaves room for them."""

WHOLE_BYTES = 1 << 15
"""Images up to this size are not cut where there are many: the rows between two parts would be copied twice."""

FEWEST_JOBS = 8
"""Where blocks of pixels are fewer jobs than this they share out the output's channels too, though each copies its panel."""

IMAGE_JOBS = 4
"""Where tiles lie across images there must be so many jobs."""

LOW_TILES = MAX_ROWS <= 8
"""Whether tiles are low, as they are where registers are 16."""

SMALL_PIXELS = 256
"""Pixels of the output up to which a tile may take one pixel of several images."""

ALONG_GAINS = 1 / 16
"""Products with padding, in terms of all others, that tiles along rows make up for: their images' numbers lie together, and phases share a
copy."""

ROW_GAINS = 1 / 5
"""The same of tiles of kernels.row_tile with stride 1."""

BUSY_ROWS = 4
"""Rows of the lowest tile whose sums, two vectors wide, keep a processor busy that begins two multiply-adds a cycle and ends them four
cycles later."""

IMAGES, IMAGES_BYTES, OUTPUT_BYTES = 16, 1 << 20, 1 << 18
"""A job takes so many images, or half as many where these would take more bytes; and outputs that stay in L2 if it adds to them."""

BLOCK_BYTES = 2048 if LOW_TILES else 512
"""Channels of a panel's block: a long one is copied as memory lies and its sums lose less at their ends, but the pixels of a tall tile
share lines of the cache.

AVX2 gains 5 to 20 % against blocks of 128 bytes, and these gained 3 to 8 % against one vector; AVX-512 gains 2 % against blocks of 256
bytes, 4 with strides, and these gained 2 to 10 % against one vector.
"""


PART_BYTES = 1 << 23
"""All private copies of a weight's gradient together."""

JOB_FLOPS = 1 << 24
"""Floating-point operations of a weight gradient's job, at least, where the work is more than two of them."""


class Phase(NamedTuple):
    """One convolution, whose tap (kh, kw) is number first + kh*kh_step + kw*kw_step of the weight's; `place` is (row, column) of its first
    output."""

    KH: int
    KW: int
    first: int
    kh_step: int
    kw_step: int
    OH: int
    OW: int
    PT: int
    PL: int
    place: tuple


class Plan(NamedTuple):
    """How kernels compute some phases, which give `outputs` numbers of an image for each channel.

    Arguments are those of kernels.conv_direct.convolve; packed weights of `shapes` are `size` numbers. Where conv_images computes the
    phases, `across` has its arguments for each of them. `row_taps` are the lengths of rows of taps whose tiles are those of row_tile, and
    `codes` has the addresses of its code.
    """

    flops: int
    outputs: int
    size: int
    shapes: tuple
    table: np.ndarray
    channels: tuple
    by_input: bool
    window: tuple
    taps: tuple
    codes: np.ndarray
    row_taps: tuple
    steps: tuple
    cut: tuple
    across: tuple


def columns_of_job(OW):
    """Output columns of a job: even parts of long rows."""
    return OW if OW <= 2 * PIXELS else -(-OW // -(-OW // PIXELS))


@functools.lru_cache(maxsize=4096)
def blocks_of_job(N, H, C, window, taps, itemsize):
    """(images, rows, columns at most) of a job: about PIXELS output pixels, in even parts; a whole image where it is small and there are
    many."""
    (OH, OW, _, SW, _, _), (_, KW, _, DW) = window, taps
    held = C * itemsize if DW == 1 else min(C * itemsize, BLOCK_BYTES)
    columns = columns_of_job(OW)
    row_bytes = ((columns - 1) * SW + (KW - 1) * DW + 1) * held

    def panel_bytes(rows):
        return conv_direct.panel_rows.py_func(H, rows, window, taps)[0] * row_bytes

    if OH * OW <= PIXELS // 2 or (N >= PARTS and columns == OW and panel_bytes(OH) <= WHOLE_BYTES):
        return max(1, min(PIXELS // (OH * OW), N // PARTS, PANEL_BYTES // panel_bytes(OH))), OH, OW
    rows = min(OH, -(-PIXELS // columns))
    while rows > 1 and panel_bytes(rows) > PANEL_BYTES:
        rows -= 1
    return 1, -(-OH // -(-OH // rows)), columns


def _share(N, OH, OW, cut, vectors):
    """Vectors of a job, an even number."""
    images, rows, columns = cut
    blocks = -(-N // images) * -(-OH // rows) * -(-OW // columns)
    return 2 * -(-vectors // (2 * max(1, FEWEST_JOBS // max(1, blocks))))


def inside(size, outputs, taps, stride, dilation, padding):
    """The share of the taps of `outputs` along an axis that meet the image's `size`."""
    met = 0
    for o in range(outputs):
        low, high = clip.py_func(o * stride - padding, dilation, taps, size)
        met += high - low
    return met / (outputs * taps)


def _rows_lose(phases, W, SW, by_rows):
    """Whether tiles along rows take longer: they multiply columns beyond the image's W, and are low where rows are short; `by_rows` if they
    can be kernels.row_tile's with stride 1."""
    along = across = 0.0
    for phase in phases:
        columns, taps = max(phase.OW, BUSY_ROWS * -(-phase.OW // MAX_ROWS)), phase.OH * phase.KH * phase.KW
        along += taps * columns
        across += taps * phase.OW * inside(W, phase.OW, phase.KW, SW, 1, phase.PL)
    return along > (1 + (ROW_GAINS if by_rows else ALONG_GAINS)) * across


def enough_images(N, pairs):
    """Whether blocks of N images are jobs enough. They may share out `pairs` of vectors too. By rows there are more jobs, and 2 jobs leave
    most processors idle."""
    return N >= IMAGES // 2 and -(-N // (IMAGES // 2)) * pairs >= IMAGE_JOBS


def _by_images(shape, phases, SW, taps, pairs, by_rows, itemsize):
    """Whether a convolution of images of `shape` (N, H, W, C) should take its tiles across them."""
    (N, H, W, C), (KH, KW, _, DW) = shape, taps
    small = max(phase.OH * phase.OW for phase in phases) <= SMALL_PIXELS and IMAGES // 2 * H * W * C * itemsize <= IMAGES_BYTES
    return small and KH * KW > 1 and DW == 1 and enough_images(N, pairs) and _rows_lose(phases, W, SW, by_rows)


def images_of_job(N, image_bytes, pairs):
    """How many images a job takes, of which it holds `image_bytes` each."""
    return IMAGES if IMAGES * image_bytes <= IMAGES_BYTES and -(-N // IMAGES) * pairs >= IMAGE_JOBS else IMAGES // 2


def _image_cut(shape, packed_shape, OH, OW, itemsize):
    """(images, share, own) of kernels.conv_images.convolve for an input of `shape` (N, H, W, C)."""
    N, H, W, C = shape
    _, vectors, CB, _, _, BC, lanes = packed_shape
    images = images_of_job(N, H * W * C * itemsize, -(-vectors // 2))
    own = max(1, min(CB, IMAGES_BYTES // (images * H * W * BC * itemsize)))
    shares = max(1, PARTS // -(-N // images))
    if own < CB:
        shares = max(shares, min(N, images) * OH * OW * vectors * lanes * itemsize // OUTPUT_BYTES)
    return images, 2 * -(-vectors // (2 * shares)), own


def packed_channels(groups, vectorised, summed, itemsize, block_bytes):
    """(groups, vectors, CB, BC): channels of a group as vectors, and as CB even blocks of BC that fit into block_bytes."""
    CB = -(-summed * itemsize // block_bytes)
    return groups, -(-vectorised * itemsize // VECTOR_BYTES), CB, -(-summed // CB)


def _plan(shape, groups, target, phases, strides, dilation, by_input, itemsize, by_rows=True):
    """The plan for images of `shape` (N, H, W, C) and outputs `target` (YH, YW, OC, YSH, YSW), with tiles of
    kernels.row_tile only if `by_rows`."""
    (N, H, _, C), (_, YW, OC, YSH, YSW), lanes = shape, target, VECTOR_BYTES // itemsize
    OH, OW, PT, PL = (max(getattr(phase, name) for phase in phases) for name in ("OH", "OW", "PT", "PL"))
    KH, KW = (
        max((getattr(phase, size) - 1) * step - getattr(phase, before) for phase in phases) + most
        for size, before, step, most in (("KH", "PT", dilation[0], PT), ("KW", "PL", dilation[1], PL))
    )
    window, taps = (OH, OW, *strides, PT, PL), (KH // dilation[0] + 1, KW // dilation[1] + 1, *dilation)
    pairs = -(-(OC // groups) // (2 * lanes))
    suited = [row_tile.suits_rows.py_func(phase.KW, phase.OW, strides[1], dilation[1]) for phase in phases]
    taps_of_rows = {phase.KW for phase, suits in zip(phases, suited, strict=True) if suits}
    across = _by_images(shape, phases, strides[1], taps, pairs, by_rows and all(suited) and strides[1] == 1, itemsize)
    row_taps = tuple(taps_of_rows) if by_rows and not across else ()
    channels = packed_channels(groups, OC // groups, C // groups, itemsize, BLOCK_BYTES)
    _, vectors, CB, BC = channels
    cut = blocks_of_job(N, H, C, window, taps, itemsize)
    shapes = tuple((groups, vectors, CB, phase.KH, phase.KW, BC, lanes) for phase in phases)
    starts = [0, *itertools.accumulate(map(math.prod, shapes))]
    table = [[start, *phase[:-1], (phase.place[0] * YW + phase.place[1]) * OC] for start, phase in zip(starts[:-1], phases, strict=True)]

    def arguments(phase, packed_shape):
        window, taps = (phase.OH, phase.OW, *strides, phase.PT, phase.PL), (phase.KH, phase.KW, *dilation)
        return window, taps, (YSH, YSW, *phase.place), *_image_cut(shape, packed_shape, phase.OH, phase.OW, itemsize)

    return Plan(
        flops=sum(2 * N * phase.OH * phase.OW * phase.KH * phase.KW * C * OC // groups for phase in phases),
        outputs=sum(phase.OH * phase.OW for phase in phases),
        size=starts[-1],
        shapes=shapes,
        table=np.array(table, np.int64),
        channels=channels,
        by_input=by_input,
        window=window,
        taps=taps,
        codes=row_tile.CODES.addresses[itemsize] if row_taps else row_tile.NO_CODES,
        row_taps=row_taps,
        steps=(YSH, YSW),
        cut=(*cut, _share(N, OH, OW, cut, vectors)),
        across=tuple(map(arguments, phases, shapes)) if across else (),
    )


@functools.lru_cache(maxsize=1024)
def forward_plan(g, itemsize):
    """The plan of the forward pass. Its sums run in the order of those of the pass with ReLU and maxima."""
    phase = Phase(g.KH, g.KW, 0, g.KW, 1, g.OH, g.OW, g.PT, g.PL, (0, 0))
    target, shape = (g.OH, g.OW, g.OC, 1, 1), (g.N, g.H, g.W, g.IC)
    by_rows = g.IC == 1 or not (conv_lanes.fits_relu_max(g, itemsize) or conv_lanes.fits_forward(g, itemsize))
    return _plan(shape, g.groups, target, (phase,), (g.SH, g.SW), (g.DH, g.DW), False, itemsize, by_rows)


def input_phases(g):
    """(those phases of the input gradient that are computed together, for all of these; their dilation). They may leave out inputs that no
    window reads."""
    rows, columns = phases(g.H, g.KH, g.SH, g.DH, g.PT), phases(g.W, g.KW, g.SW, g.DW, g.PL)
    own = [
        Phase(row.taps, column.taps, row.last * g.KW + column.last, -row.step * g.KW, -column.step,
              row.count, column.count, row.padding, column.padding, (row.first, column.first))
        for row, column in itertools.product(rows, columns)
        if row.taps and column.taps
    ]  # fmt: skip
    dilation = rows[0].dilation, columns[0].dilation
    return ([own] if own and dilation == (1, 1) else [[phase] for phase in own]), dilation


@functools.lru_cache(maxsize=1024)
def input_plans(g, itemsize):
    """The plans of the input gradient: one for all phases, or one for each where taps stay dilated."""
    together, dilation = input_phases(g)
    target, shape = (g.H, g.W, g.IC, g.SH, g.SW), (g.N, g.OH, g.OW, g.OC)
    return tuple(_plan(shape, g.groups, target, some, (1, 1), dilation, True, itemsize) for some in together)


def packed(plan, weight):
    """The weight in the order in which kernels read it, phase after phase; the code that reads it is there from now on."""
    for taps in plan.row_taps:
        row_tile.CODES.provide(row_tile.code_of.py_func(taps, plan.window[3]), weight.dtype)
    result = empty((plan.size,), weight.dtype)
    conv_direct.pack(plan.size, weight, result, plan.table, plan.channels, plan.by_input)
    return result


def convolve(plan, x, weight, y, bias):
    """Computes what is planned of x (N, H, W, C) into y (N, YH, YW, OC)."""
    weight = packed(plan, weight)
    if not plan.across:
        conv_direct.convolve(
            plan.flops, x, weight, y, bias, plan.table, plan.channels, plan.window, plan.taps, plan.codes, plan.steps, *plan.cut
        )
        return
    start = 0
    for shape, arguments in zip(plan.shapes, plan.across, strict=True):
        own = weight[start : start + math.prod(shape)].reshape(shape)
        conv_images.convolve(plan.flops // len(plan.across), x, own, y, bias, *arguments)
        start += own.size


@functools.lru_cache(maxsize=1024)
def weight_jobs(g, packed_shape, itemsize):
    """How a weight gradient of `packed_shape` is cut into PARTS jobs or more, a small one into as many as it is worth: splits, vectors of a
    job, an even number, and its blocks.

    Every job copies the input of its channels and the gradient of its vectors, every split has a weight's gradient of its own: the cut
    that moves the fewest bytes is the best.
    """
    groups, vectors, CB = packed_shape[:3]
    part = math.prod(packed_shape) * itemsize
    input_bytes, gradient_bytes = (g.N * pixels * itemsize for pixels in (g.IC * g.H * g.W, g.OC * g.OH * g.OW))
    most = min(g.N * -(-g.OH * g.OW // (4 * PIXELS)), PART_BYTES // part)  # an image, or some rows of a large one
    jobs = max(2, min(PARTS, g.flops // JOB_FLOPS))
    cuts = [
        (shares * input_bytes + owners * gradient_bytes + 4 * splits * part, splits, -(-vectors // shares), -(-CB // owners))
        for shares in _halvings(vectors // 2)
        for owners in _halvings(CB)
        for splits in _halvings(most)
        if splits * groups * shares * owners >= jobs
    ]
    _, splits, share, own = min(cuts, default=(0, max(1, most), 2, 1))
    return splits, share + share % 2, own


def _halvings(n):
    """1, 2, 4, ... up to n, at least 1."""
    return [1 << i for i in range(max(1, n).bit_length())]
