"""From the start of Python to the end of the first training step of LeNet-5, in a fresh process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMON = """
import json, time
import numpy as np
images = np.random.default_rng(0).standard_normal((64, 1, 28, 28), dtype=np.float32)
labels = np.arange(64) % 10
"""
PROGRAMS = {
    "fastconv": COMMON
    + """
import fastconv
from fastconv import models, nn, optim
imported = time.time()
model, loss = models.lenet5(), nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
loss(model(images), labels)
model.backward_parameters(loss.backward())
optimizer.step()
print(json.dumps([imported, time.time()]))
""",
    "torch": COMMON
    + """
import torch
from torch import nn
imported = time.time()
model = nn.Sequential(
    nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
nn.CrossEntropyLoss()(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
optimizer.step()
print(json.dumps([imported, time.time()]))
""",
}


def first_step(side, cache=None, path=()):
    """Seconds from the start of Python until (the library is imported, the first training step is done).

    `cache` is the folder of fastconv's compiled code; an empty one makes a cold start. `path` goes in front of the module path.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what pip installs has its bytecode beside it
    if cache:
        environment["FASTCONV_CACHE_DIR"] = str(cache)
    start = time.time()
    output = subprocess.run([sys.executable, "-c", PROGRAMS[side]], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [moment - start for moment in json.loads(output)]
