//! What a broker speaks.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::ApiVersionsResponse;
use teeline_config::HostPort;

use super::ClientError;
use crate::apis;

/// The API versions and features that a broker offered at the start of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerVersions {
    ranges: HashMap<i16, (i16, i16)>,
    transaction_version: i16,
}

impl BrokerVersions {
    pub(super) fn from_response(response: &ApiVersionsResponse) -> Self {
        let ranges = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)));
        let transaction_version = response
            .finalized_features
            .iter()
            .find(|feature| feature.name.as_str() == "transaction.version")
            .map_or(0, |feature| feature.max_version_level);
        Self {
            ranges: ranges.collect(),
            transaction_version,
        }
    }

    /// The versions of an API that the broker offers.
    pub fn range(&self, api_key: i16) -> Option<RangeInclusive<i16>> {
        self.ranges.get(&api_key).map(|&(min, max)| min..=max)
    }

    /// The finalized `transaction.version`: from 2 on, every transaction has an epoch of its own (KIP-890).
    pub fn transaction_version(&self) -> i16 {
        self.transaction_version
    }

    /// The newest version that is in `ours` and in the broker's range.
    pub fn newest_common(&self, api_key: i16, ours: &RangeInclusive<i16>) -> Option<i16> {
        let offered = self.range(api_key)?;
        let newest = *offered.end().min(ours.end());
        (newest >= *offered.start() && newest >= *ours.start()).then_some(newest)
    }

    pub(super) fn choose(
        &self,
        address: &HostPort,
        api_key: i16,
        ours: &RangeInclusive<i16>,
    ) -> Result<i16, ClientError> {
        self.newest_common(api_key, ours)
            .ok_or_else(|| ClientError::UnsupportedVersion {
                address: address.to_string(),
                what: apis::name(api_key),
                broker: self.range(api_key).map_or("none".to_owned(), |range| {
                    format!("{} to {}", range.start(), range.end())
                }),
                ours: format!("{} to {}", ours.start(), ours.end()),
            })
    }
}
