//! What a full disk taught about its size.
//!
//! A write that finds no room ends the buffer's session, and with it goes what was not synced yet. If the next session took
//! everything that producers have kept back meanwhile, it would meet its end at once, again and again, each time with a
//! loss. So a little less than what the buffer held then is its limit from there on: beyond it intents are refused in
//! time, as beyond `max_bytes`. The limit is forgotten some time after the disk was last found full: soon when the buffer
//! is below it, later when it is not, as what it holds has to go somewhere first. The disk may be shared, and have more
//! room by then.

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use teeline_archive::buffer::FILE_HEADER_BYTES;

use super::BufferError;

/// A limit that holds for some time.
#[derive(Debug, Default)]
pub(super) struct DiskLimit {
    bytes: Option<u64>,
    /// When a write last found no room.
    found_full_at: Option<Instant>,
}

impl DiskLimit {
    /// The disk had no more room when the buffer held so much. One file is left free, if that leaves enough.
    pub(super) fn was_full_at(&mut self, used_bytes: u64, file_bytes: u64) {
        let margin_bytes = file_bytes.max(used_bytes / 8).min(used_bytes / 2);
        let bytes = used_bytes
            .saturating_sub(margin_bytes)
            .max(least_bytes(file_bytes));
        self.bytes = Some(self.bytes.map_or(bytes, |known| known.min(bytes)));
        self.found_full_at = Some(Instant::now());
    }

    /// The limit, given the configured one.
    pub(super) fn max_bytes(&self, configured_bytes: u64) -> u64 {
        self.bytes
            .map_or(configured_bytes, |bytes| bytes.min(configured_bytes))
    }

    /// Whether the buffer is full now. Being full says nothing new about the disk: the limit itself may be the cause.
    pub(super) fn seen(&mut self, full: bool) {
        let held_for = if full {
            FORGOTTEN_WHEN_FULL_AFTER
        } else {
            FORGOTTEN_AFTER
        };
        if self.found_full_at.is_some_and(|at| at.elapsed() >= held_for) {
            *self = DiskLimit::default();
        }
    }
}

/// A limit that a few file headers reach, or one frame, would keep capture from ever going on: when the buffer held
/// next to nothing, it is somebody else who fills the disk. A full buffer ends its file early, so a small part of a
/// file is enough.
fn least_bytes(file_bytes: u64) -> u64 {
    file_bytes.clamp(LEAST_HEADERS * FILE_HEADER_BYTES as u64, LEAST_BYTES)
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
/// Each time this passes, a disk that is still full can cost one more session.
const FORGOTTEN_WHEN_FULL_AFTER: Duration = Duration::from_secs(600);
const LEAST_BYTES: u64 = 1 << 20;
const LEAST_HEADERS: u64 = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    fn no_limit_is_too_small_to_hold_a_file() {
        let mut limit = DiskLimit::default();
        limit.was_full_at(FILE_HEADER_BYTES as u64, 128 << 20);
        assert_eq!(limit.max_bytes(u64::MAX), LEAST_BYTES);
        let mut limit = DiskLimit::default();
        limit.was_full_at(FILE_HEADER_BYTES as u64, 1);
        assert!(limit.max_bytes(u64::MAX) > 2 * FILE_HEADER_BYTES as u64);
    }

    #[test]
    fn a_limit_is_forgotten_even_by_a_buffer_that_is_at_it() {
        let mut limit = DiskLimit::default();
        let since = |ago: Duration| Some(Instant::now().checked_sub(ago).unwrap());
        limit.was_full_at(800, 100);
        limit.found_full_at = since(FORGOTTEN_AFTER);
        limit.seen(true);
        assert_eq!(limit.max_bytes(1_000), 700);
        limit.seen(false);
        assert_eq!(limit.max_bytes(1_000), 1_000);
        limit.was_full_at(800, 100);
        limit.found_full_at = since(FORGOTTEN_WHEN_FULL_AFTER);
        limit.seen(true);
        assert_eq!(limit.max_bytes(1_000), 1_000);
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
