//! What can be wrong with a configuration, and how it is told.

use std::fmt;

/// One problem: where it is, what stands there, why that cannot be used and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key path, as `clusters[0].listen.address`, or the flag, as `--upstream`; empty for the file itself.
    pub key: String,
    /// What stands there, shortened; `None` when nothing does, or when it must not be shown.
    pub value: Option<String>,
    /// Why it cannot be used: lower case, the cause first.
    pub message: String,
    /// The way out.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Every problem of one configuration, in the order of the file as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// Where the configuration came from: a path, or `command line`.
    pub origin: String,
    /// The problems; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// A single problem as an error.
    pub fn one(origin: impl Into<String>, problem: Problem) -> Self {
        Self {
            origin: origin.into(),
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(
            f,
            "{}: {count} problem{}",
            self.origin,
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.problems {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}
