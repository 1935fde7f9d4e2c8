"""`python -m repro.prepare setup=ilsvrc2012 data.format=jpeg`: pack the images of a setup ahead of its runs.

Reads class folders, or the official archives of ILSVRC-2012 as they are, and goes on where an earlier call was ended.
Does nothing where the packed images are there; with verify=true every byte of them is checked, and a damaged store is
packed again. Any key of `repro.run` can follow: data.root, data.cache, data.image_size, data.jpeg_quality, ...
"""

import sys
from typing import TYPE_CHECKING

from repro.command import exit_code, helped, own_words
from repro.errors import UserError
from repro.text import counted

if TYPE_CHECKING:
    from repro.data.store import Opened

YES_NO = ("true", "false")


def main() -> None:
    """Reads `key=value` arguments: those of `repro.run`, and `verify=true|false`. Prints what the store holds."""
    from repro.experiments.compose import compose

    if helped(sys.argv[1:], __doc__):
        return
    own, words = own_words(sys.argv[1:], {"verify": "false"})
    if own["verify"] not in YES_NO:
        raise UserError(f"verify={own['verify']}: choose one of {', '.join(YES_NO)}")
    config = compose(words)

    from repro.data.store import open_store
    from repro.model.summary import layer_table

    opened = open_store(
        config.data,
        verify=own["verify"] == "true",
        before_packing=lambda listing: layer_table(config, len(listing.classes)),  # refuses what no run could build
    )
    _print(opened, config.data.format.name)


def _print(opened: "Opened", encoding: str) -> None:
    data = opened.data
    print(opened.folder)
    train, val = counted(len(data.train.labels), "training image"), counted(len(data.val.labels), "validation image")
    print(f"  {train}, {val}")
    print(f"  {counted(len(data.classes), 'class', 'classes')}")
    if data.skipped:
        print(f"  {counted(len(data.skipped), 'bad file')} left out")
    print(f"  {opened.bytes} bytes ({opened.bytes / 2**30:.3g} GiB), {encoding}")
    print(f"  content hash {data.content_hash}")
    if opened.packed:
        print(f"  packed {counted(opened.packed, 'image')} now, {opened.packed / opened.seconds:.0f} images/s")
    else:
        print("  was there, whole" if opened.verified else "  was there; verify=true checks every byte")


if __name__ == "__main__":
    sys.exit(exit_code(main))
