"""Published numbers, each with its source in the file's header."""
