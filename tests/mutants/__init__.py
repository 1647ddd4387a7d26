"""Small errors made on purpose in `ufm.theory`: do its proofs and tests notice them?"""
