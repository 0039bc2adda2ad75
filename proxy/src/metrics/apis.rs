//! Requests and bytes by API: one slot per key of our own table and one for all others, so that counting is an index and
//! an addition, and a key that a peer made up is no label.

use std::sync::OnceLock;

use metrics::{Counter, counter};
use teeline_wire::apis;

/// What is counted of one API.
pub(crate) struct ApiCounters {
    pub(crate) requests: Counter,
    pub(crate) request_bytes: Counter,
    pub(crate) response_bytes: Counter,
}

impl ApiCounters {
    fn register(cluster: &str, api: &'static str) -> ApiCounters {
        let cluster = || cluster.to_owned();
        ApiCounters {
            requests: counter!("teeline_requests_total", "cluster" => cluster(), "api" => api),
            request_bytes: counter!("teeline_request_bytes_total", "cluster" => cluster(), "api" => api),
            response_bytes: counter!("teeline_response_bytes_total", "cluster" => cluster(), "api" => api),
        }
    }
}

/// The counters of all APIs, of which those exist that were seen.
pub(super) struct Apis {
    known: Vec<OnceLock<ApiCounters>>,
    unknown: ApiCounters,
}

impl Apis {
    pub(super) fn new(cluster: &str) -> Apis {
        let known = usize::try_from(apis::NEWEST_KNOWN_KEY)
            .unwrap_or_default()
            .saturating_add(1);
        Apis {
            known: (0..known).map(|_| OnceLock::new()).collect(),
            unknown: ApiCounters::register(cluster, UNKNOWN),
        }
    }

    pub(super) fn of(&self, cluster: &str, api_key: i16) -> &ApiCounters {
        let slot = usize::try_from(api_key)
            .ok()
            .and_then(|index| self.known.get(index))
            .filter(|_| apis::is_known(api_key));
        slot.map_or(&self.unknown, |slot| {
            slot.get_or_init(|| ApiCounters::register(cluster, apis::name(api_key)))
        })
    }
}

/// The label of an API: its name, or one word for all that is not in our table.
pub(crate) fn label(api_key: Option<i16>) -> &'static str {
    api_key
        .filter(|api_key| apis::is_known(*api_key))
        .map_or(UNKNOWN, apis::name)
}

const UNKNOWN: &str = "Unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_ours_share_one_label() {
        for key in [i16::MIN, -1, apis::NEWEST_KNOWN_KEY.saturating_add(1), i16::MAX] {
            assert_eq!(label(Some(key)), "Unknown");
        }
        assert_eq!(label(None), "Unknown");
        assert_eq!(label(Some(apis::FETCH)), "Fetch");
    }
}
