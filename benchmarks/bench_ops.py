"""asv: every op but convolution, forward and backward."""

import numpy as np

from benchmarks.workloads import ACTIVATION_INPUT, ACTIVATIONS, BATCH_NORMS, LINEARS, LOSSES, POOLS, SOFTMAXES, draw, linear_data


class _Op:
    """`setup` of a subclass puts together two calls; both run once there, to compile and to be looked at."""

    param_names = ("workload",)

    def keep(self, forward, backward):
        self.forward, self.backward = forward, backward
        for name, result in (("forward", forward()), ("backward", backward())):
            arrays = result if isinstance(result, tuple) else (result,)
            if not all(np.isfinite(a).all() for a in arrays if a is not None):
                raise AssertionError(f"{type(self).__name__}: {name} is not finite")

    def time_forward(self, *_):
        self.forward()

    def time_backward(self, *_):
        self.backward()


class Pools(_Op):
    params = (list(POOLS),)

    def setup(self, workload):
        from fastconv import functional as F

        op, shape, options = POOLS[workload]
        x, forward, backward = draw(shape), getattr(F, op), getattr(F, f"{op}_backward")
        grad_output = np.ones_like(forward(x, **options))
        if op == "max_pool2d":
            self.keep(lambda: forward(x, **options), lambda: backward(grad_output, x, **options))
        elif op == "avg_pool2d":
            self.keep(lambda: forward(x, **options), lambda: backward(grad_output, shape, **options))
        else:
            self.keep(lambda: forward(x, **options), lambda: backward(grad_output, shape))


class Activations(_Op):
    params = (list(ACTIVATIONS),)

    def setup(self, workload):
        from fastconv import functional as F

        x, grad_output = draw(ACTIVATION_INPUT), draw(ACTIVATION_INPUT, seed=1)
        forward, backward = getattr(F, workload), getattr(F, f"{workload}_backward")
        self.keep(lambda: forward(x), lambda: backward(grad_output, x))


class Dropout(_Op):
    params = ([0.5],)
    param_names = ("p",)

    def setup(self, p):
        from fastconv import functional as F

        x, rng = draw(ACTIVATION_INPUT), np.random.default_rng(0)
        _, mask = F.dropout(x, p, rng=rng, return_mask=True)
        self.keep(lambda: F.dropout(x, p, rng=rng, return_mask=True), lambda: F.dropout_backward(x, mask, p))


class BatchNorms(_Op):
    params = (list(BATCH_NORMS),)

    def setup(self, workload):
        from fastconv import functional as F

        shape = BATCH_NORMS[workload]
        x, grad_output = draw(shape), draw(shape, seed=1)
        mean, variance, weight, bias = np.zeros((4, shape[1]), np.float32)
        variance += 1
        weight += 1
        self.keep(
            lambda: F.batch_norm(x, mean, variance, weight, bias, training=True),
            lambda: F.batch_norm_backward(grad_output, x, mean, variance, weight, training=True),
        )


class Linears(_Op):
    params = (list(LINEARS),)

    def setup(self, workload):
        from fastconv import functional as F

        x, weight, grad_output = linear_data(LINEARS[workload])
        bias = np.zeros(len(weight), np.float32)
        self.keep(lambda: F.linear(x, weight, bias), lambda: F.linear_backward(grad_output, x, weight))


class Softmaxes(_Op):
    params = (["softmax", "log_softmax"], list(SOFTMAXES))
    param_names = ("op", "workload")

    def setup(self, op, workload):
        from fastconv import functional as F

        forward, backward = getattr(F, op), getattr(F, f"{op}_backward")
        x = draw(SOFTMAXES[workload])
        output, grad_output = forward(x), draw(SOFTMAXES[workload], seed=1)
        self.keep(lambda: forward(x), lambda: backward(grad_output, output))


class Losses(_Op):
    params = (list(LOSSES),)

    def setup(self, workload):
        from fastconv import functional as F

        prediction, rng = draw(LOSSES[workload]), np.random.default_rng(1)
        if workload == "cross_entropy":
            target = rng.integers(0, prediction.shape[1], len(prediction))
        else:
            target = rng.integers(0, 2, prediction.shape).astype(np.float32)
        if workload == "binary_cross_entropy":
            prediction = 1 / (1 + np.exp(-prediction))
        forward, backward = getattr(F, workload), getattr(F, f"{workload}_backward")
        self.keep(lambda: forward(prediction, target), lambda: backward(prediction, target))
