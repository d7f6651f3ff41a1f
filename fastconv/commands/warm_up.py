"""`fastconv warm-up`: compile ahead."""

from fastconv import models
from fastconv.commands.console import CompileNotice, add_threads, positive_int
from fastconv.kernels import jit
from fastconv.warmup import OPTIMIZERS, warm_up


def add_arguments(parser):
    parser.add_argument("models", nargs="*", choices=[[], *models.INPUT_SHAPES], metavar="NETWORK", help="which (default: lenet5)")
    parser.add_argument("--batch-size", type=positive_int, default=64, metavar="N", help="images for each update (default: 64)")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd", help="(default: sgd)")
    add_threads(parser)


def run(options):
    if options.threads:
        jit.set_num_threads(options.threads)
    names = options.models or ["lenet5"]
    with CompileNotice():
        seconds = warm_up(names, options.batch_size, options.optimizer)
    print(f"{', '.join(names)}: ready after {seconds:.1f} s; compiled kernels are kept in {jit.cache_folder()}")
    return 0
