"""``python -m ufm`` is the command ``ufm``."""

import sys


def main() -> int:
    """Run the command; Ctrl-C while its modules are imported is one sentence, too."""
    try:
        from ufm.cli import main as command

        return command()
    except KeyboardInterrupt:
        print("ufm: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
