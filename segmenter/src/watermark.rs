//! How far the buffer may be released: the archived position.
//!
//! > read >= archived, and everything at or below archived is either committed or known not to be needed.
//!
//! Every frame that carries something worth keeping is *held* when it is read and *let go* when the ledger has it or
//! when it turned out never to have been written. What nobody lets go stays held, so a forgotten case costs disk space
//! in the buffer and never data.

use std::collections::BTreeMap;

use teeline_archive::ids::{BufferPosition, Lsn, SessionId};

/// Tracks which read frames are still needed.
#[derive(Debug, Default)]
pub struct Watermark {
    /// What is held, and since when it exists.
    held: BTreeMap<BufferPosition, i64>,
    /// The last position read of each session; what comes before the first frame of a session is found here.
    last_read: BTreeMap<SessionId, Lsn>,
    /// What an earlier run published; never taken back.
    published: Option<BufferPosition>,
}

impl Watermark {
    /// Starts from what an earlier run published.
    pub fn new(published: Option<BufferPosition>) -> Self {
        Watermark {
            published,
            ..Watermark::default()
        }
    }

    /// Notes that the frame at `position` was read.
    pub fn read(&mut self, position: BufferPosition) {
        let last = self.last_read.entry(position.session).or_insert(position.lsn);
        *last = (*last).max(position.lsn);
    }

    /// Keeps the frame at `position`, written at `at_ms`, in the buffer until [`Watermark::let_go`].
    pub fn hold(&mut self, position: BufferPosition, at_ms: i64) {
        self.held.insert(position, at_ms);
    }

    /// The frame at `position` is no longer needed.
    pub fn let_go(&mut self, position: BufferPosition) {
        self.held.remove(&position);
    }

    /// How many frames are held.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The lowest frame that is still needed.
    pub fn lowest_held(&self) -> Option<BufferPosition> {
        self.held.keys().next().copied()
    }

    /// When the lowest frame that is still needed was written.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.held.values().next().copied()
    }

    /// The last position read.
    pub fn last_read(&self) -> Option<BufferPosition> {
        self.last_read
            .iter()
            .next_back()
            .map(|(&session, &lsn)| BufferPosition { session, lsn })
    }

    /// Everything at or below this position may be released. Never goes back.
    pub fn archived(&mut self) -> Option<BufferPosition> {
        let reached = match self.held.keys().next() {
            None => self.last_read(),
            Some(&needed) => self.before(needed),
        };
        self.published = self.published.max(reached);
        if let Some(published) = self.published {
            self.last_read.retain(|&session, _| session >= published.session);
        }
        self.published
    }

    fn before(&self, position: BufferPosition) -> Option<BufferPosition> {
        if position.lsn.0 > 1 {
            let lsn = Lsn(position.lsn.0.saturating_sub(1));
            return Some(BufferPosition {
                session: position.session,
                lsn,
            });
        }
        let earlier = self.last_read.range(..position.session).next_back();
        earlier.map(|(&session, &lsn)| BufferPosition { session, lsn })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(session: u64, lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(session),
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn nothing_read_means_nothing_archived() {
        assert_eq!(Watermark::new(None).archived(), None);
        assert_eq!(Watermark::new(Some(at(2, 7))).archived(), Some(at(2, 7)));
    }

    #[test]
    fn the_first_frame_of_a_session_holds_back_to_the_end_of_the_session_before() {
        let mut watermark = Watermark::new(None);
        watermark.read(at(1, 9));
        watermark.read(at(3, 1));
        watermark.hold(at(3, 1), 0);
        assert_eq!(watermark.archived(), Some(at(1, 9)));
        watermark.let_go(at(3, 1));
        assert_eq!(watermark.archived(), Some(at(3, 1)));
    }

    proptest! {
        #[test]
        fn never_passes_a_held_frame_and_never_goes_back(
            steps in prop::collection::vec((0u8..3, 1u64..30), 1..80),
        ) {
            let mut watermark = Watermark::new(None);
            let (mut next, mut held, mut last) = (1u64, BTreeSet::new(), None);
            for (kind, pick) in steps {
                match kind {
                    0 => { watermark.read(at(1, next)); next += 1; }
                    1 => { watermark.read(at(1, next)); watermark.hold(at(1, next), 0); held.insert(next); next += 1; }
                    _ => { watermark.let_go(at(1, pick)); held.remove(&pick); }
                }
                let archived = watermark.archived();
                prop_assert!(archived >= last);
                last = archived;
                let reached = archived.map_or(0, |position| position.lsn.0);
                prop_assert!(held.first().is_none_or(|&lowest| reached < lowest));
                prop_assert_eq!(reached, held.first().map_or(next - 1, |lowest| lowest - 1));
            }
        }
    }
}
