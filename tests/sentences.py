"""What every refusal has in common, and things that nobody should hand to this package."""

import io
import re
import zipfile
from contextlib import contextmanager

import pytest

resource = pytest.importorskip("resource", reason="limits as on Unix")


def is_one_sentence(text):
    """Whether a refusal names what is allowed, or what to do next, in one sentence of one line."""
    return "\n" not in text and text.endswith(".") and re.search(r"(allowed|[Nn]ext): ", text) is not None


@contextmanager
def full_disk(bytes_left):
    """No file may grow beyond this size: what a full disk answers, by another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def zipped(**members):
    """Content of a zip file of these texts or bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()
