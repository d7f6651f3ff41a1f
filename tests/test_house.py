"""How the package is built: who may import whom, where compiled code lives, and that every promised name exists."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__"): path for path in sorted(PACKAGE.rglob("*.py"))}

LAYERS = [  # each imports only from layers before its own, or from its own package
    {"arena", "errors", "files", "reference"},
    {"memory", "shapes"},
    {"datasets", "gradcheck", "pictures", "serialization"},
    {"kernels"},
    {"functional"},
    {"nn"},
    {"models", "optim"},
    {"trainer"},
    {"explain", "warmup"},
    {"__init__"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
THIRD_PARTY = {  # what a part may import besides the standard library
    "errors": set(),
    "arena": {"numpy"},
    "memory": {"numpy"},
    "shapes": set(),
    "reference": {"numpy"},
    "kernels": {"numpy", "numba", "llvmlite"},
    "functional": {"numpy"},
}
COMPILERS = {"kernel", "device", "njit", "jit", "vectorize", "guvectorize", "intrinsic"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path):
    """Full names of everything that a file imports, at its top or inside functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "fastconv":
                yield from (f"fastconv.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part(module):
    """The layer's name of a module: its package, or itself."""
    return module.split("/")[0]


def part_imported(name):
    """The layer's name of an imported `fastconv...`; a public name of fastconv itself counts as `__init__`."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[1] in LAYER else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    own = part(module)
    assert own in LAYER, f"give {own} a place in LAYERS"
    for name in imports(MODULES[module]):
        if name.split(".")[0] == "fastconv":
            other = part_imported(name)
            assert other == own or LAYER[other] < LAYER[own], f"{module} imports {name}, which stands above it"


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in THIRD_PARTY])
def test_lower_layers_import_little(module):
    allowed = THIRD_PARTY[part(module)] | {"fastconv"} | set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in imports(MODULES[module])} <= allowed


def decorators(function):
    for decorator in function.decorator_list:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        yield node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@pytest.mark.parametrize("module", MODULES)
def test_compiled_code_lives_at_the_top_of_kernel_modules(module):
    """A function made inside another never hits the compilation cache."""
    top = tree(MODULES[module]).body
    compiled = [f for f in ast.walk(ast.Module(top, [])) if isinstance(f, ast.FunctionDef) and COMPILERS & set(decorators(f))]
    if part(module) == "kernels":
        names = {f.name for f in top if isinstance(f, ast.FunctionDef)}
        assert {f.name for f in compiled} <= names
    else:
        assert not compiled


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) == "kernels"])
def test_kernels_only_compute(module):
    for function in ast.walk(tree(MODULES[module])):
        if not isinstance(function, ast.FunctionDef) or not {"kernel", "device"} & set(decorators(function)):
            continue
        for node in ast.walk(function):
            where = f"{module}.{function.name}, line {getattr(node, 'lineno', '?')}"
            assert not isinstance(node, (ast.Raise, ast.Assert, ast.Try)), f"{where}: a kernel checks nothing"
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"), f"{where}: a kernel prints nothing"


def test_sizes_of_modules():
    """Prints lines, longest function and first line of each module (`pytest -s -k sizes`); every module says what it is."""
    for module, path in MODULES.items():
        body = tree(path)
        functions = [
            (f.end_lineno - f.lineno + 1, f.name) for f in ast.walk(body) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        assert ast.get_docstring(body) or not body.body, f"{module} has no docstring"
        title = (ast.get_docstring(body) or "empty").splitlines()[0]
        longest = "{} lines in {}".format(*max(functions)) if functions else "no function"
        print(f"{len(path.read_text(encoding='utf-8').splitlines()):4} {module:28} {longest:48} {title}")


ALL = "output_mask=(True, True, True)"
FUNCTIONS = f"""
conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, algorithm='auto')
conv2d_backward(grad_output, input, weight, stride=1, padding=0, dilation=1, groups=1, *, algorithm='auto', {ALL})
conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
max_pool2d_backward(grad_output, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False)
avg_pool2d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)
avg_pool2d_backward(grad_output, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True)
adaptive_avg_pool2d(input, output_size)
adaptive_avg_pool2d_backward(grad_output, input_shape)
linear(input, weight, bias=None)
linear_backward(grad_output, input, weight, *, {ALL})
batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-05)
batch_norm_backward(grad_output, input, running_mean, running_var, weight=None, training=False, eps=1e-05, *, {ALL})
softmax(input, dim=-1)
softmax_backward(grad_output, output, dim=-1)
log_softmax(input, dim=-1)
log_softmax_backward(grad_output, output, dim=-1)
dropout(input, p=0.5, training=True, *, rng=None, return_mask=False)
dropout_backward(grad_output, mask, p=0.5)
""".split("\n")[1:-1]
OPS = (
    "conv2d conv_transpose2d max_pool2d avg_pool2d adaptive_avg_pool2d linear batch_norm relu leaky_relu gelu silu sigmoid tanh "
    "softmax log_softmax dropout cross_entropy binary_cross_entropy binary_cross_entropy_with_logits mse_loss"
).split()
PUBLIC = {
    "nn": "Module Parameter Sequential Residual Conv2d ConvTranspose2d MaxPool2d AvgPool2d AdaptiveAvgPool2d Linear Flatten "
    "BatchNorm2d Dropout ReLU LeakyReLU GELU SiLU Sigmoid Tanh Softmax CrossEntropyLoss BCELoss BCEWithLogitsLoss MSELoss",
    "optim": "SGD Adam AdamW RMSprop StepLR CosineAnnealingLR",
    "datasets": "load_digits load_mnist",
    "models": "lecture digits_cnn lenet5 mnist_cnn vgg_cifar resnet20 resnet18 mobilenet",
    "": "functional F nn optim datasets models Trainer save load gradcheck set_num_threads get_num_threads warm_up __version__",
}


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_its_backward(op):
    for name in (op, f"{op}_backward"):
        assert callable(getattr(fastconv.functional, name))
        documented = inspect.getdoc(getattr(fastconv.functional, name))
        assert documented and "Parameters" in documented and "Returns" in documented, f"{name}: parameters and results want describing"


@pytest.mark.parametrize("expected", FUNCTIONS, ids=lambda line: line.split("(")[0])
def test_signatures_are_the_promised_ones(expected):
    name = expected.split("(")[0]
    signature = inspect.signature(getattr(fastconv.functional, name))
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert (name + str(inspect.Signature(plain))).startswith(expected[:-1])  # further keyword-only options may follow


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist(module):
    home = getattr(fastconv, module) if module else fastconv
    assert [name for name in PUBLIC[module].split() if not hasattr(home, name)] == []
    assert set(getattr(home, "__all__", ())) <= set(dir(home))


IMPORT = """
import os, sys, threading
before, threads = dict(os.environ), threading.active_count()
import fastconv, fastconv.cli
from fastconv.kernels import jit
loaded = {"torch", "matplotlib", "tqdm", "safetensors", "scipy"} & set(sys.modules)
compiled = [f"{m}.{n}" for m, module in list(sys.modules.items()) if m.startswith("fastconv.kernels") for n, k in vars(module).items()
            if type(k) is jit.Kernel and (k.serial.signatures or k.parallel.signatures)]
assert not loaded, loaded
assert not compiled, compiled
assert dict(os.environ) == before and threading.active_count() == threads and not jit._pool_started
"""


def test_nothing_runs_at_import():
    """No compilation, no thread pool, no change of the environment, and nothing heavy that training alone does not need."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
