//! Reading one mapping of the file, noticing every key.
