//! One line, to text and back.

use crate::state::STATE_VERSION;
use crate::state::item::{
    AclValue, GroupValue, ItemKey, ItemValue, OffsetValue, PartValue, QuotaValue, ScramUserValue,
    SourceValue, TopicItemValue,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The first line of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the lines.
    pub version: u16,
    /// The backup.
    pub backup_id: String,
    /// The cluster.
    pub cluster_id: String,
    /// What the object is about, in the word that stands in its key.
    pub kind: String,
    /// Who watched: one recorder from its start to its end. 16 hex digits.
    pub run: String,
    /// Which object of the run and kind, from 0 without gaps.
    pub seq: u64,
    /// Whether the state begins anew here: the lines say all of it.
    pub full: bool,
    /// Program and version, for people.
    pub program: String,
}

/// A line after the header.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was seen, in epoch milliseconds.
    pub at_ms: i64,
    /// What.
    pub what: What,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The item is like this now.
    Set(ItemKey, ItemValue),
    /// The item is not there any more.
    Gone(ItemKey),
    /// Everything was looked at, and is as the lines so far say.
    Seen,
    /// Written by a newer version; it says nothing to us.
    Unknown,
}

impl Header {
    /// As text.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// From text. The version comes first: a newer header may have other fields.
    pub(super) fn decode(text: &[u8]) -> Result<Result<Header, u16>, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u16,
        }
        let found: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if found.version != STATE_VERSION {
            return Ok(Err(found.version));
        }
        serde_json::from_slice(text)
            .map(Ok)
            .map_err(|error| error.to_string())
    }
}

impl Line {
    /// As text, without the line break.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let text = |error: serde_json::Error| error.to_string();
        let mut line = Map::new();
        line.insert("at".to_owned(), json!(self.at_ms));
        match &self.what {
            What::Set(key, value) => {
                if key.word() != value.word() {
                    return Err(format!(
                        "a value of {} under a key of {}",
                        value.word(),
                        key.word()
                    ));
                }
                // The key is an object of one member, whose content the value joins.
                if let Value::Object(key) = serde_json::to_value(key).map_err(text)? {
                    line.extend(key);
                }
                let item = line.get_mut(key.word()).and_then(Value::as_object_mut);
                if let (Some(item), Value::Object(value)) = (item, serde_json::to_value(value).map_err(text)?)
                {
                    item.extend(value);
                }
            }
            What::Gone(key) => {
                line.insert("gone".to_owned(), serde_json::to_value(key).map_err(text)?);
            }
            What::Seen => {
                line.insert("seen".to_owned(), Value::Bool(true));
            }
            What::Unknown => return Err("a line without meaning".to_owned()),
        }
        serde_json::to_vec(&Value::Object(line)).map_err(text)
    }

    /// From text.
    pub(super) fn decode(text: &[u8]) -> Result<Line, String> {
        let mut line: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let at_ms = line
            .remove("at")
            .and_then(|at| at.as_i64())
            .ok_or("it has no time")?;
        let what = if line.contains_key("seen") {
            What::Seen
        } else if let Some(key) = line.remove("gone") {
            known_key(key)?.map_or(What::Unknown, What::Gone)
        } else {
            let word = WORDS.into_iter().find(|word| line.contains_key(*word));
            match word.and_then(|word| Some((word, line.remove(word)?))) {
                Some((word, item)) => item_of(word, item)?,
                None => What::Unknown,
            }
        };
        Ok(Line { at_ms, what })
    }
}

impl ItemValue {
    fn word(&self) -> &'static str {
        match self {
            ItemValue::NotAuditable(_) => "not_auditable",
            ItemValue::Group(_) => "group",
            ItemValue::Offset(_) => "offset",
            ItemValue::Topic(_) => "topic",
            ItemValue::Acl(_) => "acl",
            ItemValue::Quota(_) => "quota",
            ItemValue::ScramUser(_) => "scram_user",
            ItemValue::Source(_) => "source",
        }
    }
}

const WORDS: [&str; 8] = [
    "not_auditable",
    "group",
    "offset",
    "topic",
    "acl",
    "quota",
    "scram_user",
    "source",
];

/// The key of a gone line; none if its word is not known.
fn known_key(key: Value) -> Result<Option<ItemKey>, String> {
    let is_known = key
        .as_object()
        .is_some_and(|key| WORDS.iter().any(|word| key.contains_key(*word)));
    if !is_known {
        return Ok(None);
    }
    from_value(key).map(Some)
}

fn item_of(word: &str, item: Value) -> Result<What, String> {
    // Fields of the value are passed over when the key is read, and the other way round.
    let key: ItemKey = from_value(json!({ word: item.clone() }))?;
    let value = match key {
        ItemKey::NotAuditable(_) => ItemValue::NotAuditable(from_value::<PartValue>(item)?),
        ItemKey::Group(_) => ItemValue::Group(from_value::<GroupValue>(item)?),
        ItemKey::Offset(_) => ItemValue::Offset(from_value::<OffsetValue>(item)?),
        ItemKey::Topic(_) => ItemValue::Topic(from_value::<TopicItemValue>(item)?),
        ItemKey::Acl(_) => ItemValue::Acl(from_value::<AclValue>(item)?),
        ItemKey::Quota(_) => ItemValue::Quota(from_value::<QuotaValue>(item)?),
        ItemKey::ScramUser(_) => ItemValue::ScramUser(from_value::<ScramUserValue>(item)?),
        ItemKey::Source(_) => ItemValue::Source(from_value::<SourceValue>(item)?),
    };
    Ok(What::Set(key, value))
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}
