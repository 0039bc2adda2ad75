//! Writing an object piece by piece, in bounded memory.

use std::collections::VecDeque;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinHandle;

use super::Store;
use super::error::StoreError;

/// Size of a part. S3 takes at most 10,000 parts of at least 5 MiB: this reaches 80 GB, and two parts (one
/// under way, one being filled) are small beside the memory of a process.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

const OPERATION: &str = "upload object";
/// Longer than a part takes on an ordinary line, shorter than a drain.
const CLEAN_UP_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// An object being written. It becomes visible whole with [`finish`](Self::finish), or not at all. Holds at
/// most two parts of [`PART_BYTES`] and the piece being written.
///
/// Dropped without `finish` or `abort` it leaves no object; on object storage uploaded parts may stay until the
/// bucket's lifecycle rule for incomplete uploads removes them.
#[derive(Debug)]
pub struct Uploader {
    store: Store,
    key: String,
    path: Option<Path>,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    total_bytes: u64,
    multipart: Option<Box<dyn MultipartUpload>>,
    part: Option<PartTask>,
}

/// The part under way; given up when dropped.
#[derive(Debug)]
struct PartTask(JoinHandle<object_store::Result<()>>);

impl Drop for PartTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Uploader {
    pub(super) fn new(store: Store, key: &str) -> Self {
        Self {
            store,
            key: key.to_owned(),
            path: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            total_bytes: 0,
            multipart: None,
            part: None,
        }
    }

    /// The key it writes to.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.total_bytes
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.total_bytes == 0
    }

    /// Takes a piece of any size. Waits while two parts are full. After an error the upload is lost.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.total_bytes = self
            .total_bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.pending_bytes = self.pending_bytes.saturating_add(bytes.len());
        self.pending.push_back(bytes);
        while self.pending_bytes >= PART_BYTES {
            self.send_part(PART_BYTES).await?;
        }
        Ok(())
    }

    /// Writes what is left and makes the object visible; returns its size. Small objects take one request.
    pub async fn finish(mut self) -> Result<u64, StoreError> {
        let finished = match self.multipart {
            None => self.put_whole().await,
            Some(_) => self.complete().await,
        };
        let finished = match finished {
            Ok(()) => self.settle().await,
            Err(error) => Err(error),
        };
        let finished = self.store.counted("upload", finished);
        if let Err(error) = finished {
            self.clean_up().await;
            return Err(error);
        }
        Ok(self.total_bytes)
    }

    /// Gives up, and removes what was uploaded as far as the store lets us.
    pub async fn abort(mut self) {
        self.clean_up().await;
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        let path = self.path()?;
        let bytes = usize::try_from(self.total_bytes).unwrap_or(usize::MAX);
        self.store.written(OPERATION, &self.key, &path, bytes).await
    }

    async fn put_whole(&mut self) -> Result<(), StoreError> {
        let path = self.path()?;
        let payload = self.take_payload(self.pending_bytes);
        let put = self.store.inner.objects.put(&path, payload).await;
        put.map(drop).map_err(|error| self.failed(&error))
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        if self.pending_bytes > 0 {
            self.send_part(self.pending_bytes).await?;
        }
        self.await_part().await?;
        if let Some(multipart) = &mut self.multipart {
            let completed = multipart.complete().await;
            completed.map_err(|error| self.failed(&error))?;
        }
        self.multipart = None;
        Ok(())
    }

    /// Sends the next part while the caller fills another; parts go one at a time, in order.
    async fn send_part(&mut self, len: usize) -> Result<(), StoreError> {
        self.await_part().await?;
        if self.multipart.is_none() {
            let path = self.path()?;
            let begun = self.store.inner.objects.put_multipart(&path).await;
            self.multipart = Some(begun.map_err(|error| self.failed(&error))?);
        }
        let payload = self.take_payload(len);
        if let Some(multipart) = &mut self.multipart {
            self.part = Some(PartTask(tokio::spawn(multipart.put_part(payload))));
        }
        Ok(())
    }

    async fn await_part(&mut self) -> Result<(), StoreError> {
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        let joined = (&mut part.0).await;
        let sent = joined.unwrap_or_else(|error| Err(object_store::Error::JoinError { source: error }));
        sent.map_err(|error| self.failed(&error))
    }

    /// The first `len` pending bytes, cut exactly: some stores want all parts but the last of one size.
    fn take_payload(&mut self, len: usize) -> PutPayload {
        let (mut taken, mut missing) = (Vec::new(), len);
        while missing > 0 {
            let Some(mut piece) = self.pending.pop_front() else {
                break;
            };
            if piece.len() > missing {
                self.pending.push_front(piece.split_off(missing));
            }
            missing = missing.saturating_sub(piece.len());
            taken.push(piece);
        }
        self.pending_bytes = self.pending_bytes.saturating_sub(len.saturating_sub(missing));
        taken.into_iter().collect()
    }

    async fn clean_up(&mut self) {
        if let Some(mut part) = self.part.take() {
            // A part that arrives after the abort would stay for ever, so it gets a moment to arrive before.
            let _ = tokio::time::timeout(CLEAN_UP_WAIT, &mut part.0).await;
        }
        if let Some(mut multipart) = self.multipart.take()
            && let Err(error) = multipart.abort().await
        {
            tracing::debug!(key = self.key, %error, "parts of an upload that was given up may stay behind");
        }
    }

    fn path(&mut self) -> Result<Path, StoreError> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None => {
                let path = self.store.path(OPERATION, &self.key)?;
                self.path = Some(path.clone());
                Ok(path)
            }
        }
    }

    fn failed(&self, error: &object_store::Error) -> StoreError {
        self.store.inner.context.error(OPERATION, &self.key, error)
    }
}
