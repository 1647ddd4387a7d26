"""``python -m figures [name ...] [--quick] [--out DIR] [--list] [--readme]``: pictures, and the numbers behind.

For each figure NAME.pdf, NAME.png and NAME.nc (netCDF 3, ``xarray.load_dataset("NAME.nc", engine="scipy")``) go to
the folder, all or none. Exit code 0, 1 if a figure cannot be made, 2 for an unknown name.
"""

from __future__ import annotations

import argparse
import difflib
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import xarray
from matplotlib.figure import Figure

import figures
from ufm import plotting
from ufm.errors import UfmError
from ufm.storage import write_atomically

HERE = Path(__file__).parent
README_FIGURE, README_FILE = "nc0_heatmap", HERE / "readme.svg"
_NO_DATE: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the figures named on the command line, or all.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program name; that of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    options = _options(arguments)
    if options.list:
        for name in figures.names():
            print(f"{name:20s} {(figures.load(name).__doc__ or '').splitlines()[0]}")
        return 0
    for name in options.names:
        if name not in figures.names():
            near = difflib.get_close_matches(name, figures.names(), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            print(f"There is no figure named {name!r}; --list shows the names.{hint}", file=sys.stderr)
            return 2
    try:
        if options.readme:
            _readme()
        else:
            for name in options.names or figures.names():
                _make(name, options.quick, options.out)
    except KeyboardInterrupt:  # a run's own is a UfmError, too
        raise
    except UfmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m figures", description="Draw figures and save their numbers."
    )
    parser.add_argument("names", nargs="*", metavar="name", help="names of figures; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer steps: all figures within a minute")
    parser.add_argument("--out", type=Path, default=HERE / "out", metavar="DIR", help="folder (%(default)s)")
    parser.add_argument("--list", action="store_true", help="print the names without drawing")
    parser.add_argument(
        "--readme",
        action="store_true",
        help=f"draw {README_FIGURE} as the README's {README_FILE.name} instead",
    )
    options = parser.parse_args(arguments)
    if options.readme and (options.names or options.quick):
        parser.error("--readme draws one figure as it is; leave names and --quick out")
    return options


def _make(name: str, quick: bool, out: Path) -> None:
    """Write picture and numbers of one figure; nothing is written before all of it is there."""
    started = time.perf_counter()
    module = figures.load(name)
    data = module.compute(quick)
    with plotting.style():
        figure = module.draw(data)
        files = {f"{name}.nc": numbers(data)} | {
            f"{name}.{kind}": picture(figure, kind) for kind in ("pdf", "png")
        }
    for file, content in files.items():
        write_atomically(out / file, content)
    print(f"{name:20s} {time.perf_counter() - started:6.1f} s  {out / name}.pdf, .png, .nc", flush=True)


def _readme() -> None:
    """Write the one picture that stands in the repository."""
    started = time.perf_counter()
    module = figures.load(README_FIGURE)
    with plotting.style():
        content = picture(module.draw(module.compute(False)), "svg")
    write_atomically(README_FILE, content)
    print(
        f"{README_FIGURE:20s} {time.perf_counter() - started:6.1f} s  {README_FILE}, {len(content) / 1e3:.0f} kB"
    )


def numbers(data: xarray.Dataset) -> bytes:
    """Content of a netCDF 3 file with the numbers of a figure."""
    return bytes(data.to_netcdf(engine="scipy", format="NETCDF3_64BIT"))


def picture(figure: Figure, kind: str) -> bytes:
    """Content of a picture file without a date: same numbers, same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata=_NO_DATE[kind])
    return content.getvalue()


def command() -> int:
    """Run `main`; Ctrl-C is one sentence."""
    try:
        return main()
    except KeyboardInterrupt:
        print("figures: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(command())
