//! What a full disk taught about its size.
//!
//! A write that finds no room ends the buffer's session, and with it goes what was not synced yet. If the next session took
//! everything that producers have kept back meanwhile, it would meet its end at once, again and again, each time with a
//! loss. So a little less than what the buffer held then is its limit from there on: beyond it intents are refused in
//! time, as beyond `max_bytes`. The limit is forgotten when the buffer has stayed below it for a while; the disk may be
//! shared, and have more room by then.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use super::BufferError;

/// A limit that holds for some time.
#[derive(Debug, Default)]
pub(super) struct DiskLimit {
    bytes: Option<u64>,
    /// When the buffer was last at the limit.
    reached_at: Option<Instant>,
}

impl DiskLimit {
    /// The disk had no more room when the buffer held so much. `margin_bytes` are left free, if that leaves anything.
    pub(super) fn was_full_at(&mut self, used_bytes: u64, margin_bytes: u64) {
        let margin_bytes = margin_bytes.max(used_bytes / 8).min(used_bytes / 2);
        let bytes = used_bytes.saturating_sub(margin_bytes);
        self.bytes = Some(self.bytes.map_or(bytes, |known| known.min(bytes)).max(1));
        self.reached_at = Some(Instant::now());
    }

    /// The limit, given the configured one.
    pub(super) fn max_bytes(&self, configured_bytes: u64) -> u64 {
        self.bytes
            .map_or(configured_bytes, |bytes| bytes.min(configured_bytes))
    }

    /// Whether the buffer is full now.
    pub(super) fn seen(&mut self, full: bool) {
        if full {
            self.reached_at = Some(Instant::now());
        } else if self.reached_at.is_some_and(|at| at.elapsed() >= FORGOTTEN_AFTER) {
            *self = DiskLimit::default();
        }
    }
}

/// Whether an error says that the disk, or what this user may take of it, is full.
pub(super) fn is_storage_full(error: &BufferError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_limits_the_buffer_to_less_than_it_held() {
        let mut limit = DiskLimit::default();
        assert_eq!(limit.max_bytes(1_000), 1_000);
        limit.was_full_at(800, 100);
        assert_eq!(limit.max_bytes(1_000), 700);
        limit.was_full_at(400, 100);
        assert_eq!(limit.max_bytes(1_000), 300, "somebody else took more of it");
        limit.was_full_at(600, 100);
        assert_eq!(limit.max_bytes(1_000), 300);
        limit.seen(false);
        assert_eq!(limit.max_bytes(1_000), 300, "not forgotten at once");
        assert_eq!(limit.max_bytes(200), 200);
    }

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let failed = |kind: io::ErrorKind| BufferError::Io {
            action: "write",
            path: "file".into(),
            source: kind.into(),
        };
        assert!(is_storage_full(&failed(io::ErrorKind::StorageFull)));
        assert!(!is_storage_full(&failed(io::ErrorKind::PermissionDenied)));
    }
}
