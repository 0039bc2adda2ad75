//! Positions and identities as types, so that an offset, an LSN and a session cannot be mixed.

use std::fmt;

/// Log sequence number of a buffer frame: starts at 1 in every writer session and is dense.
///
/// `Lsn(0)` stands for "before the first frame"; no frame carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first frame of a session.
    pub const NONE: Lsn = Lsn(0);
    /// The first frame of a session.
    pub const FIRST: Lsn = Lsn(1);

    /// The position after this one. Saturates: a session cannot outlive 2^64 frames.
    pub fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Writer session of one buffer: increases with every open and is durable before it is used.
///
/// `SessionId(0)` stands for "no session yet"; no frame carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The session after this one.
    pub fn next(self) -> SessionId {
        SessionId(self.0.saturating_add(1))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in one buffer. Later sessions come after earlier ones, so the derived order is the log's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferPosition {
    /// The writer session.
    pub session: SessionId,
    /// The frame within the session.
    pub lsn: Lsn,
}

impl BufferPosition {
    /// Before everything.
    pub const NONE: BufferPosition = BufferPosition {
        session: SessionId(0),
        lsn: Lsn(0),
    };

    /// A position.
    pub fn new(session: SessionId, lsn: Lsn) -> BufferPosition {
        BufferPosition { session, lsn }
    }
}

impl fmt::Display for BufferPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.lsn)
    }
}

/// Who writes a ledger chain: random, persisted in the buffer directory, shown as 16 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(pub u64);

impl WriterId {
    /// The chain that all auditors and backup runs of a backup write. Whoever finds its next link taken stops, so
    /// there is never more than one of them in effect. Random writers are drawn below it.
    pub const AUDITOR: WriterId = WriterId(u64::MAX);
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_session_comes_after_every_frame_of_an_earlier_one() {
        let early = BufferPosition::new(SessionId(1), Lsn(900));
        let late = BufferPosition::new(SessionId(2), Lsn(1));
        assert!(early < late);
        assert!(BufferPosition::NONE < early);
        assert_eq!(late.to_string(), "2/1");
        assert_eq!(WriterId(0xab).to_string(), "00000000000000ab");
    }
}
