"""asv: what a user waits for before the first training step is done."""

import tempfile

from benchmarks import startup


class Import:
    def timeraw_import(self):
        return "import fastconv"

    def timeraw_numba(self):
        """The part that fastconv cannot change."""
        return "import numba"


class FirstStep:
    """From the start of Python to the end of the first step of LeNet-5: `cold` compiles everything, `warm` finds it compiled."""

    params = (["cold", "warm"],)
    param_names = ("cache",)
    timeout = 600

    def setup(self, cache):
        self.folder = tempfile.TemporaryDirectory()
        if cache == "warm":
            startup.first_step("fastconv", self.folder.name)

    def teardown(self, cache):
        self.folder.cleanup()

    def track_first_step(self, cache):
        return startup.first_step("fastconv", self.folder.name)[1]

    track_first_step.unit = "s"
