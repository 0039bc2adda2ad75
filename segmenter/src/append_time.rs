//! In which form the broker stored a batch: with the producer's timestamps, or stamped with its own append time.
//!
//! A topic with `message.timestamp.type=LogAppendTime` stores each batch with a flag and the append time in its header;
//! the answer carries that time, so the stored batch can be rebuilt. But the answer also carries a time when the batch
//! was a duplicate: then it is the batch's own timestamp, in any topic. Where that cannot be told apart the batch is
//! taken from the log instead.

use teeline_wire::batch::BatchHeader;

/// The form in which the broker stored a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredForm {
    /// As it was sent.
    AsSent,
    /// Stamped with this append time.
    Stamped(i64),
    /// One of the two.
    Ambiguous,
}

/// Tells the form from the batch, the answer's append time (-1 for none) and, where it is known, whether the topic
/// stamps.
pub fn stored_form(header: &BatchHeader, answered_ms: i64, topic_stamps: Option<bool>) -> StoredForm {
    if answered_ms < 0 {
        // A set flag in a CreateTime topic is cleared by the broker; the builder does the same.
        return if topic_stamps == Some(true) {
            StoredForm::Ambiguous
        } else {
            StoredForm::AsSent
        };
    }
    let could_be_duplicate = answered_ms == header.max_timestamp;
    match topic_stamps {
        Some(true) => StoredForm::Stamped(answered_ms),
        Some(false) if could_be_duplicate => StoredForm::AsSent,
        // The configuration that we know is not the one that the broker used.
        Some(false) => StoredForm::Ambiguous,
        None if could_be_duplicate => StoredForm::Ambiguous,
        None => StoredForm::Stamped(answered_ms),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_batch_is_rebuilt_only_when_the_append_time_is_certain() {
        let header = BatchHeader::parse(&crate::testing::batch(0, 3)).unwrap();
        let own = header.max_timestamp;
        let cases = [
            (-1, None, StoredForm::AsSent),
            (-1, Some(false), StoredForm::AsSent),
            (-1, Some(true), StoredForm::Ambiguous),
            (own, Some(true), StoredForm::Stamped(own)),
            (own, Some(false), StoredForm::AsSent),
            (own, None, StoredForm::Ambiguous),
            (own + 5, Some(true), StoredForm::Stamped(own + 5)),
            (own + 5, Some(false), StoredForm::Ambiguous),
            (own + 5, None, StoredForm::Stamped(own + 5)),
        ];
        for (answered, stamps, expected) in cases {
            assert_eq!(
                stored_form(&header, answered, stamps),
                expected,
                "{answered} {stamps:?}"
            );
        }
    }
}
