//! The archive's store: object storage and filesystem behind one type.
//!
//! Keys are the caller's; the prefix of the configuration is added here and taken off again. Failed requests
//! are repeated with exponential back-off, jitter and a limit, so an error that comes out of here has outlived
//! that limit or cannot be helped by repeating. Every error names store and key, what was tried and what to do.

mod error;
mod open;
mod probe;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use teeline_config::Retry;

pub use error::{StoreError, StoreErrorKind};
pub use probe::Probe;
pub use upload::{PART_BYTES, Uploader};

use crate::backoff::Backoff;
use crate::metrics::Metric;
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

/// Objects up to this size may be read whole; larger ones are read by ranges, so that no object, whoever
/// wrote it, decides how much memory a process takes.
pub const GET_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Store {
    /// Wraps an object store as it is, for tests that put faults in between. `address` names it in errors.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, address: &str, single_writer: bool) -> Self {
        let context = Context {
            address: address.trim_end_matches('/').into(),
            secrets: Arc::from([]),
        };
        Self::assemble(objects, Path::default(), context, Retry::default(), single_writer)
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> Self {
        Self::from_object_store(
            Arc::new(object_store::memory::InMemory::new()),
            "memory://",
            false,
        )
    }

    fn assemble(
        objects: Arc<dyn ObjectStore>,
        prefix: Path,
        context: Context,
        retry: Retry,
        single_writer: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                objects,
                prefix,
                context,
                retry,
                single_writer,
            }),
        }
    }

    /// The address for people, as `s3://bucket/prefix` or a path.
    pub fn address(&self) -> &str {
        &self.inner.context.address
    }

    /// Writes an object, replacing what is there. Only for what may be replaced: views, never segments or commits.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        const OPERATION: &str = "write object";
        let path = self.path(OPERATION, key)?;
        let put = self.inner.objects.put(&path, PutPayload::from_bytes(bytes)).await;
        put.map(drop)
            .map_err(|error| self.inner.context.error(OPERATION, key, &error))
    }

    /// Writes an object unless there is one: the only step on which the order of commits rests. Answers by
    /// what is there afterwards, so that it may be repeated after a lost answer; see [`PutOutcome`].
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        const OPERATION: &str = "create object";
        let path = self.path(OPERATION, key)?;
        let (began, mut backoff) = (std::time::Instant::now(), self.backoff());
        loop {
            let error = match self.create(&path, bytes.clone()).await {
                Ok(()) => return Ok(PutOutcome::Created),
                // Some stores answer "conflict" for a race that nobody won: only a look tells.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    match self.holds(&path, key, &bytes).await? {
                        Some(true) => return Ok(PutOutcome::Created),
                        Some(false) => return Ok(PutOutcome::Exists),
                        None => self.inner.context.custom(
                            StoreErrorKind::Unavailable,
                            OPERATION,
                            key,
                            "the store reports a conflict, but there is no object",
                            "try again later",
                        ),
                    }
                }
                Err(error) => self.inner.context.error(OPERATION, key, &error),
            };
            if !error.is_retriable() || began.elapsed() >= self.inner.retry.timeout || !backoff.wait().await {
                return Err(error);
            }
            tracing::debug!(key, %error, "repeat conditional put");
        }
    }

    async fn create(&self, path: &Path, bytes: Bytes) -> object_store::Result<()> {
        let payload = PutPayload::from_bytes(bytes);
        if !self.inner.single_writer {
            return self
                .inner
                .objects
                .put_opts(path, payload, PutMode::Create.into())
                .await
                .map(drop);
        }
        // Declared: nobody else writes. Such a store may know no conditions, so none is sent.
        match self.inner.objects.head(path).await {
            Err(object_store::Error::NotFound { .. }) => {
                self.inner.objects.put(path, payload).await.map(drop)
            }
            Err(error) => Err(error),
            Ok(_) => Err(object_store::Error::AlreadyExists {
                path: path.to_string(),
                source: "found before writing".into(),
            }),
        }
    }

    /// Whether the object there has exactly these bytes; `None` when there is none.
    async fn holds(&self, path: &Path, key: &str, bytes: &Bytes) -> Result<Option<bool>, StoreError> {
        const OPERATION: &str = "compare object";
        let size = match self.inner.objects.head(path).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.inner.context.error(OPERATION, key, &error)),
        };
        if usize::try_from(size).ok() != Some(bytes.len()) {
            return Ok(Some(false));
        }
        match self.get(key).await {
            Ok(found) => Ok(Some(found == *bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to write an object piece by piece, replacing what is there when it is finished, and not before.
    pub fn upload(&self, key: &str) -> Uploader {
        Uploader::new(self.clone(), key)
    }

    /// Reads a whole object of at most [`GET_BYTES_MAX`].
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read object";
        let path = self.path(OPERATION, key)?;
        let failed = |error: object_store::Error| self.inner.context.error(OPERATION, key, &error);
        let result = self.inner.objects.get(&path).await.map_err(failed)?;
        if result.meta.size > GET_BYTES_MAX {
            let reason = format!(
                "it has {} bytes, more than the {GET_BYTES_MAX} that are read whole",
                result.meta.size
            );
            return Err(self
                .inner
                .context
                .custom(StoreErrorKind::Invalid, OPERATION, key, &reason, ""));
        }
        result.bytes().await.map_err(failed)
    }

    /// Reads a part of an object: exactly `range`, or an error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read part of object";
        let path = self.path(OPERATION, key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end.saturating_sub(range.start);
        let got = self.inner.objects.get_range(&path, range.clone()).await;
        let got = got.map_err(|error| self.inner.context.error(OPERATION, key, &error))?;
        if u64::try_from(got.len()).ok() != Some(wanted) {
            let reason = format!(
                "bytes {}..{} were asked for, {} came",
                range.start,
                range.end,
                got.len()
            );
            let hint = "the object is shorter than it should be: check it with `teeline-restorer verify`";
            return Err(self
                .inner
                .context
                .custom(StoreErrorKind::Invalid, OPERATION, key, &reason, hint));
        }
        Ok(got)
    }

    /// Reads the last `n` bytes (all, if there are fewer) and tells the object's whole length.
    pub async fn get_tail(&self, key: &str, n: u64) -> Result<(Bytes, u64), StoreError> {
        const OPERATION: &str = "read end of object";
        let path = self.path(OPERATION, key)?;
        let options = GetOptions {
            range: Some(GetRange::Suffix(n)),
            ..GetOptions::default()
        };
        let result = match self.inner.objects.get_opts(&path, options).await {
            Ok(result) if n > 0 => result,
            Err(error @ object_store::Error::NotFound { .. }) => {
                return Err(self.inner.context.error(OPERATION, key, &error));
            }
            // Not every store can count from the end, and of an empty object no part can be had.
            Ok(_) | Err(_) => {
                let size = self.head(key).await?.size;
                return Ok((self.get_range(key, size.saturating_sub(n)..size).await?, size));
            }
        };
        let size = result.meta.size;
        let bytes = result.bytes().await;
        Ok((
            bytes.map_err(|error| self.inner.context.error(OPERATION, key, &error))?,
            size,
        ))
    }

    /// Looks at an object without reading it.
    pub async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        const OPERATION: &str = "look at object";
        let path = self.path(OPERATION, key)?;
        let meta = self.inner.objects.head(&path).await;
        let meta = meta.map_err(|error| self.inner.context.error(OPERATION, key, &error))?;
        Ok(self.info(&meta))
    }

    /// Removes an object; that there is none is no error.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        const OPERATION: &str = "delete object";
        let path = self.path(OPERATION, key)?;
        match self.inner.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.inner.context.error(OPERATION, key, &error)),
        }
    }

    /// Every object under a directory-like prefix (`""` for all), in no promised order.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        const OPERATION: &str = "list objects under";
        let path = match self.path(OPERATION, prefix) {
            Ok(path) => path,
            Err(error) => return futures_util::stream::once(async move { Err(error) }).boxed(),
        };
        let (store, prefix) = (self.clone(), prefix.to_owned());
        let failing = self.clone();
        let listing = self.inner.objects.list(Some(&path));
        listing
            .map_err(move |error| failing.inner.context.error(OPERATION, &prefix, &error))
            .map_ok(move |meta| store.info(&meta))
            .boxed()
    }

    /// The names right under a directory-like prefix that have objects below them, sorted.
    pub async fn children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        const OPERATION: &str = "list directories under";
        let path = self.path(OPERATION, prefix)?;
        let listing = self.inner.objects.list_with_delimiter(Some(&path)).await;
        let listing = listing.map_err(|error| self.inner.context.error(OPERATION, prefix, &error))?;
        let last = |path: &Path| path.parts().last().map(|part| part.as_ref().to_owned());
        let mut names: Vec<String> = listing.common_prefixes.iter().filter_map(last).collect();
        names.sort();
        Ok(names)
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
