//! Writing whole objects, and removing them.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use super::error::{StoreError, StoreErrorKind};
use super::{PutOutcome, Store, Uploader};

impl Store {
    /// Writes an object, replacing what is there. Only for what may be replaced: views, never segments or commits.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        const OPERATION: &str = "write object";
        let path = self.path(OPERATION, key)?;
        let put = self
            .inner
            .objects
            .put(&path, PutPayload::from_bytes(bytes.clone()))
            .await;
        let put = put.map_err(|error| self.inner.context.error(OPERATION, key, &error));
        let settled = match put {
            Ok(_) => self.written(OPERATION, key, &path, bytes.len()).await,
            Err(error) => Err(error),
        };
        self.counted("put", settled)
    }

    /// Writes an object unless there is one: the only step on which the order of commits rests. Answers by
    /// what is there afterwards, so that it may be repeated after a lost answer; see [`PutOutcome`].
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        let outcome = self.create_or_compare(key, &bytes).await;
        self.counted("put_if_absent", outcome)
    }

    async fn create_or_compare(&self, key: &str, bytes: &Bytes) -> Result<PutOutcome, StoreError> {
        const OPERATION: &str = "create object";
        let path = self.path(OPERATION, key)?;
        let (began, mut backoff) = (std::time::Instant::now(), self.backoff());
        loop {
            let error = match self.create(&path, bytes.clone()).await {
                Ok(()) => {
                    self.written(OPERATION, key, &path, bytes.len()).await?;
                    return Ok(PutOutcome::Created);
                }
                // Some stores answer "conflict" for a race that nobody won: only a look tells.
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    match self.holds(&path, key, bytes).await? {
                        Some(same) => {
                            // Whoever wrote it may have died before its name was durable.
                            self.settle(OPERATION, key, &path).await?;
                            return Ok(if same {
                                PutOutcome::Created
                            } else {
                                PutOutcome::Exists
                            });
                        }
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
        let (objects, payload) = (&self.inner.objects, PutPayload::from_bytes(bytes));
        if !self.inner.single_writer {
            return objects
                .put_opts(path, payload, PutMode::Create.into())
                .await
                .map(drop);
        }
        // Declared: nobody else writes. Such a store may know no conditions, so none is sent.
        match objects.head(path).await {
            Err(object_store::Error::NotFound { .. }) => objects.put(path, payload).await.map(drop),
            Err(error) => Err(error),
            Ok(_) => {
                let (path, source) = (path.to_string(), "found before writing".into());
                Err(object_store::Error::AlreadyExists { path, source })
            }
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

    /// Removes an object; that there is none is no error. On a filesystem the removal may be undone by a loss of
    /// power, which does no harm to what is not listed in the ledger any more.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        const OPERATION: &str = "delete object";
        let path = self.path(OPERATION, key)?;
        let deleted = match self.inner.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.inner.context.error(OPERATION, key, &error)),
        };
        self.counted("delete", deleted)
    }

    /// What is left to do once an object is written: count it, and make the way to it durable.
    pub(super) async fn written(
        &self,
        operation: &'static str,
        key: &str,
        path: &Path,
        bytes: usize,
    ) -> Result<(), StoreError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        metrics::counter!("teeline_store_written_bytes_total").increment(bytes);
        let Some(directories) = &self.inner.directories else {
            return Ok(());
        };
        directories
            .settle_way(path)
            .await
            .map_err(|error| self.inner.context.fs_error(operation, key, &error))
    }

    /// Makes durable what was found, not written.
    pub(super) async fn settle(
        &self,
        operation: &'static str,
        key: &str,
        path: &Path,
    ) -> Result<(), StoreError> {
        let Some(directories) = &self.inner.directories else {
            return Ok(());
        };
        directories
            .settle(path)
            .await
            .map_err(|error| self.inner.context.fs_error(operation, key, &error))
    }
}
