//! Where `${VAR}` and `…_file` are read from. Passed in, so that tests need no real environment.

use std::io;
use std::path::Path;

/// What a configuration may read besides its own text.
pub trait Env {
    /// The value of an environment variable, if it is set and is Unicode.
    fn var(&self, name: &str) -> Option<String>;

    /// The content of a file that a `…_file` key names.
    fn read_file(&self, path: &Path) -> io::Result<String>;
}

/// The environment and the files of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// No variables and no files: a configuration that stands for itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn read_file(&self, _path: &Path) -> io::Result<String> {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no files can be read here",
        ))
    }
}
