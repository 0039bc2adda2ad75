//! Reading objects, and finding them.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStoreExt};

use super::error::{StoreError, StoreErrorKind};
use super::{ObjectInfo, Store};

/// Objects up to this size may be read whole; larger ones are read by ranges, so that no object, whoever
/// wrote it, decides how much memory a process takes.
pub const GET_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Store {
    /// Reads a whole object of at most [`GET_BYTES_MAX`].
    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let got = self.get_whole(key).await;
        self.read("get", got)
    }

    async fn get_whole(&self, key: &str) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read object";
        let path = self.path(OPERATION, key)?;
        let failed = |error: object_store::Error| self.inner.context.error(OPERATION, key, &error);
        let result = self.inner.objects.get(&path).await.map_err(failed)?;
        if result.meta.size > GET_BYTES_MAX {
            let size = result.meta.size;
            let reason = format!("it has {size} bytes, more than the {GET_BYTES_MAX} that are read whole");
            let hint = "it is not an object that Teeline wrote there; see what it is";
            return Err(self
                .inner
                .context
                .custom(StoreErrorKind::Invalid, OPERATION, key, &reason, hint));
        }
        result.bytes().await.map_err(failed)
    }

    /// Reads a part of an object: exactly `range`, or an error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let got = self.get_exactly(key, range).await;
        self.read("get_range", got)
    }

    async fn get_exactly(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read part of object";
        let path = self.path(OPERATION, key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end.saturating_sub(range.start);
        let shorter = |there: &str| {
            let reason = format!("bytes {} to {} were asked for, {there}", range.start, range.end);
            let hint = "the object is shorter than it should be: check it with `teeline-restorer verify`";
            self.inner
                .context
                .custom(StoreErrorKind::Invalid, OPERATION, key, &reason, hint)
        };
        let got = match self.inner.objects.get_range(&path, range.clone()).await {
            Ok(got) => got,
            Err(error) => {
                let error = self.inner.context.error(OPERATION, key, &error);
                // Stores put it in different words when a range begins behind the end.
                return match self.head(key).await {
                    Ok(info) if info.size < range.end => Err(shorter(&format!("it has {}", info.size))),
                    _ => Err(error),
                };
            }
        };
        if u64::try_from(got.len()).ok() != Some(wanted) {
            return Err(shorter(&format!("{} came", got.len())));
        }
        Ok(got)
    }

    /// Reads the last `n` bytes (all, if there are fewer) and tells the object's whole length.
    pub async fn get_tail(&self, key: &str, n: u64) -> Result<(Bytes, u64), StoreError> {
        let got = self.get_end(key, n).await;
        match self.counted("get_tail", got) {
            Ok((bytes, size)) => Ok((self.read_bytes(bytes), size)),
            Err(error) => Err(error),
        }
    }

    async fn get_end(&self, key: &str, n: u64) -> Result<(Bytes, u64), StoreError> {
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
                return Ok((self.get_exactly(key, size.saturating_sub(n)..size).await?, size));
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
        let meta = meta.map_err(|error| self.inner.context.error(OPERATION, key, &error));
        self.counted("head", meta.map(|meta| self.info(&meta)))
    }

    /// Every object under a directory-like prefix (`""` for all), in no promised order. In a filesystem store
    /// opened for writing, what is shown is durable: it may be relied upon.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        const OPERATION: &str = "list objects under";
        let path = match self.path(OPERATION, prefix) {
            Ok(path) => path,
            Err(error) => return futures_util::stream::once(async move { Err(error) }).boxed(),
        };
        let (store, prefix) = (self.clone(), prefix.to_owned());
        let failing = self.clone();
        // One for all of its pages, which nobody sees from here.
        let _ = self.counted("list", Ok(()));
        let listing = self.inner.objects.list(Some(&path));
        let mut settled = None;
        listing
            .map_err(move |error| failing.inner.context.error(OPERATION, &prefix, &error))
            .and_then(move |meta| {
                let info = store.info(&meta);
                // Objects of one directory mostly come one after the other: one sync serves for them.
                let parent = store
                    .inner
                    .directories
                    .as_ref()
                    .map(|all| all.directory_of(&meta.location));
                let new = parent.is_some() && parent != settled;
                settled = parent;
                let store = store.clone();
                async move {
                    if new {
                        store.settle(OPERATION, &info.key, &meta.location).await?;
                    }
                    Ok(info)
                }
            })
            .boxed()
    }

    /// The names right under a directory-like prefix that have objects below them, sorted.
    pub async fn children(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        const OPERATION: &str = "list directories under";
        let path = self.path(OPERATION, prefix)?;
        let listing = self.inner.objects.list_with_delimiter(Some(&path)).await;
        let listing = listing.map_err(|error| self.inner.context.error(OPERATION, prefix, &error));
        let last = |path: &Path| path.filename().map(str::to_owned);
        let mut names: Vec<String> = self
            .counted("list", listing)?
            .common_prefixes
            .iter()
            .filter_map(last)
            .collect();
        names.sort();
        Ok(names)
    }

    fn read(&self, operation: &'static str, result: Result<Bytes, StoreError>) -> Result<Bytes, StoreError> {
        self.counted(operation, result)
            .map(|bytes| self.read_bytes(bytes))
    }

    fn read_bytes(&self, bytes: Bytes) -> Bytes {
        metrics::counter!("teeline_store_read_bytes_total")
            .increment(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        bytes
    }
}
