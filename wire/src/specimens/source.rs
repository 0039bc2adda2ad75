//! Where made-up values come from.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::apis;

/// A seeded source of values for one message in one version.
pub(crate) struct Source {
    random: StdRng,
    flexible: bool,
    version: i16,
}

impl Source {
    pub(crate) fn new(seed: u64, api_key: i16, version: i16) -> Source {
        let flexible = apis::is_flexible(api_key, version) == Some(true);
        Source {
            random: StdRng::seed_from_u64(seed),
            flexible,
            version,
        }
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit)
    }

    pub(super) fn int(&mut self) -> i32 {
        self.random.random()
    }

    pub(super) fn long(&mut self) -> i64 {
        self.random.random()
    }

    pub(super) fn short(&mut self) -> i16 {
        self.random.random()
    }

    pub(super) fn chance(&mut self) -> bool {
        self.random.random()
    }

    pub(super) fn bytes(&mut self) -> Bytes {
        let length = match self.below(4) {
            0 => 0,
            1 => self.below(130),
            _ => self.below(2000),
        };
        let mut bytes = vec![0; length];
        self.random.fill(bytes.as_mut_slice());
        Bytes::from(bytes)
    }

    pub(super) fn text(&mut self) -> StrBytes {
        let length = self.below(20);
        let text: String = (0..length)
            .map(|_| char::from(b'a' + self.below(26) as u8))
            .collect();
        StrBytes::from_string(text)
    }

    pub(super) fn nullable_text(&mut self) -> Option<StrBytes> {
        self.chance().then(|| self.text())
    }

    /// A host that stands out, so that a search finds it where it must not be.
    pub(super) fn host(&mut self) -> StrBytes {
        StrBytes::from_string(format!("broker-{}.internal.example", self.below(1_000_000)))
    }

    pub(super) fn port(&mut self) -> i32 {
        self.random.random_range(1..65536)
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        Uuid::from_u128(self.random.random())
    }

    pub(super) fn many<T>(&mut self, limit: usize, mut make: impl FnMut(&mut Source) -> T) -> Vec<T> {
        let count = self.below(limit);
        (0..count).map(|_| make(self)).collect()
    }

    /// Tagged fields that nobody knows yet.
    pub(super) fn tags(&mut self) -> BTreeMap<i32, Bytes> {
        let mut tags = BTreeMap::new();
        while self.flexible && self.below(4) == 0 {
            let tag = 1000 + self.below(100_000) as i32;
            let content = self.bytes();
            tags.insert(tag, content);
        }
        tags
    }

    pub(super) fn topic_name(&mut self) -> TopicName {
        TopicName(self.text())
    }

    pub(super) fn from(&self, version: i16) -> bool {
        self.version >= version
    }
}
