//! The write-ahead buffer: a directory of append-only files, each a header and a run of frames.
//!
//! A file belongs to one writer session. Each frame has a header with its own checksum (so that its length
//! can be trusted even when its content cannot), a payload with a checksum, and a position (session, LSN) that
//! is never used again. Positions: written >= synced >= archived >= released.
//!
//! One layer per module: [`file_header`], [`frame`] (header and envelope), [`payload`] and [`terms`] (what frames say),
//! [`recovery`] (from bytes to a report), [`state`] (the small files beside: identity, session, positions).

pub mod file_header;
pub mod frame;
pub mod payload;
pub mod recovery;
pub mod state;
pub mod terms;

pub use file_header::{BUFFER_VERSION, FILE_HEADER_BYTES, FileHeader, FileHeaderError};
pub use frame::{
    Corruption, Decoded, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameError, FrameHeader, decode_frame,
    decode_frame_header, encode_frame, encode_intent_prefix,
};
pub use payload::{
    Catalog, CatalogTopic, ConnectionLost, EndTxn, Frame, Intent, Outcome, TopicConfig, TopicRef,
};
pub use recovery::{Cut, Damage, DamageKind, RecoveryReport, Source, find_frame, recover, recover_bytes};
pub use state::{Archived, BufferIdentity, Positions, SessionMark, StateError};
pub use terms::{LeaderTerm, LeaderTerms, TermsTopic};
