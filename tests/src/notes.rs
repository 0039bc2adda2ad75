//! Remarks of a test that are worth reading even when it passes: seeds, counts, what was measured.

use std::env;
use std::fs::File;
use std::io::Write;

/// Says it on standard error, which the test runner shows on failure, and adds it to the file `TEELINE_TEST_NOTES`,
/// which `cargo xtask test` prints at its end.
pub fn note(text: &str) {
    eprintln!("{text}");
    if let Some(path) = env::var_os("TEELINE_TEST_NOTES") {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .expect("open the file of test notes");
        writeln!(file, "{text}").expect("write a test note");
    }
}
