//! Names of everything that Teeline stores: object keys of the archive and file names of the buffer.
//!
//! They are built and parsed here only, and tested in both directions. The store's own prefix is no part of
//! them: whoever opens the store adds it.

use crate::ids::{SessionId, WriterId};
use crate::ledger::StateKind;
use crate::segment::Codec;
use std::fmt;
use uuid::Uuid;

/// Longest backup id, in bytes.
pub const BACKUP_ID_BYTES_MAX: usize = 128;
/// Longest topic name, as in Kafka.
pub const TOPIC_BYTES_MAX: usize = 249;

/// A name that cannot be used, or is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A backup id has characters that do not belong in an object key.
    #[error("backup id {0:?} is not usable; use 1 to 128 of a-z A-Z 0-9 . _ - and not only dots")]
    BackupId(String),
    /// A topic name that no Kafka cluster allows.
    #[error("topic name {0:?} is not one that Kafka allows")]
    Topic(String),
    /// A number that no writer puts into a name.
    #[error("{what} {value} cannot stand in a name")]
    Number {
        /// What it counts.
        what: &'static str,
        /// The value.
        value: i64,
    },
    /// A key that nothing here builds.
    #[error("{0:?} is not the name of an object of the archive")]
    Unknown(String),
}

/// What an object key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectName {
    /// The manifest of a backup.
    Manifest {
        /// The backup.
        backup_id: String,
    },
    /// A ledger commit.
    Commit(CommitName),
    /// A segment.
    Segment(SegmentName),
    /// The index beside an uncompressed segment.
    SegmentIndex(SegmentName),
    /// An object of the start-up probe.
    Probe {
        /// The backup.
        backup_id: String,
        /// Random part.
        nonce: u128,
    },
    /// Who audits a backup at present.
    Lease {
        /// The backup.
        backup_id: String,
    },
    /// A piece of the cluster's state.
    State(StateName),
}

/// The parts of a state object's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateName {
    /// The backup.
    pub backup_id: String,
    /// What it is about.
    pub kind: StateKind,
    /// Time of its first line, in epoch milliseconds.
    pub first_at_ms: i64,
    /// Who wrote it.
    pub writer: WriterId,
    /// Random part.
    pub nonce: u64,
}

/// The parts of a ledger commit's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitName {
    /// The backup.
    pub backup_id: String,
    /// Whose chain.
    pub writer: WriterId,
    /// Place in the chain.
    pub seq: u64,
}

/// The parts of a segment's key. No two writers and no two incarnations can collide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// The backup.
    pub backup_id: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Whether the offsets inside are provisional.
    pub unconfirmed: bool,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// First offset.
    pub first_offset: i64,
    /// Who wrote it.
    pub writer: WriterId,
    /// In which session.
    pub session: SessionId,
    /// Which segment of the session.
    pub counter: u32,
    /// Codec, told by the extension.
    pub codec: Codec,
}

/// Checks a backup id.
pub fn check_backup_id(id: &str) -> Result<(), NameError> {
    let usable = (1..=BACKUP_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_name_byte);
    // Object stores and file systems give names of dots a meaning of their own.
    match usable && id.bytes().any(|byte| byte != b'.') {
        true => Ok(()),
        false => Err(NameError::BackupId(id.to_owned())),
    }
}

/// Checks a topic name by Kafka's own rule, which is also safe in keys.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let usable = (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.bytes().all(is_name_byte);
    match usable && topic != "." && topic != ".." {
        true => Ok(()),
        false => Err(NameError::Topic(topic.to_owned())),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Everything of a backup: `{backup}/`.
pub fn backup_prefix(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/"))
}

/// All chains of a backup: `{backup}/ledger/`.
pub fn ledger_prefix(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/ledger/"))
}

/// One chain of a backup: `{backup}/ledger/{writer}/`.
pub fn chain_prefix(backup_id: &str, writer: WriterId) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/ledger/{writer}/"))
}

/// All segments of a backup: `{backup}/topics/`.
pub fn topics_prefix(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/topics/"))
}

/// All segments of a partition: `{backup}/topics/{topic}/partition={p}/`.
pub fn partition_prefix(backup_id: &str, topic: &str, partition: i32) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    check_topic(topic)?;
    check_number("partition", partition.into())?;
    Ok(format!("{backup_id}/topics/{topic}/partition={partition}/"))
}

/// The manifest: `{backup}/manifest.json`.
pub fn manifest_key(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/{MANIFEST}"))
}

/// A ledger commit: `{backup}/ledger/{writer}/{seq}.commit`.
pub fn commit_key(backup_id: &str, writer: WriterId, seq: u64) -> Result<String, NameError> {
    Ok(format!(
        "{}{seq:020}{COMMIT_EXTENSION}",
        chain_prefix(backup_id, writer)?
    ))
}

/// An object of the start-up probe: `{backup}/ledger/probe-{nonce}`.
pub fn probe_key(backup_id: &str, nonce: u128) -> Result<String, NameError> {
    Ok(format!("{}{PROBE}{nonce:032x}", ledger_prefix(backup_id)?))
}

/// The lease of the auditor: `{backup}/auditor.lease`.
pub fn lease_key(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/{LEASE}"))
}

/// All pieces of the cluster's state: `{backup}/state/`.
pub fn state_prefix(backup_id: &str) -> Result<String, NameError> {
    check_backup_id(backup_id)?;
    Ok(format!("{backup_id}/{STATE}"))
}

/// A piece of the cluster's state: `{backup}/state/{kind}/{time}-{writer}-{nonce}.jsonl.zst`.
pub fn state_key(
    backup_id: &str,
    kind: StateKind,
    first_at_ms: i64,
    writer: WriterId,
    nonce: u64,
) -> Result<String, NameError> {
    check_number("time", first_at_ms)?;
    Ok(format!(
        "{}{kind}/{first_at_ms:020}-{writer}-{nonce:016x}{STATE_EXTENSION}",
        state_prefix(backup_id)?
    ))
}

/// The key of a segment.
pub fn segment_key(name: &SegmentName) -> Result<String, NameError> {
    check_number("first offset", name.first_offset)?;
    Ok(format!(
        "{}{name}",
        partition_prefix(&name.backup_id, &name.topic, name.partition)?
    ))
}

/// The key of the index beside an uncompressed segment.
pub fn segment_index_key(segment_key: &str) -> String {
    format!("{segment_key}{INDEX_EXTENSION}")
}

fn check_number(what: &'static str, value: i64) -> Result<(), NameError> {
    if value < 0 {
        Err(NameError::Number { what, value })
    } else {
        Ok(())
    }
}

impl fmt::Display for SegmentName {
    /// The last part of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.unconfirmed { UNCONFIRMED } else { SEGMENT };
        let incarnation = self.incarnation.simple();
        let SegmentName {
            first_offset,
            writer,
            session,
            counter,
            ..
        } = self;
        let extension = self.codec.extension();
        write!(
            f,
            "{kind}{incarnation}-{first_offset:020}-{writer}.{session}-{counter:08}{extension}"
        )
    }
}

/// Tells what a key names. Only keys exactly as built above are known.
pub fn parse_key(key: &str) -> Result<ObjectName, NameError> {
    let unknown = || NameError::Unknown(key.to_owned());
    let name = parse_parts(key).ok_or_else(unknown)?;
    // Numbers have several spellings; only ours is accepted, so that a key and its parts stand for each other.
    let rebuilt = match &name {
        ObjectName::Manifest { backup_id } => manifest_key(backup_id)?,
        ObjectName::Commit(commit) => commit_key(&commit.backup_id, commit.writer, commit.seq)?,
        ObjectName::Segment(segment) => segment_key(segment)?,
        ObjectName::SegmentIndex(segment) => segment_index_key(&segment_key(segment)?),
        ObjectName::Probe { backup_id, nonce } => probe_key(backup_id, *nonce)?,
        ObjectName::Lease { backup_id } => lease_key(backup_id)?,
        ObjectName::State(state) => state_key(
            &state.backup_id,
            state.kind,
            state.first_at_ms,
            state.writer,
            state.nonce,
        )?,
    };
    if rebuilt == key { Ok(name) } else { Err(unknown()) }
}

/// Reads a segment's key.
pub fn parse_segment_key(key: &str) -> Result<SegmentName, NameError> {
    match parse_key(key)? {
        ObjectName::Segment(name) => Ok(name),
        _ => Err(NameError::Unknown(key.to_owned())),
    }
}

/// Reads a commit's key.
pub fn parse_commit_key(key: &str) -> Result<CommitName, NameError> {
    match parse_key(key)? {
        ObjectName::Commit(name) => Ok(name),
        _ => Err(NameError::Unknown(key.to_owned())),
    }
}

/// Reads a manifest's key: its backup id.
pub fn parse_manifest_key(key: &str) -> Result<String, NameError> {
    match parse_key(key)? {
        ObjectName::Manifest { backup_id } => Ok(backup_id),
        _ => Err(NameError::Unknown(key.to_owned())),
    }
}

fn parse_parts(key: &str) -> Option<ObjectName> {
    let (backup, rest) = key.split_once('/')?;
    let backup_id = backup.to_owned();
    if rest == MANIFEST {
        return Some(ObjectName::Manifest { backup_id });
    }
    if rest == LEASE {
        return Some(ObjectName::Lease { backup_id });
    }
    if let Some(rest) = rest.strip_prefix(STATE) {
        return parse_state(backup_id, rest).map(ObjectName::State);
    }
    if let Some(rest) = rest.strip_prefix("ledger/") {
        if let Some(nonce) = rest.strip_prefix(PROBE) {
            return Some(ObjectName::Probe {
                backup_id,
                nonce: u128::from_str_radix(nonce, 16).ok()?,
            });
        }
        let (writer, file) = rest.split_once('/')?;
        let writer = WriterId(u64::from_str_radix(writer, 16).ok()?);
        let seq = file.strip_suffix(COMMIT_EXTENSION)?.parse().ok()?;
        return Some(ObjectName::Commit(CommitName {
            backup_id,
            writer,
            seq,
        }));
    }
    let (topic, rest) = rest.strip_prefix("topics/")?.split_once('/')?;
    let (partition, file) = rest.strip_prefix("partition=")?.split_once('/')?;
    let partition = partition.parse().ok()?;
    match file.strip_suffix(INDEX_EXTENSION) {
        Some(file) => parse_segment_file(backup_id, topic, partition, file).map(ObjectName::SegmentIndex),
        None => parse_segment_file(backup_id, topic, partition, file).map(ObjectName::Segment),
    }
}

fn parse_state(backup_id: String, rest: &str) -> Option<StateName> {
    let (kind, file) = rest.split_once('/')?;
    let mut parts = file.strip_suffix(STATE_EXTENSION)?.split('-');
    let name = StateName {
        backup_id,
        kind: StateKind::from_word(kind)?,
        first_at_ms: parts.next()?.parse().ok()?,
        writer: WriterId(u64::from_str_radix(parts.next()?, 16).ok()?),
        nonce: u64::from_str_radix(parts.next()?, 16).ok()?,
    };
    parts.next().is_none().then_some(name)
}

fn parse_segment_file(backup_id: String, topic: &str, partition: i32, file: &str) -> Option<SegmentName> {
    let (stem, codec) = Codec::ALL.iter().find_map(|codec| {
        let stem = file.strip_suffix(codec.extension())?;
        Some((stem, *codec))
    })?;
    let (unconfirmed, rest) = match stem.strip_prefix(UNCONFIRMED) {
        Some(rest) => (true, rest),
        None => (false, stem.strip_prefix(SEGMENT)?),
    };
    let mut parts = rest.split('-');
    let incarnation = Uuid::try_parse(parts.next()?).ok()?;
    let first_offset = parts.next()?.parse().ok()?;
    let (writer, session) = parts.next()?.split_once('.')?;
    let counter = parts.next()?.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    Some(SegmentName {
        backup_id,
        topic: topic.to_owned(),
        partition,
        unconfirmed,
        incarnation,
        first_offset,
        writer: WriterId(u64::from_str_radix(writer, 16).ok()?),
        session: SessionId(session.parse().ok()?),
        counter,
        codec,
    })
}

const MANIFEST: &str = "manifest.json";
const COMMIT_EXTENSION: &str = ".commit";
const INDEX_EXTENSION: &str = ".idx";
const SEGMENT: &str = "segment-";
const UNCONFIRMED: &str = "unconfirmed-";
const LEASE: &str = "auditor.lease";
const STATE: &str = "state/";
const STATE_EXTENSION: &str = ".jsonl.zst";
const PROBE: &str = "probe-";

/// File names in a buffer's directory.
pub mod buffer_files {
    /// Identity of the buffer.
    pub const IDENTITY: &str = "buffer.id";
    /// Lock of the writer.
    pub const LOCK: &str = "lock";
    /// Last session number handed out.
    pub const SESSION: &str = "session";
    /// How far the writer is.
    pub const POSITIONS: &str = "positions";
    /// How far the reader is.
    pub const ARCHIVED: &str = "archived";

    const DATA_EXTENSION: &str = ".wal";
    const NUMBER_DIGITS: usize = 20;

    /// A data file by its number.
    pub fn data_file(number: u64) -> String {
        format!("{number:020}{DATA_EXTENSION}")
    }

    /// The number of a data file, or `None` for any other name.
    pub fn parse_data_file(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(DATA_EXTENSION)?;
        let plain = digits.len() == NUMBER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests;
