"""Checks of every claim: ``python -m proofs_check [claim ...]``; one module per room of `ufm.theory`."""
