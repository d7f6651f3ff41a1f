"""The dense layer: matrix products of a batch with a weight, and the sums that biases need."""

import functools
import math

import numpy as np

from fastconv.errors import ArgumentError, ArgumentTypeError
from fastconv.functional.arrays import FLOAT32, FLOAT64, contiguous, plain, same_dtype, swapped
from fastconv.functional.options import three
from fastconv.kernels import activation, dense, dense_row, dense_weight
from fastconv.kernels.processor import VECTOR_BYTES
from fastconv.memory import empty

NONE = {dtype: np.empty(0, dtype) for dtype in (FLOAT32, FLOAT64)}
"""An array that is not wanted, as kernels take it."""

PARTS, SPLIT_ROWS = 16, 1 << 10
"""A sum over a long batch is cut into at most so many parts, that over rows of a matrix product into 1, 2, 4, 8 or 16: as few as leave
SPLIT_ROWS rows or less to each, and no more than PARTS over all blocks of the result. Seven would take two threads as long as eight. The
cut, and so the order, depends on the shape only."""


ALIGNED = 1 << 10
"""Rows of a multiple of so many bytes fall on a few lines of the first cache: then a weight is packed also for a short sum."""


FEW, DEEP = 8, 256
"""So few rows read a weight too seldom for packing it to pay; sums of more than DEEP terms often enough, and more rows than dense.LOW."""


PART_NUMBERS, PART_ROWS = 1 << 16, 32
"""Numbers, and rows, of a weight at least, of each part of the product of one row with it."""


CHUNK_ROWS, CHUNK_BYTES = 1 << 10, 1 << 21
"""Rows, and bytes, of a matrix that are packed at a time."""


SPLIT_TERMS = 512
"""Terms of a sum over columns, at least, in each of its parts."""


COPYING_BLOCKS = 4
"""Up to so many blocks of rows of a sum over rows each read the wider factor where it is, or copy it for themselves; for more it is packed
once."""


def zeros_bias(bias, size, dtype):
    """`bias` checked, or zeros when it is None; and never an array that a kernel cannot take."""
    if bias is None:
        return np.zeros(size, dtype)
    bias = same_dtype("bias", bias, dtype, 1)
    if bias.shape != (size,):
        raise ArgumentError(f"bias must have shape {(size,)}, got {bias.shape}")
    return bias


def times_transposed(x, weight, bias, y=None, relu=False):
    """x (M, K) @ weight.T (K, N) + bias, or ReLU of it, into y (M, N) where that is given."""
    if y is None:
        y = empty((len(x), len(weight)), x.dtype)
    if len(x) == 1:
        dense_row.times_transposed(2 * weight.size, x[0], weight, bias, y[0])
        if relu:
            activation.relu_forward(y.size, y[0], y[0])
        return y
    return _product(x, weight, dense.TRANSPOSED, bias, y, y if relu else NONE[x.dtype])


def times(g, weight, output=None):
    """g (M, K) @ weight (K, N), or ReLU's gradient of it from ReLU's `output` (M, N)."""
    (M, K), N = g.shape, weight.shape[1]
    if M == 1:
        parts = empty((max(1, min(PARTS, weight.size // PART_NUMBERS, K // PART_ROWS)), N), g.dtype)
        dense_row.times(2 * weight.size, g[0], weight, parts)
        product = sum_parts(parts)
        if output is not None:
            activation.relu_backward(product.size, product, output[0], product)
        return product.reshape(1, N)
    y, start, gate = empty((M, N), g.dtype), np.zeros(N, g.dtype), NONE[g.dtype] if output is None else output
    return _product(g, weight, _given(M, N, K, g.itemsize), start, y, gate)


def _given(M, N, K, itemsize):
    """How `times` gives a product its right factor."""
    apart = M > FEW and (M > dense.LOW or K > DEEP or N * itemsize % ALIGNED == 0)
    return dense.APART if apart else dense.TOGETHER


def pixels_times_transposed(x, rows, weight, bias, y):
    """Those rows of x (pixels, K) that `rows` says as dense.product does, @ weight.T (K, N) + bias, into y (M, N)."""
    (M, N), run = y.shape, rows[0]
    return _product_of_rows(M, x, rows, weight, dense.TRANSPOSED, bias, y, (run, N, run * N), NONE[x.dtype])


def times_into_pixels(g, weight, y, rows):
    """g (M, K) @ weight (K, N) into those rows of y (pixels, N) that `rows` says as dense.product does."""
    (M, K), N, run = g.shape, weight.shape[1], rows[0]
    return _product_of_rows(M, g, (run, K, run * K), weight, _given(M, N, K, g.itemsize), np.zeros(N, g.dtype), y, rows, NONE[g.dtype])


def _product(x, factor, given, start, y, gate):
    """start + x (M, K) times a right factor (K, N), given as dense.product says, into y (M, N)."""
    (M, K), N = x.shape, y.shape[1]
    splits = _splits(M, N, K, x.itemsize)
    if splits == 1:
        return _product_of_rows(M, x, (M, K, 0), factor, given, start, y, (M, N, 0), gate)
    parts = empty((splits, M, N), x.dtype)
    _product_of_rows(M, x, (M, K, 0), factor, given, start, parts, (M, N, 0), NONE[x.dtype], splits)
    return sum_parts(parts, y, gate)


@functools.lru_cache(maxsize=1024)
def _splits(M, N, K, itemsize):
    """How many parts the sum of `_product` is cut into: of small results whose jobs would copy crowded rows of x for too few columns each,
    or be a single one."""
    crowded = dense.CROWDED and K * itemsize % dense.CROWDED == 0
    if M * N > dense.SMALL or not (crowded if N > dense.SMALL_COLUMNS else M < 2 * dense.FEW_ROWS):
        return 1
    blocks = (M // dense.ROWS + 1) * -(-N // (2 * dense.COLUMNS))
    return 1 << max(1, min(K // SPLIT_TERMS, PARTS // blocks)).bit_length() - 1


def _product_of_rows(M, x, rows, factor, given, start, y, into, gate, splits=1):
    """As `_product`, of those M rows of x and of y that `rows` and `into` say as dense.product does, or into y (splits, M, N)."""
    K, N = x.shape[1], y.shape[-1]
    dense.product(2 * M * N * K, x.ravel(), factor.ravel(), y.ravel(), gate.ravel(), M, N, K, rows, into, given, start, splits)
    return y


def transposed_times(g, x):
    """g.T (M, K) @ x (K, N): the sum over a batch of K is cut into parts when the result is small.

    x is packed where more than COPYING_BLOCKS blocks of rows read it, a chunk of it at a time, which stays in the last cache.
    It had better be the wider one.
    """
    (K, M), N = g.shape, x.shape[1]
    if K == 1:
        product = empty((M, N), g.dtype)
        dense_row.outer(product.size, g[0], x[0], product)
        return product
    if K >= CHUNK_ROWS and M > N <= (dense_weight.TALL if M <= dense_weight.WIDE else dense.LOW):
        return swapped(transposed_times(x, g), (1, N, M), (M, N))
    return _sum_over_rows(g, (max(1, K), M, 0), x)


def transposed_pixels_times(x, rows, g):
    """Those rows of x (pixels, M) that `rows` says as dense.product does, transposed, @ g (K, N)."""
    return _sum_over_rows(x, rows, g)


def _sum_over_rows(a, rows, b):
    """a.T @ b, of those rows of a that `rows` says; b is packed where more than COPYING_BLOCKS blocks of rows read it."""
    (K, N), M, (run, between, far) = b.shape, a.shape[1], rows
    pack, chunk, splits, row_blocks, column_blocks = _cut_over_rows(M, N, K, b.itemsize)
    chunk, parts, a = max(1, chunk // run) * run if far else chunk, empty((splits, M, N), b.dtype), a.ravel()
    for first in range(0, max(1, K), chunk):
        values, origin = b[first : first + chunk], first // run * far + first % run * between
        count, row, column = len(values), N, VECTOR_BYTES // b.itemsize
        if pack:
            packed = empty((-(-N // column), count, column), b.dtype)
            dense_weight.pack(4 * values.size, values, packed)
            values, row, column = packed, column, count * column
        dense_weight.product_over_rows(
            2 * M * N * count, a[origin:], values.ravel(), parts.ravel(), M, N, count, rows, row, column, row_blocks, column_blocks, splits,
            min(first, 1),
        )  # fmt: skip
    return sum_parts(parts)


@functools.lru_cache(maxsize=1024)
def _cut_over_rows(M, N, K, itemsize):
    """(whether b is packed, rows of a chunk, splits, row blocks, column blocks) of `_sum_over_rows`."""
    in_place = dense_weight.reads_in_place.py_func(M, N, K)
    row_blocks = -(-M // dense_weight.TALL)
    column_blocks = dense.column_blocks_of.py_func(row_blocks, N, dense.SMALL_COLUMNS) if in_place else -(-N // dense_weight.WIDE)
    pack = row_blocks > COPYING_BLOCKS and not in_place
    chunk = max(CHUNK_ROWS, CHUNK_BYTES // (N * itemsize)) if pack else max(1, K)
    wanted, most = -(-min(K, chunk) // SPLIT_ROWS), max(1, PARTS // (row_blocks * column_blocks))
    splits = min(1 << max(0, wanted - 1).bit_length(), 1 << most.bit_length() - 1)
    return pack, chunk, splits, row_blocks, column_blocks


def sum_parts(parts, total=None, gate=None):
    """The sum over the first axis, in order, into `total` and with a `gate` as dense.product says; without these a single part itself."""
    if total is None:
        if len(parts) == 1:
            return parts[0]
        total = empty(parts.shape[1:], parts.dtype)
    gate = NONE[parts.dtype] if gate is None else gate
    dense.sum_splits(2 * parts.size, parts.reshape(len(parts), -1), total.ravel(), gate.ravel())
    return total


def sum_rows(g):
    """The sum of the rows of g (M, N), which is a bias's gradient."""
    partial = empty((max(1, -(-len(g) // dense.SUM_ROWS)), g.shape[1]), g.dtype)
    dense.partial_row_sums(2 * g.size, g, partial)
    return sum_parts(partial)


def _rows(name, array, features, dtype=None):
    """(..., features) as C-contiguous (M, features)."""
    array = plain(name, array)
    if dtype is not None and array.dtype != dtype:
        raise ArgumentTypeError(f"{name} must be {dtype} as the other arrays are, got {array.dtype}")
    shape = array.shape
    if len(shape) < 2 or shape[-1] != features:
        raise ArgumentError(f"{name} must have shape (N, {features}) or (..., {features}), got {shape}")
    if not array.size:
        return np.empty((math.prod(shape[:-1]), features), array.dtype)
    array = contiguous(array)
    return array if len(shape) == 2 else array.reshape(-1, features)


def _weight(weight):
    weight = contiguous(plain("weight", weight, 2))
    if 0 in weight.shape:
        raise ArgumentError(f"weight must have at least one row and one column, got shape {weight.shape}")
    return weight


def linear(input, weight, bias=None):
    """Dense layer, input @ weight.T + bias: (..., I) to (..., O).

    Parameters
    ----------
    input : ndarray of shape (N, I) or (..., I), float32 or float64
    weight : ndarray of shape (O, I), same dtype
    bias : ndarray of shape (O,), same dtype, optional

    Returns
    -------
    ndarray of shape (N, O) or (..., O), same dtype, C-contiguous

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes do not fit; the message names the argument.

    Examples
    --------
    >>> linear(np.ones((1, 2)), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[3., 7.]])
    """
    return _linear(input, weight, bias, False)


def linear_relu(input, weight, bias):
    """relu(linear(...)) in the same pass, the same bits."""
    return _linear(input, weight, bias, True)


def _linear(input, weight, bias, relu):
    weight = _weight(weight)
    O, features = weight.shape
    x = _rows("input", input, features, weight.dtype)
    y = times_transposed(x, weight, zeros_bias(bias, O, x.dtype), relu=relu)
    return y if input.ndim == 2 else y.reshape(*input.shape[:-1], O)


def linear_backward(grad_output, input, weight, *, output_mask=(True, True, True)):
    """Gradients of `linear`.

    grad_input = grad_output @ weight, grad_weight = grad_output.T @ input, grad_bias = sum of grad_output over the batch.

    Parameters
    ----------
    grad_output : ndarray of shape (..., O), float32 or float64
    input : ndarray of shape (..., I), same dtype
    weight : ndarray of shape (O, I), same dtype
    output_mask : three bools
        Which gradients to compute.

    Returns
    -------
    (grad_input, grad_weight, grad_bias)
        Of the shapes of input, weight and bias; None where masked out.

    Raises
    ------
    ValueError, TypeError
        When shapes or dtypes do not fit; the message names the argument.
    """
    return _gradients(grad_output, input, weight, three("output_mask", output_mask), False)


def relu_linear_backward(grad_output, input, weight, output_mask):
    """Gradients of linear(relu(x)), from input, which is relu(x); that of x in place of input's. The same bits as one after the other."""
    return _gradients(grad_output, input, weight, output_mask, True)


def _gradients(grad_output, input, weight, output_mask, relu):
    weight = _weight(weight)
    O, features = weight.shape
    x = _rows("input", input, features, weight.dtype)
    g = _rows("grad_output", grad_output, O, weight.dtype)
    if grad_output.shape[:-1] != input.shape[:-1]:
        raise ArgumentError(f"grad_output must have shape {(*input.shape[:-1], O)}, got {grad_output.shape}")
    need_input, need_weight, need_bias = output_mask
    M, output = len(x), x if relu else None
    if M > 1 and dense_weight.reads_in_place.py_func(O, features, M):
        grad_input, grad_weight, grad_bias = _gradients_together(g, x, weight, output_mask, output)
    else:
        grad_input = times(g, weight, output) if need_input else None
        grad_weight = transposed_times(g, x) if need_weight else None
        grad_bias = sum_rows(g) if need_bias else None
    return grad_input if grad_input is None or input.ndim == 2 else grad_input.reshape(input.shape), grad_weight, grad_bias


def _gradients_together(g, x, weight, output_mask, output):
    """What `_gradients` returns, grad_input as (M, I), where one call of a kernel is enough: for a batch that is read in place."""
    (M, O), (_, I), none = g.shape, x.shape, NONE[g.dtype]
    need_input, need_weight, need_bias = output_mask
    grad_input = empty((M, I), g.dtype) if need_input else none
    grad_weight = empty((O, I), g.dtype) if need_weight else none
    grad_bias = np.empty(O, g.dtype) if need_bias else none
    dense_weight.gradients(
        2 * M * O * I, g, x, weight, grad_input.ravel(), grad_weight.ravel(), grad_bias,
        (none if output is None else output).ravel(), _given(M, I, O, g.itemsize), np.zeros(I, g.dtype),
    )  # fmt: skip
    return grad_input if need_input else None, grad_weight if need_weight else None, grad_bias if need_bias else None
