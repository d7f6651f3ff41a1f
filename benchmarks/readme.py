"""Puts what compare.py wrote into README.md: the tables between its two marks, below the paragraph that stands there, and the picture.

python benchmarks/compare.py && python benchmarks/readme.py
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- compare:begin -->\n", "<!-- compare:end -->"
PICTURE = "docs/images/compare.png"
FOLDED = ("Direct against the peak", "2 threads over 1")  # long tables, which a reader opens
ORDER = ("Training steps", 'Convolutions, algorithm "auto"', "Dense layers", "Goals", "Start", "Memory", *FOLDED)


def block(results, paragraph):
    """The text between the marks, of results.md as a string."""
    title, *parts = re.split(r"^## ", results, flags=re.MULTILINE)
    head = title.split("\n", 1)[1].strip()  # without the heading
    sections = {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts}
    texts = [paragraph.strip(), f"![Times faster than PyTorch]({PICTURE})", head]
    for name in ORDER:
        body = sections[name]
        texts.append(f"<details><summary>{name}</summary>\n\n{body}\n\n</details>" if name in FOLDED else f"### {name}\n\n{body}")
    return "\n\n".join(texts) + "\n"


def main():
    folder, readme = ROOT / "benchmarks" / "results", ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    old, after = rest.split(END)
    paragraph = old.split("![")[0]
    readme.write_text(before + BEGIN + block((folder / "results.md").read_text(), paragraph) + END + after)
    shutil.copy(folder / "results.png", ROOT / PICTURE)


if __name__ == "__main__":
    main()
