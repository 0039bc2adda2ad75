//! The `teeline-proxy` program.
fn main() {}
