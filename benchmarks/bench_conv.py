"""asv: each pass of a convolution, by the automatic choice on the whole grid and by each algorithm on one shape of each kind."""

import numpy as np

from benchmarks.workloads import ALGORITHMS, CONVOLUTIONS, REPRESENTATIVE, TRANSPOSED, conv_data, draw


class _Conv:
    param_names = ("shape", "algorithm")
    rounds = 1

    def setup(self, shape, algorithm):
        """Compile, look at the numbers, keep the arrays; an algorithm that does not take the shape is left out."""
        from fastconv import functional as F

        self.F, conv = F, CONVOLUTIONS[shape]
        self.x, self.weight, self.grad_output = conv_data(conv)
        self.options = {**conv.options, "algorithm": algorithm}
        try:
            output = self.time_forward()
        except ValueError as error:
            raise NotImplementedError(str(error)) from error
        if output.shape != conv.output or not np.isfinite(output).all():
            raise AssertionError(f"{shape}, {algorithm}: the output is wrong")
        self.time_backward_input()
        self.time_backward_weight()

    def time_forward(self, *_):
        return self.F.conv2d(self.x, self.weight, None, **self.options)

    def time_backward_input(self, *_):
        return self.F.conv2d_backward(self.grad_output, self.x, self.weight, **self.options, output_mask=(True, False, False))[0]

    def time_backward_weight(self, *_):
        return self.F.conv2d_backward(self.grad_output, self.x, self.weight, **self.options, output_mask=(False, True, False))[1]


class Grid(_Conv):
    params = (list(CONVOLUTIONS), ["auto"])


class Algorithms(_Conv):
    params = (list(REPRESENTATIVE), list(ALGORITHMS))


class Transposed:
    params = (list(TRANSPOSED),)
    param_names = ("shape",)

    def setup(self, shape):
        from fastconv import functional as F

        conv = TRANSPOSED[shape]
        self.F, self.x, self.options = F, draw(conv.input), conv.options
        self.weight = np.random.default_rng(1).standard_normal(conv.weight, dtype=np.float32)
        self.grad_output = np.ones_like(self.time_forward())
        self.time_backward()

    def time_forward(self, *_):
        return self.F.conv_transpose2d(self.x, self.weight, None, **self.options)

    def time_backward(self, *_):
        return self.F.conv_transpose2d_backward(self.grad_output, self.x, self.weight, **self.options)
