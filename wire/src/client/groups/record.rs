//! What a group coordinator writes down: the records of `__consumer_offsets`.
//!
//! A key begins with the number of its kind, a value with the version of its layout. Kinds that say nothing of what a
//! group has committed or of what kind it is (members, assignments, and whatever newer brokers add) are passed over.
//! Layouts are those of Kafka's group coordinator up to 4.3: kinds 0 and 1 are offsets, 2, 3, 11 and 17 groups.

use uuid::Uuid;

use crate::WireError;
use crate::read::Reader;

/// The topic that group coordinators write to.
pub const GROUP_TOPIC: &str = "__consumer_offsets";

/// The newest layout of an offset that is known. Since the fourth, new fields are tagged and need no new version.
const OFFSET_NEWEST: i16 = 4;
/// The newest layout of a classic group.
const GROUP_NEWEST: i16 = 4;
const FLEXIBLE_FROM: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;

/// Whose offset it is, and of which partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoggedKey {
    /// Group.
    pub group: String,
    /// Topic, by name.
    pub topic: String,
    /// Partition.
    pub partition: i32,
}

/// An offset as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedOffset {
    /// The next offset that the group wants to read.
    pub offset: i64,
    /// Leader epoch of the record before; -1 if not told.
    pub leader_epoch: i32,
    /// Whatever the group wrote beside it.
    pub metadata: String,
    /// The topic's id, if the broker writes it down (from Kafka 4.2 on) and knew it.
    pub topic_id: Option<Uuid>,
}

/// What is said of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedGroup {
    /// `classic`, `consumer`, `share` or `streams`, as brokers list it.
    pub group_type: &'static str,
    /// What its members speak among themselves.
    pub protocol: String,
}

/// One record. No value stands for "not there any more".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRecord {
    /// An offset was committed or removed.
    Offset(LoggedKey, Option<LoggedOffset>),
    /// A group of this type is there, or is not there any more.
    Group(String, Option<LoggedGroup>),
    /// It says nothing of either.
    Other,
}

/// A record that should say something and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupRecordError {
    /// Its bytes are not what they should be.
    #[error("its bytes are not those of a record of a group coordinator")]
    Malformed(#[from] WireError),
    /// A newer broker wrote it.
    #[error("{what} has version {version}, up to {newest} is known")]
    Version {
        /// What.
        what: &'static str,
        /// Its version.
        version: i16,
        /// The newest known one.
        newest: i16,
    },
}

impl GroupRecord {
    /// Reads one record.
    pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<GroupRecord, GroupRecordError> {
        let Some(key) = key else {
            return Ok(GroupRecord::Other);
        };
        let mut key = Reader::new(key);
        let group_type = match key.i16()? {
            0 | 1 => {
                let key = LoggedKey {
                    group: key.string(false)?.to_owned(),
                    topic: key.string(false)?.to_owned(),
                    partition: key.i32()?,
                };
                let value = value.map(offset).transpose()?.flatten();
                return Ok(GroupRecord::Offset(key, value));
            }
            2 => "classic",
            3 => "consumer",
            11 => "share",
            17 => "streams",
            _ => return Ok(GroupRecord::Other),
        };
        let group = key.string(false)?.to_owned();
        let protocol = match (value, group_type) {
            (None, _) => return Ok(GroupRecord::Group(group, None)),
            (Some(value), "classic") => classic_protocol(value)?,
            // Such groups speak what they are, and brokers list them so.
            (Some(_), own) => own.to_owned(),
        };
        let value = LoggedGroup { group_type, protocol };
        Ok(GroupRecord::Group(group, Some(value)))
    }
}

/// A negative offset stands for "nothing committed", as it does in the answers of brokers.
fn offset(value: &[u8]) -> Result<Option<LoggedOffset>, GroupRecordError> {
    let mut value = Reader::new(value);
    let version = known("an offset", value.i16()?, OFFSET_NEWEST)?;
    let flexible = version >= FLEXIBLE_FROM;
    let offset = value.i64()?;
    let leader_epoch = match version >= 3 {
        true => value.i32()?,
        false => -1,
    };
    let metadata = value.string(flexible)?.to_owned();
    let _committed_at = value.i64()?;
    if version == 1 {
        let _expires_at = value.i64()?;
    }
    let topic_id = match flexible {
        true => topic_id(&mut value)?,
        false => None,
    };
    Ok((offset >= 0).then_some(LoggedOffset {
        offset,
        leader_epoch,
        metadata,
        topic_id,
    }))
}

fn topic_id(value: &mut Reader<'_>) -> Result<Option<Uuid>, WireError> {
    let mut found = None;
    for _ in 0..value.unsigned_varint()? {
        let (tag, range) = value.tagged_field()?;
        if tag == TOPIC_ID_TAG {
            let field = value.whole().get(range).unwrap_or_default();
            found = Some(Reader::new(field).uuid()?);
        }
    }
    Ok(found.filter(|id| !id.is_nil()))
}

fn classic_protocol(value: &[u8]) -> Result<String, GroupRecordError> {
    let mut value = Reader::new(value);
    let version = known("a group", value.i16()?, GROUP_NEWEST)?;
    Ok(value.string(version >= FLEXIBLE_FROM)?.to_owned())
}

fn known(what: &'static str, version: i16, newest: i16) -> Result<i16, GroupRecordError> {
    match (0..=newest).contains(&version) {
        true => Ok(version),
        false => Err(GroupRecordError::Version {
            what,
            version,
            newest,
        }),
    }
}
