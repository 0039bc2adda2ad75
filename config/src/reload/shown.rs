//! Values of settings as a log shows them: as they are written in the file, as far as that is simple.

use std::path::PathBuf;
use std::time::Duration;

use crate::audit::{OffsetsFrom, StartAt};
use crate::cluster::{Ack, ConnectionAge, OnFailure};
use crate::door::{Addressing, HostPattern, ListenTls, Network};
use crate::endpoint::HostPort;
use crate::jobs::Compression;
use crate::pattern::TopicPattern;
use crate::process::{AccessLog, LogFormat, LogLevel};
use crate::secret::Secret;
use crate::storage::{Backend, Retry};

/// A value that can be told in a line of the log.
pub(super) trait Shown {
    /// None when it has too many parts for a line, or must not be shown.
    fn shown(&self) -> Option<String>;
}

macro_rules! shown {
    ($($kind:ty => $show:expr),* $(,)?) => {
        $(impl Shown for $kind {
            fn shown(&self) -> Option<String> {
                let show: fn(&$kind) -> Option<String> = $show;
                show(self)
            }
        })*
    };
}

shown! {
    bool => |value| Some(value.to_string()),
    u16 => |value| Some(value.to_string()),
    u32 => |value| Some(value.to_string()),
    i32 => |value| Some(value.to_string()),
    u64 => |value| Some(value.to_string()),
    usize => |value| Some(value.to_string()),
    String => |value| Some(value.clone()),
    PathBuf => |value| Some(value.display().to_string()),
    Duration => |value| Some(format!("{value:?}")),
    HostPort => |value| Some(value.to_string()),
    HostPattern => |value| Some(value.to_string()),
    Network => |value| Some(value.to_string()),
    TopicPattern => |value| Some(value.to_string()),
    Ack => |value| Some(word(value)),
    OnFailure => |value| Some(word(value)),
    OffsetsFrom => |value| Some(word(value)),
    StartAt => |value| Some(word(value)),
    AccessLog => |value| Some(value.as_str().to_owned()),
    LogLevel => |value| Some(value.as_str().to_owned()),
    LogFormat => |value| Some(word(value)),
    Compression => |value| Some(value.as_str().to_owned()),
    Backend => |value| Some(value.as_str().to_owned()),
    ConnectionAge => |value| Some(format!("{:?} less up to {} %", value.max, value.jitter_percent)),
    // Too many parts.
    ListenTls => |_| None,
    Addressing => |_| None,
    Retry => |_| None,
    crate::cluster::Buffer => |_| None,
    Secret => |_| None,
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> Option<String> {
        match self {
            None => Some("not set".to_owned()),
            Some(value) => value.shown(),
        }
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> Option<String> {
        let parts: Vec<String> = self.iter().map(Shown::shown).collect::<Option<_>>()?;
        Some(format!("[{}]", parts.join(", ")))
    }
}

/// These are words in the file, too.
fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_ascii_lowercase()
}
