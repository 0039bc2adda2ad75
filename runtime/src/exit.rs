//! Exit codes, and how an error is told at the end.

use std::error::Error;
use std::fmt::Write as _;

/// What a program says to its caller. Stable: scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All that was asked for is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// Wrong usage or configuration; nothing was begun.
    Usage = 2,
    /// Done, but incomplete: holes, mismatches, or a drain that ran out of time.
    Incomplete = 3,
}

impl ExitCode {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The worse of two: what several parts of a process say together.
    #[must_use]
    pub fn worse(self, other: ExitCode) -> ExitCode {
        let rank = |code| match code {
            ExitCode::Done => 0,
            ExitCode::Incomplete => 1,
            ExitCode::Usage => 2,
            ExitCode::Failed => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

/// An error with its causes, one after the other: `open archive: read object …: connection refused`.
/// A cause that its parent's text ends with already is not repeated.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            // Writing into a String cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Prints an error with its causes on standard error, where people and scripts look for it.
pub fn report_error(error: &dyn Error) {
    eprintln!("error: {}", error_chain(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_worse_than_what_is_incomplete() {
        use ExitCode::{Done, Failed, Incomplete};
        assert_eq!(Done.worse(Incomplete), Incomplete);
        assert_eq!(Failed.worse(Incomplete), Failed);
        assert_eq!(Incomplete.worse(Failed), Failed);
        assert_eq!(Incomplete.worse(Done), Incomplete);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("open archive")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no such directory")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    #[error("read file: no such directory")]
    struct Repeating(#[source] Inner);

    #[test]
    fn a_chain_reads_as_a_path_and_repeats_nothing() {
        assert_eq!(error_chain(&Outer(Inner)), "open archive: no such directory");
        assert_eq!(error_chain(&Repeating(Inner)), "read file: no such directory");
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            ExitCode::Done,
            ExitCode::Failed,
            ExitCode::Usage,
            ExitCode::Incomplete,
        ];
        assert_eq!(codes.map(ExitCode::code), [0, 1, 2, 3]);
    }
}
