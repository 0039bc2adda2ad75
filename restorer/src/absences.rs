//! Which explanations of the ledger still hold: a log that was cut back and grows again gives old offsets new records.

use teeline_archive::OffsetRange;
use teeline_archive::ledger::{Absence, AbsenceReason, PartitionAudit, PartitionState};

/// The absences that still explain something, as far as the latest audit tells, each with the offsets it explains.
pub fn in_force(state: &PartitionState) -> impl Iterator<Item = (&Absence, OffsetRange)> {
    let audit = state.audit();
    state
        .absences()
        .iter()
        .filter_map(move |absence| Some((absence, of_one(absence, audit)?)))
}

fn of_one(absence: &Absence, audit: Option<&PartitionAudit>) -> Option<OffsetRange> {
    let range = absence.range();
    let Some(audit) = audit else { return Some(range) };
    match absence.reason {
        // What lies in front of the log's end again was written again.
        AbsenceReason::Truncated if audit.at_ms >= absence.at_ms => {
            OffsetRange::new(range.first.max(audit.high_watermark), range.last)
        }
        // A log that was seen since is not lost, and what lies behind its start was not deleted.
        AbsenceReason::Deleted if audit.at_ms > absence.at_ms => {
            let last = audit.log_start_offset.saturating_sub(1);
            OffsetRange::new(range.first, range.last.min(last))
        }
        AbsenceReason::SourceLost if audit.at_ms > absence.at_ms => None,
        // Somebody was let in since.
        AbsenceReason::NotAuditable if audit.at_ms > absence.at_ms => None,
        // A later look wants everything from where it begins.
        AbsenceReason::NotWanted if audit.at_ms > absence.at_ms => {
            OffsetRange::new(range.first, range.last.min(audit.start_offset.saturating_sub(1)))
        }
        AbsenceReason::Compacted => {
            OffsetRange::new(range.first, range.last.min(last_of_epoch(absence, audit)))
        }
        _ => Some(range),
    }
}

/// The last offset that the epoch, in which nothing was found, still has in the log.
fn last_of_epoch(absence: &Absence, audit: &PartitionAudit) -> i64 {
    let epoch = absence.evidence.leader_epoch;
    let ends = audit.epochs.iter();
    let end = ends
        .filter(|end| epoch >= 0 && end.leader_epoch == epoch && end.end_offset >= 0)
        // Where the log has nothing of that epoch, nothing can be said about what it lacked.
        .map(|end| {
            if end.is_foreign() {
                i64::MIN
            } else {
                end.end_offset.saturating_sub(1)
            }
        })
        .next();
    end.unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use teeline_archive::ledger::{AbsenceEvidence, EpochEnd};
    use uuid::Uuid;

    use super::*;

    fn absence(reason: AbsenceReason, leader_epoch: i32) -> Absence {
        Absence {
            topic: "orders".to_owned(),
            incarnation: Uuid::from_u128(1),
            partition: 0,
            first_offset: 10,
            last_offset: 19,
            reason,
            at_ms: 100,
            evidence: AbsenceEvidence {
                leader_epoch,
                ..AbsenceEvidence::NONE
            },
        }
    }

    fn audit(at_ms: i64, high_watermark: i64, epochs: &[(i32, i64)]) -> PartitionAudit {
        let epochs = epochs.iter().map(|(leader_epoch, end_offset)| EpochEnd {
            leader_epoch: *leader_epoch,
            end_offset: *end_offset,
            known_epoch: *leader_epoch,
        });
        PartitionAudit {
            topic: "orders".to_owned(),
            incarnation: Uuid::from_u128(1),
            partition: 0,
            at_ms,
            start_offset: 0,
            log_start_offset: 0,
            high_watermark,
            leader_epoch: 9,
            epochs: epochs.collect(),
        }
    }

    fn explained(absence: &Absence, audit: &PartitionAudit) -> Option<(i64, i64)> {
        of_one(absence, Some(audit)).map(|range| (range.first, range.last))
    }

    #[test]
    fn an_end_that_the_log_has_passed_again_explains_nothing() {
        let cut = absence(AbsenceReason::Truncated, 3);
        assert_eq!(explained(&cut, &audit(100, 10, &[])), Some((10, 19)));
        assert_eq!(explained(&cut, &audit(200, 15, &[])), Some((15, 19)));
        assert_eq!(explained(&cut, &audit(200, 20, &[])), None);
        // An audit from before the log was cut back does not know.
        assert_eq!(explained(&cut, &audit(50, 20, &[])), Some((10, 19)));
    }

    #[test]
    fn what_was_empty_in_an_epoch_that_lost_its_end_may_be_full_now() {
        let empty = absence(AbsenceReason::Compacted, 3);
        assert_eq!(explained(&empty, &audit(200, 90, &[(4, 50)])), Some((10, 19)));
        assert_eq!(explained(&empty, &audit(200, 90, &[(3, 15)])), Some((10, 14)));
        assert_eq!(explained(&empty, &audit(200, 90, &[(3, 10)])), None);
        assert_eq!(explained(&empty, &audit(200, 90, &[(3, -1)])), Some((10, 19)));
    }

    #[test]
    fn a_refusal_holds_until_somebody_is_let_in() {
        let refused = absence(AbsenceReason::NotAuditable, -1);
        assert_eq!(explained(&refused, &audit(100, 20, &[])), Some((10, 19)));
        assert_eq!(explained(&refused, &audit(101, 20, &[])), None);
    }

    #[test]
    fn what_was_not_wanted_is_wanted_by_a_later_look_that_begins_before_it() {
        let cut = absence(AbsenceReason::NotWanted, -1);
        assert_eq!(explained(&cut, &audit(100, 20, &[])), Some((10, 19)));
        assert_eq!(explained(&cut, &audit(101, 20, &[])), None);
        let from_15 = PartitionAudit {
            start_offset: 15,
            ..audit(101, 20, &[])
        };
        assert_eq!(explained(&cut, &from_15), Some((10, 14)));
    }

    #[test]
    fn what_a_log_still_has_was_not_deleted_and_one_that_answers_is_not_lost() {
        let deleted = absence(AbsenceReason::Deleted, 1);
        let from = |log_start_offset| PartitionAudit {
            log_start_offset,
            ..audit(101, 20, &[(1, 5)])
        };
        assert_eq!(explained(&deleted, &from(20)), Some((10, 19)));
        assert_eq!(explained(&deleted, &from(15)), Some((10, 14)));
        assert_eq!(explained(&deleted, &from(0)), None);
        assert_eq!(
            explained(&deleted, &audit(100, 20, &[])),
            Some((10, 19)),
            "it was there before"
        );
        let lost = absence(AbsenceReason::SourceLost, -1);
        assert_eq!(explained(&lost, &audit(101, 20, &[])), None);
        assert_eq!(explained(&lost, &audit(99, 20, &[])), Some((10, 19)));
    }
}
