"""The tables of shapes that the tests walk through: one line a case, never square where it can be helped.

Sides of a padding are ((top, bottom), (left, right)).
"""

from typing import NamedTuple

SAME, VALID = "same", "valid"


class Conv(NamedTuple):
    """One convolution."""

    name: str
    N: int
    IC: int
    H: int
    W: int
    OC: int
    kernel: tuple
    stride: object = 1
    padding: object = 0
    dilation: object = 1
    groups: int = 1

    @property
    def input_shape(self):
        return self.N, self.IC, self.H, self.W

    @property
    def weight_shape(self):
        return self.OC, self.IC // self.groups, *self.kernel

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


# fmt: off
CONV = [
    # name                     N  IC  H   W  OC  kernel  stride  padding           dilation groups
    Conv("lecture",            1,  1,  6,  6,  1, (3, 3)),
    Conv("one_pixel",          2,  3,  1,  1,  4, (1, 1)),
    Conv("one_pixel_padded",   2,  3,  1,  1,  5, (3, 3), 1,      1),
    Conv("one_row",            2,  3,  1, 14,  6, (1, 3), 1,      (0, 1)),
    Conv("one_column",         2,  3, 14,  1,  6, (3, 1), 1,      (1, 0)),
    Conv("pointwise",          2, 16,  7,  9, 33, (1, 1)),
    Conv("pointwise_wide",     1, 65, 14,  6, 64, (1, 1)),
    Conv("pointwise_strided",  2, 17,  9,  7, 16, (1, 1), 2),
    Conv("pointwise_padded",   2,  3,  5,  4,  6, (1, 1), (1, 2), (2, 1)),
    Conv("whole_input",        3,  6,  5,  4, 15, (5, 4)),
    Conv("whole_padded_input", 2,  3,  4,  5,  6, (6, 9), 1,      (1, 2)),
    Conv("same_odd",           2,  6,  7, 14, 16, (3, 5), 1,      SAME),
    Conv("same_even",          2,  3,  6,  7, 17, (2, 4), 1,      SAME),
    Conv("same_dilated",       1,  3,  9, 10,  4, (3, 2), 1,      SAME,             (2, 3)),
    Conv("valid",              2,  3,  6,  8, 31, (3, 3), 1,      VALID),
    Conv("asymmetric",         2,  3,  7,  6, 16, (3, 3), 1,      ((2, 0), (1, 3))),
    Conv("asymmetric_strided", 2,  6,  8,  9, 15, (3, 4), (2, 3), ((0, 1), (2, 0))),
    Conv("padding_above_size", 1,  2,  3,  2,  3, (3, 3), 1,      (4, 5)),
    Conv("stride_2",           2, 16, 14, 16, 17, (3, 3), 2,      1),
    Conv("stride_2_even",      2,  3,  8,  7, 16, (4, 4), 2,      1),
    Conv("stride_unequal",     2,  3,  9, 14, 33, (3, 3), (3, 1), (0, 1)),
    Conv("stride_above_kernel",2,  3, 11, 13,  6, (2, 3), (4, 5), 1),
    Conv("stride_huge",        2,  3,  7,  5,  4, (3, 2), (50, 60)),
    Conv("remainder",          2,  3, 10, 12,  4, (3, 3), (4, 5)),
    Conv("dilated",            2,  6, 11,  9, 16, (3, 3), 1,      2,                2),
    Conv("dilated_unequal",    1,  3, 13,  9, 17, (3, 2), 1,      (1, 3),           (4, 5)),
    Conv("dilated_strided",    2,  3, 14, 11, 16, (3, 3), (2, 3), (2, 1),           (2, 3)),
    Conv("groups_2",           2,  6,  7,  8, 16, (3, 3), 1,      1,                1,       2),
    Conv("groups_3",           2, 15,  6,  7, 33, (3, 2), (1, 2), (1, 0),           1,       3),
    Conv("groups_vector",      1, 64,  5,  7, 32, (3, 3), 1,      1,                1,       4),
    Conv("groups_of_4",        2, 32,  6,  7, 32, (3, 3), 1,      1,                1,       8),
    Conv("groups_of_8",        1, 16,  5,  9, 16, (3, 3), 1,      ((2, 0), (0, 3)), (2, 1),  2),
    Conv("depthwise",          2, 17,  9,  7, 17, (3, 3), 1,      1,                1,      17),
    Conv("depthwise_strided",  2, 33,  9, 14, 33, (3, 3), 2,      1,                1,      33),
    Conv("depthwise_dilated",  1, 16, 11, 10, 16, (3, 5), 1,      SAME,             (3, 2), 16),
    Conv("depthwise_times_2",  2, 15,  7,  6, 30, (3, 3), 1,      1,                1,      15),
    Conv("depthwise_times_3",  2,  6,  8,  5, 18, (5, 3), (2, 1), (2, 1),           1,       6),
    Conv("colour_first_layer", 2,  3, 16, 28, 31, (7, 7), 2,      3),
    Conv("lenet_first_layer",  2,  1, 28, 14,  6, (5, 5), 1,      2),
    Conv("lenet_second_layer", 2,  6, 14, 16, 16, (5, 5)),
    Conv("vector_tails",       1, 31,  7, 16, 33, (3, 3), 1,      1),
    Conv("vectors_full",       1, 64,  6, 14, 64, (3, 3), 1,      1),
    Conv("vectors_and_one",    1, 65,  7,  6, 65, (3, 3), 1,      1),
    Conv("one_output_channel", 2, 16,  9, 28,  1, (3, 3), 1,      1),
    Conv("wide_kernel",        1,  6, 12, 15, 15, (11, 9), (4, 2), (5, 4)),
    Conv("empty_batch",        0,  3,  7,  6, 16, (3, 3), 1,      1),
    Conv("empty_depthwise",    0,  6,  7,  5,  6, (3, 3), 2,      1,                1,       6),
]
# fmt: on


class ConvTranspose(NamedTuple):
    """One transposed convolution."""

    name: str
    N: int
    IC: int
    H: int
    W: int
    OC: int
    kernel: tuple
    stride: object = 1
    padding: object = 0
    output_padding: object = 0
    groups: int = 1
    dilation: object = 1

    @property
    def input_shape(self):
        return self.N, self.IC, self.H, self.W

    @property
    def weight_shape(self):
        return self.IC, self.OC // self.groups, *self.kernel

    @property
    def options(self):
        return {name: getattr(self, name) for name in ("stride", "padding", "output_padding", "groups", "dilation")}


# fmt: off
CONV_TRANSPOSE = [
    # name                              N  IC  H   W  OC  kernel  stride  padding out_pad groups dilation
    ConvTranspose("one_pixel",          2,  3,  1,  1,  4, (1, 1)),
    ConvTranspose("one_pixel_painted",  2,  3,  1,  1,  5, (4, 3)),
    ConvTranspose("plain",              2,  6,  5,  7, 16, (3, 3)),
    ConvTranspose("pointwise",          2, 17,  5,  6, 15, (1, 1)),
    ConvTranspose("doubling",           2, 16,  7,  6, 17, (2, 2), 2),
    ConvTranspose("doubling_overlap",   2,  3,  7,  6,  6, (4, 4), 2,      1),
    ConvTranspose("output_padding",     2,  6,  5,  4, 15, (3, 3), 2,      1,      1),
    ConvTranspose("out_pad_unequal",    1,  3,  5,  4,  4, (3, 2), (3, 2), (1, 0), (2, 1)),
    ConvTranspose("out_pad_unpainted",  2,  3,  4,  3,  4, (2, 2), (1, 4), 0,      (2, 3), 1,     (3, 1)),
    ConvTranspose("stride_above_kernel",2,  3,  4,  5,  6, (2, 1), (3, 4)),
    ConvTranspose("padded",             2,  6,  6,  7,  8, (3, 5), 1,      (2, 1)),
    ConvTranspose("dilated",            2,  3,  5,  6, 16, (3, 2), (1, 2), (2, 1), 0,      1,     (2, 3)),
    ConvTranspose("groups",             2,  6,  5,  4, 33, (3, 3), 2,      1,      1,      3),
    ConvTranspose("depthwise",          2, 17,  6,  5, 17, (4, 3), 2,      1,      0,     17),
    ConvTranspose("vectors_and_one",    1, 65,  4,  7, 33, (3, 3), 1,      1),
    ConvTranspose("empty_batch",        0,  3,  5,  4,  6, (3, 3), 2,      1,      1),
]
# fmt: on


class Pool(NamedTuple):
    """One maximum or average pooling. Averages know no dilation: those with one are for the maximum alone."""

    name: str
    N: int
    C: int
    H: int
    W: int
    kernel_size: object
    stride: object = None
    padding: object = 0
    dilation: object = 1
    ceil_mode: bool = False

    @property
    def input_shape(self):
        return self.N, self.C, self.H, self.W

    @property
    def options(self):
        return {name: getattr(self, name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")}

    @property
    def average_options(self):
        return {name: getattr(self, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}


# fmt: off
MAX_POOL = [
    # name                     N   C  H   W  kernel  stride  padding dilation ceil_mode
    Pool("halving",            2, 16,  6,  8, 2),
    Pool("lecture",            1,  1,  4,  4, 2),
    Pool("one_pixel",          2,  3,  1,  1, 1),
    Pool("identity",           2, 17,  4,  5, 1),
    Pool("remainder_dropped",  2,  6,  7,  9, 2),
    Pool("remainder_kept",     2,  6,  7,  9, 2,      None,   0,      1,       True),
    Pool("ceil_last_dropped",  2,  3,  5,  4, (3, 2), 3,      1,      1,       True),
    Pool("ceil_overlapping",   2, 15,  8,  7, 3,      2,      0,      1,       True),
    Pool("ceil_padded",        1,  3,  9,  6, (3, 4), (2, 3), (1, 2), 1,       True),
    Pool("overlapping",        2, 33, 14, 16, 3,      2,      1),
    Pool("overlapping_by_1",   2,  6,  7,  6, (3, 2), 1,      (1, 0)),
    Pool("whole_input",        2,  3,  5,  7, (5, 7)),
    Pool("whole_padded_input", 1,  3,  3,  4, (5, 6), 1,      1),
    Pool("stride_above_kernel",2,  3, 11, 10, (2, 3), (4, 5)),
    Pool("stride_huge",        2,  3,  7,  6, 2,      (70, 60)),
    Pool("dilated",            2,  3, 11,  9, (3, 2), (2, 1), 0,      (2, 4)),
    Pool("dilated_padded",     2, 17,  9, 11, 3,      2,      1,      (2, 3)),
    Pool("dilated_ceil",       1,  3, 10,  9, (2, 3), 3,      (1, 0), (3, 2),  True),
    Pool("vectors_and_one",    1, 65,  7, 14, (2, 3), (2, 1), (1, 1)),
    Pool("empty_batch",        0,  3,  6,  4, 2),
]
# fmt: on
AVG_POOL = [case for case in MAX_POOL if case.dilation == 1]

# fmt: off
ADAPTIVE = [
    # name            input shape      output size
    ("global",        (2, 17, 7, 5),   1),
    ("identity",      (2, 3, 4, 6),    (4, 6)),
    ("as_input",      (2, 3, 4, 6),    (None, 3)),
    ("dividing",      (1, 16, 6, 8),   (3, 4)),
    ("overlapping",   (2, 6, 7, 10),   (3, 4)),
    ("larger",        (2, 3, 3, 2),    (5, 7)),
    ("one_pixel",     (2, 3, 1, 1),    2),
    ("empty_batch",   (0, 3, 6, 4),    (2, 3)),
]

LINEAR = [
    # name            input shape      outputs
    ("one",           (1, 1),          1),
    ("digits",        (3, 64),         10),
    ("lenet",         (5, 400),        120),
    ("tails",         (7, 33),         17),
    ("one_output",    (4, 65),         1),
    ("one_input",     (6, 1),          31),
    ("sequence",      (2, 3, 15),      16),
    ("empty_batch",   (0, 6),          4),
]
# fmt: on


def ids(cases):
    """The names of a table's cases, for pytest."""
    return [case[0] for case in cases]
