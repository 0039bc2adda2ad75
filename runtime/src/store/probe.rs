//! Does the store honour conditional puts? Asked at start-up, because the answer of a store that ignores the
//! condition looks like success, and two writers would then overwrite each other's commits.

use bytes::Bytes;
use futures_util::future::join_all;

use super::error::{StoreError, StoreErrorKind};
use super::{PutOutcome, Store};

/// How the probe ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The store honours the condition, also among racing writers as far as one round can tell.
    Honoured,
    /// Not asked: the configuration declares a single writer.
    SingleWriterDeclared,
}

const OPERATION: &str = "probe conditional put of";
const HINT: &str = "use a store with conditional puts (If-None-Match), or, if one process alone writes this backup, \
                    declare it with `storage.single_writer: true`";
/// Enough that a store which checks first and writes later is caught nearly every time.
const RACERS: u8 = 8;

impl Store {
    /// Refuses a store that ignores "only if absent". `key` names a probe object that nobody else uses, so it
    /// should be random; it and `key` with `-race` are removed afterwards.
    pub async fn probe_conditional_put(&self, key: &str) -> Result<Probe, StoreError> {
        if self.inner.single_writer {
            return Ok(Probe::SingleWriterDeclared);
        }
        let race_key = format!("{key}-race");
        let result = match self.probe_overwrite(key).await {
            Ok(()) => self.probe_race(&race_key).await,
            Err(error) => Err(error),
        };
        for key in [key, race_key.as_str()] {
            if let Err(error) = self.delete(key).await {
                tracing::debug!(%error, "a probe object stays behind");
            }
        }
        result.map(|()| Probe::Honoured)
    }

    async fn probe_overwrite(&self, key: &str) -> Result<(), StoreError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        if self.probe_put(key, first.clone()).await? != PutOutcome::Created {
            return Err(self.refusal(key, "the probe object exists before it was written"));
        }
        if self.probe_put(key, second).await? != PutOutcome::Exists || self.get(key).await? != first {
            return Err(self.refusal(
                key,
                "the store overwrote an object although it was told to only create it",
            ));
        }
        Ok(())
    }

    async fn probe_race(&self, key: &str) -> Result<(), StoreError> {
        let racers = (0..RACERS).map(|racer| async move {
            let bytes = Bytes::from(vec![racer]);
            Ok::<_, StoreError>(
                (self.probe_put(key, bytes.clone()).await? == PutOutcome::Created).then_some(bytes),
            )
        });
        let outcomes = join_all(racers)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let winners: Vec<Bytes> = outcomes.into_iter().flatten().collect();
        match winners.as_slice() {
            [winner] if self.get(key).await? == *winner => Ok(()),
            [_] => Err(self.refusal(
                key,
                "the writer that was told it created the object is not the one whose bytes are there",
            )),
            _ => {
                let reason = format!(
                    "{} of {RACERS} racing writers were told that they created one object",
                    winners.len()
                );
                Err(self.refusal(key, &reason))
            }
        }
    }

    async fn probe_put(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        self.put_if_absent(key, bytes).await.map_err(|mut error| {
            if error.kind == StoreErrorKind::Unsupported {
                error.hint = HINT.to_owned();
            }
            error
        })
    }

    fn refusal(&self, key: &str, reason: &str) -> StoreError {
        self.inner
            .context
            .custom(StoreErrorKind::Unsupported, OPERATION, key, reason, HINT)
    }
}
