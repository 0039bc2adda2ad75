//! What is tried with every client.

/// A row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// What programs call it.
    pub id: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What is in its topic afterwards; `None` for features without a topic of their own.
    pub topic: Option<Content>,
}

/// What a feature leaves in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The thirty records of the contract, each in its partition.
    Records,
    /// Those without the ten in the middle, which were aborted.
    Committed,
    /// So many records, whatever they are.
    Count(usize),
    /// Whatever it may be.
    Any,
}

/// Every feature, in the order in which programs run them.
pub const FEATURES: [Feature; 24] = [
    row("acks-0", "produce, acks 0", Some(Content::Records)),
    row("acks-1", "produce, acks 1", Some(Content::Records)),
    row("acks-all", "produce, acks all", Some(Content::Records)),
    row("gzip", "produce, gzip", Some(Content::Records)),
    row("snappy", "produce, snappy", Some(Content::Records)),
    row("lz4", "produce, lz4", Some(Content::Records)),
    row("zstd", "produce, zstd", Some(Content::Records)),
    row("idempotent", "idempotent producer", Some(Content::Records)),
    row(
        "transactions",
        "transactions, committed and aborted",
        Some(Content::Committed),
    ),
    row(
        "exactly-once",
        "consume, process, produce exactly once",
        Some(Content::Count(60)),
    ),
    row("consume", "consume every codec", None),
    row("offsets", "offsets: first, last, by time", None),
    row("group-classic", "consumer group, classic protocol", None),
    row("group-next-gen", "consumer group, KIP-848", None),
    row("share-group", "share group, KIP-932", None),
    row("topics", "topics: create, describe, grow, delete", None),
    row(
        "configs",
        "configurations of topics and brokers",
        Some(Content::Any),
    ),
    row("acls", "ACLs: create, describe, delete", None),
    row("quotas", "client quotas: set, describe, remove", None),
    row("groups", "groups: offsets, describe, list, delete", None),
    row("delete-records", "delete records", Some(Content::Any)),
    row("cluster", "describe the cluster", None),
    row("streams", "Kafka Streams, exactly once", Some(Content::Any)),
    row(
        "connect",
        "Kafka Connect, file to topic to file",
        Some(Content::Count(20)),
    ),
];

const fn row(id: &'static str, title: &'static str, topic: Option<Content>) -> Feature {
    Feature { id, title, topic }
}

/// A feature by the name that programs use.
pub fn by_id(id: &str) -> Option<Feature> {
    FEATURES.into_iter().find(|feature| feature.id == id)
}
