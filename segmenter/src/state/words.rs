//! The protocol's numbers as the words that Kafka's own tools use. A number without a word stays a number.

/// Kind of resource of an ACL.
pub(super) fn resource_type(number: i8) -> String {
    const WORDS: [(i8, &str); 6] = [
        (2, "TOPIC"),
        (3, "GROUP"),
        (4, "CLUSTER"),
        (5, "TRANSACTIONAL_ID"),
        (6, "DELEGATION_TOKEN"),
        (7, "USER"),
    ];
    word(&WORDS, number)
}

/// How the name of a resource is meant.
pub(super) fn pattern_type(number: i8) -> String {
    word(&[(3, "LITERAL"), (4, "PREFIXED")], number)
}

/// Operation of an ACL.
pub(super) fn operation(number: i8) -> String {
    const WORDS: [(i8, &str); 14] = [
        (2, "ALL"),
        (3, "READ"),
        (4, "WRITE"),
        (5, "CREATE"),
        (6, "DELETE"),
        (7, "ALTER"),
        (8, "DESCRIBE"),
        (9, "CLUSTER_ACTION"),
        (10, "DESCRIBE_CONFIGS"),
        (11, "ALTER_CONFIGS"),
        (12, "IDEMPOTENT_WRITE"),
        (13, "CREATE_TOKENS"),
        (14, "DESCRIBE_TOKENS"),
        (15, "TWO_PHASE_COMMIT"),
    ];
    word(&WORDS, number)
}

/// Whether an ACL allows or denies.
pub(super) fn permission(number: i8) -> String {
    word(&[(2, "DENY"), (3, "ALLOW")], number)
}

/// SCRAM mechanism.
pub(super) fn mechanism(number: i8) -> String {
    word(&[(1, "SCRAM-SHA-256"), (2, "SCRAM-SHA-512")], number)
}

fn word(words: &[(i8, &str)], number: i8) -> String {
    let known = words.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned())
}
