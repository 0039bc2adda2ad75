//! Names of everything that Teeline stores: object keys of the archive and file names of the buffer.
//!
//! They are built and parsed here only, and tested in both directions. The store's own prefix is no part of
//! them: whoever opens the store adds it.

use crate::ids::{SessionId, WriterId};
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment() -> SegmentName {
        SegmentName {
            backup_id: "daily".into(),
            topic: "orders.v1".into(),
            partition: 3,
            unconfirmed: false,
            incarnation: Uuid::from_u128(0xfeed),
            first_offset: 1234,
            writer: WriterId(0xabc),
            session: SessionId(7),
            counter: 42,
            codec: Codec::Zstd,
        }
    }

    #[test]
    fn keys_are_spelled_as_documented() {
        let key = segment_key(&segment()).expect("usable");
        assert_eq!(
            key,
            "daily/topics/orders.v1/partition=3/segment-0000000000000000000000000000feed-\
             00000000000000001234-0000000000000abc.7-00000042.zst"
        );
        assert_eq!(manifest_key("daily").expect("usable"), "daily/manifest.json");
        let commit = commit_key("daily", WriterId(0xabc), 9).expect("usable");
        assert_eq!(
            commit,
            "daily/ledger/0000000000000abc/00000000000000000009.commit"
        );
        assert_eq!(buffer_files::data_file(1), "00000000000000000001.wal");
    }

    #[test]
    fn what_is_not_built_here_is_not_known() {
        let key = segment_key(&segment()).expect("usable");
        for strange in [
            "",
            "daily",
            "daily/",
            "daily/manifest.json/",
            "../manifest.json",
            "daily/ledger/0000000000000abc/9.commit",
            "daily/ledger/0000000000000ABC/00000000000000000009.commit",
            &key.replace("partition=3", "partition=+3"),
            &key.replace("partition=3", "partition=-3"),
            &key.replace(".zst", ".zip"),
            &key.replace("orders.v1", ".."),
            &format!("{key}.tmp"),
        ] {
            assert!(parse_key(strange).is_err(), "{strange}");
        }
        for name in [
            "1.wal",
            "00000000000000000001.WAL",
            "+0000000000000000001.wal",
            "00000000000000000001",
        ] {
            assert_eq!(buffer_files::parse_data_file(name), None, "{name}");
        }
    }

    #[test]
    fn ids_that_would_leave_their_place_are_refused() {
        for id in ["", ".", "..", "...", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(check_backup_id(id).is_err(), "{id}");
        }
        assert!(check_backup_id("nightly-2026.11_a").is_ok());
        for topic in ["", ".", "..", "a/b", "a b", &"x".repeat(250)] {
            assert!(check_topic(topic).is_err(), "{topic}");
        }
    }

    proptest! {
        #[test]
        fn every_key_that_is_built_is_parsed_back(
            backup_id in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}",
            topic in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,30}",
            numbers in (0..=i32::MAX, 0..=i64::MAX, any::<u64>(), any::<u64>(), any::<u32>(), any::<u128>()),
            unconfirmed: bool,
            codec in prop::sample::select(Codec::ALL.to_vec()),
        ) {
            let (partition, first_offset, writer, session, counter, random) = numbers;
            let name = SegmentName {
                backup_id: backup_id.clone(), topic, partition, unconfirmed,
                incarnation: Uuid::from_u128(random), first_offset, writer: WriterId(writer),
                session: SessionId(session), counter, codec,
            };
            let key = segment_key(&name).expect("usable");
            prop_assert_eq!(parse_segment_key(&key), Ok(name.clone()));
            prop_assert_eq!(parse_key(&segment_index_key(&key)), Ok(ObjectName::SegmentIndex(name)));
            let commit = commit_key(&backup_id, WriterId(writer), session).expect("usable");
            let parts = CommitName { backup_id: backup_id.clone(), writer: WriterId(writer), seq: session };
            prop_assert_eq!(parse_commit_key(&commit), Ok(parts));
            let probe = probe_key(&backup_id, random).expect("usable");
            let parts = ObjectName::Probe { backup_id: backup_id.clone(), nonce: random };
            prop_assert_eq!(parse_key(&probe), Ok(parts));
            let manifest = manifest_key(&backup_id).expect("usable");
            prop_assert_eq!(parse_manifest_key(&manifest), Ok(backup_id));
            prop_assert_eq!(buffer_files::parse_data_file(&buffer_files::data_file(writer)), Some(writer));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,80}") {
            let _ = parse_key(&text);
            let _ = buffer_files::parse_data_file(&text);
        }
    }
}
