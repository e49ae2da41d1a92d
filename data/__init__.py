"""Word data sets: LMDB folders, the standard test sets, the protocol that counts words, near-duplicates."""
