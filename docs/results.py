"""Write casgan/RESULTS.md from evaluations on disk.

    contrastream evaluate compact --data phantom --seed 960 --out out/results/compact.json
    python docs/results.py out/results

The folder's `order.toml` names the sections: file (of an evaluation), title, taught (a command or a sentence),
picture (a picture made here, optional) and seen (what a person saw in the pictures). The tables are the files', never typed.
"""

import json
import sys
import tomllib
from pathlib import Path

import cv2

from bench.evaluation_table import format_evaluation
from bench.methods_table import kept_section

OUT = Path(__file__).resolve().parents[1] / "casgan" / "RESULTS.md"
PICTURES = OUT.parent.parent / "docs"
WIDTH_PX = 1400

HEAD = """# What teaching gave

Written by `docs/results.py` from the files of `contrastream evaluate`: no table was typed; what stands above and below each is a
person's. Distances (Frechet, MMD) are on features of our own vessel U-Net and cannot be compared with those of publications. Research only; not a medical device.
"""


def main(folder: Path) -> int:
    """Write the page."""
    sections = tomllib.loads((folder / "order.toml").read_text(encoding="utf-8"))["section"]
    parts = [HEAD]
    for section in sections:
        report = json.loads((folder / section["file"]).read_text(encoding="utf-8"))
        parts.append(f"## {section['title']}\n")
        parts.append(f"Taught by: {section['taught']}\n")
        parts.append(f"```\n{format_evaluation(report)}\n```\n")
        if "picture" in section:
            picture = cv2.imread(str(folder / section["picture"]))
            scale = min(1.0, WIDTH_PX / picture.shape[1])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            name = f"{Path(section['file']).stem}.webp"
            cv2.imwrite(str(PICTURES / name), small, [cv2.IMWRITE_WEBP_QUALITY, 80])
            parts.append(f"![{section['title']}](../docs/{name})\n")
        parts.append(f"{section['seen'].strip()}\n")
    # The tables of methods, which `contrastream evaluate --table` writes, and what was said of them.
    parts.append(kept_section(OUT.read_text(encoding="utf-8")) if OUT.is_file() else "")
    OUT.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    print(f"written {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
