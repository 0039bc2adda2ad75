//! The archive's store: object storage and filesystem behind one type.
//!
//! Keys are the caller's; the prefix of the configuration is added here and taken off again. Failed requests
//! are repeated with exponential back-off, jitter and a limit, so an error that comes out of here has outlived
//! that limit or cannot be helped by repeating. Every error names store and key, what was tried and what to do.

mod directories;
mod error;
mod open;
mod probe;
mod read;
mod upload;
mod write;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use teeline_config::Retry;

pub use error::{StoreError, StoreErrorKind};
pub use probe::Probe;
pub use read::GET_BYTES_MAX;
pub use upload::{PART_BYTES, Uploader};

use crate::backoff::Backoff;
use crate::metrics::Metric;
use directories::Directories;
use error::Context;

/// What the store measures.
pub(crate) const METRICS: [Metric; 3] = [
    Metric::counter(
        "teeline_store_requests_total",
        "Operations on the store, by operation and outcome.",
    ),
    Metric::counter("teeline_store_written_bytes_total", "Bytes written to the store."),
    Metric::counter("teeline_store_read_bytes_total", "Bytes read from the store."),
];

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    context: Context,
    retry: Retry,
    single_writer: bool,
    /// Only for filesystems opened for writing.
    directories: Option<Arc<Directories>>,
}

/// How a conditional put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there with exactly these bytes, and was not there before the call. That includes an earlier attempt
    /// of this call whose answer was lost; it is told from another writer's object by its bytes, so objects
    /// that two writers may race for must carry a nonce.
    Created,
    /// Another object has the key. Nothing was changed.
    Exists,
}

/// What a listing or a `head` tells about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key, without the store's prefix.
    pub key: String,
    /// Its size.
    pub size: u64,
    /// When it was last written, in epoch milliseconds, by the store's clock.
    pub last_modified_ms: i64,
}

impl Store {
    /// Wraps an object store as it is, for tests that put faults in between. `address` names it in errors.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, address: &str, single_writer: bool) -> Self {
        let context = Context {
            address: address.trim_end_matches('/').into(),
            secrets: Arc::from([]),
            asks_provider: false,
        };
        let (prefix, retry, directories) = (Path::default(), Retry::default(), None);
        Self {
            inner: Arc::new(Inner {
                objects,
                prefix,
                context,
                retry,
                single_writer,
                directories,
            }),
        }
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::from_object_store(
            Arc::new(object_store::memory::InMemory::new()),
            "memory://",
            false,
        )
    }

    /// The address for people, as `s3://bucket/prefix` or a path.
    pub fn address(&self) -> &str {
        &self.inner.context.address
    }

    fn backoff(&self) -> Backoff {
        let retry = &self.inner.retry;
        Backoff::new(retry.backoff_initial, retry.backoff_max).with_attempts_max(retry.max_retries)
    }

    /// Prefix and key as a path. Keys are not escaped: what would need it is refused.
    fn path(&self, operation: &'static str, key: &str) -> Result<Path, StoreError> {
        let key_path = Path::parse(key).map_err(|error| {
            self.inner
                .context
                .custom(StoreErrorKind::Invalid, operation, key, &error.to_string(), "")
        })?;
        Ok(self.inner.prefix.parts().chain(key_path.parts()).collect())
    }

    /// Counts how an operation ended.
    fn counted<T>(&self, operation: &'static str, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = match &result {
            Ok(_) => "ok",
            Err(error) => error.kind.as_str(),
        };
        metrics::counter!("teeline_store_requests_total", "operation" => operation, "outcome" => outcome)
            .increment(1);
        result
    }

    fn info(&self, meta: &object_store::ObjectMeta) -> ObjectInfo {
        let skipped = self.inner.prefix.parts().count();
        let key: Path = meta.location.parts().skip(skipped).collect();
        ObjectInfo {
            key: key.to_string(),
            size: meta.size,
            last_modified_ms: meta.last_modified.timestamp_millis(),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.address())
    }
}

#[cfg(test)]
mod tests;
