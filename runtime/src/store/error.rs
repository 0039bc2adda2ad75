//! Errors of the store: kinds by what the caller should do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object (or bucket, or directory).
    NotFound,
    /// There is one already, and the operation must not replace it.
    AlreadyExists,
    /// Credentials or permissions do not suffice; repeating does not help, a person must look.
    Refused,
    /// The store does not answer or cannot at present; repeat later.
    Unavailable,
    /// The request or the configuration is wrong; repeating does not help.
    Invalid,
    /// The store lacks something that Teeline needs.
    Unsupported,
}

impl StoreErrorKind {
    /// As a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A failed operation on the store. Its text is one line: what was tried, on which object, why it failed and
/// what to do next.
#[derive(Debug, Clone)]
pub struct StoreError {
    pub(crate) kind: StoreErrorKind,
    pub(crate) operation: &'static str,
    pub(crate) location: String,
    pub(crate) reason: String,
    pub(crate) hint: String,
}

impl StoreError {
    /// What the caller should do.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// Whether repeating later may help.
    pub fn is_retriable(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }

    /// The whole address of what it was about, as `s3://bucket/prefix/key`.
    pub fn location(&self) -> &str {
        &self.location
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.location, self.reason)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl Error for StoreError {}

/// What every error of one store has in common: its address, and the credentials that must not show.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) address: Arc<str>,
    pub(crate) secrets: Arc<[String]>,
    /// Whether credentials are looked for in environment, web identity and instance profile. Where there is none of
    /// them the search ends with a time-out, whose text does not say so.
    pub(crate) asks_provider: bool,
}

/// Answers of stores can be pages of XML or HTML.
const REASON_CHARS_MAX: usize = 600;

impl Context {
    /// The whole address of an object.
    pub(crate) fn location(&self, key: &str) -> String {
        if key.is_empty() {
            self.address.to_string()
        } else {
            format!("{}/{key}", self.address)
        }
    }

    /// An error of our own making.
    pub(crate) fn custom(
        &self,
        kind: StoreErrorKind,
        operation: &'static str,
        key: &str,
        reason: &str,
        hint: &str,
    ) -> StoreError {
        let (reason, hint) = (self.presentable(reason), hint.to_owned());
        StoreError {
            kind,
            operation,
            location: self.location(key),
            reason,
            hint,
        }
    }

    /// Translates an error of the object store.
    pub(crate) fn error(
        &self,
        operation: &'static str,
        key: &str,
        error: &object_store::Error,
    ) -> StoreError {
        let kind = classify(error);
        let reason = match kind {
            // The wrapped text says no more than this, at greater length.
            StoreErrorKind::NotFound => "there is no such object, bucket or directory".to_owned(),
            _ => crate::exit::error_chain(innermost_telling(error)),
        };
        let mut error = self.custom(kind, operation, key, &reason, hint(kind));
        if self.asks_provider && matches!(kind, StoreErrorKind::Unavailable | StoreErrorKind::Refused) {
            error.hint.push_str(
                "; storage.access_key is not set, so the credentials come from the provider's chain",
            );
        }
        error
    }

    /// Translates an error of our own durable steps.
    pub(crate) fn fs_error(
        &self,
        operation: &'static str,
        key: &str,
        error: &crate::fs::FsError,
    ) -> StoreError {
        let kind = classify_io(error.kind());
        self.custom(kind, operation, key, &crate::exit::error_chain(error), hint(kind))
    }

    /// One line, without credentials, of bearable length. Some servers answer with what was signed.
    fn presentable(&self, text: &str) -> String {
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            line = line.replace(secret.as_str(), "***");
        }
        match line.char_indices().nth(REASON_CHARS_MAX) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line,
        }
    }
}

/// Skips the outer text ("Generic S3 error: …"), which repeats what we say ourselves.
fn innermost_telling(error: &object_store::Error) -> &(dyn Error + 'static) {
    error.source().unwrap_or(error)
}

fn classify(error: &object_store::Error) -> StoreErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => StoreErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
            StoreErrorKind::AlreadyExists
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreErrorKind::Refused,
        E::NotSupported { .. } | E::NotImplemented { .. } => StoreErrorKind::Unsupported,
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => StoreErrorKind::Invalid,
        other => classify_generic(other),
    }
}

fn classify_generic(error: &object_store::Error) -> StoreErrorKind {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return classify_io(io.kind());
        }
        // The library keeps the type that holds the HTTP status private, so its text is all there is. A test
        // holds it: requests that the server calls wrong must not be repeated for ever.
        let text = current.to_string();
        if let Some((_, status)) = text.split_once("non-2xx status code: ") {
            match status.get(..3).and_then(|digits| digits.parse::<u16>().ok()) {
                Some(408 | 429) => return StoreErrorKind::Unavailable,
                Some(401 | 403) => return StoreErrorKind::Refused,
                Some(404) => return StoreErrorKind::NotFound,
                Some(501) => return StoreErrorKind::Unsupported,
                Some(300..=499) => return StoreErrorKind::Invalid,
                _ => {}
            }
        }
        cause = current.source();
    }
    StoreErrorKind::Unavailable
}

fn classify_io(kind: std::io::ErrorKind) -> StoreErrorKind {
    use std::io::ErrorKind as K;
    match kind {
        K::PermissionDenied | K::ReadOnlyFilesystem => StoreErrorKind::Refused,
        K::InvalidInput | K::InvalidFilename => StoreErrorKind::Invalid,
        // A full disk, an I/O error, a refused connection: all may pass.
        _ => StoreErrorKind::Unavailable,
    }
}

fn hint(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::NotFound => "check bucket, prefix and backup id",
        StoreErrorKind::Refused => {
            "check access_key and secret_key (or the provider's credentials) and the permissions to get, put, list and delete"
        }
        StoreErrorKind::Unavailable => {
            "check that the store is up, has room and can be reached at its endpoint; it is tried again while the program runs"
        }
        StoreErrorKind::Invalid => "check endpoint, region and bucket of `storage`",
        StoreErrorKind::Unsupported => "use a store that supports this",
        StoreErrorKind::AlreadyExists => "",
    }
}
