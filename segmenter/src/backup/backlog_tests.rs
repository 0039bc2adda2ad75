use uuid::Uuid;

use super::*;

const RULES: Rules = Rules {
    interval: Duration::from_secs(60),
    segment_bytes: 1_000_000,
    survey_interval: Duration::from_secs(600),
};

fn id(partition: i32) -> PartitionId {
    PartitionId {
        incarnation: Uuid::from_u128(1),
        partition,
    }
}

fn bounds(log_start: i64, high_watermark: i64) -> Bounds {
    Bounds {
        log_start,
        high_watermark,
        leader_epoch: 3,
    }
}

fn settled(bounds: Bounds) -> Settled {
    Settled {
        bounds,
        is_done: true,
        offsets: 0,
        bytes: 0,
    }
}

/// Two partitions, archived up to 1,000.
fn backlog(start: Instant) -> Backlog {
    let mut backlog = Backlog::new(RULES, start);
    for partition in [0, 1] {
        backlog.settle(id(partition), &settled(bounds(0, 1_000)), start);
    }
    backlog
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_record_waits_for_others_until_the_interval_is_over_and_idle_partitions_are_left_out() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    assert_eq!(backlog.due(start + seconds(599)), None);
    assert_eq!(
        backlog.due(start + seconds(600)),
        Some((Cause::Survey, Scope::All))
    );
    backlog.news(id(0), bounds(0, 1_001), start + seconds(100));
    backlog.news(id(0), bounds(0, 1_002), start + seconds(150));
    assert_eq!(backlog.due_at(start + seconds(150)), start + seconds(160));
    assert_eq!(backlog.due(start + seconds(159)), None);
    let quiet = BTreeSet::from([id(1)]);
    let due = Some((Cause::Age, Scope::AllBut(quiet)));
    assert_eq!(backlog.due(start + seconds(160)), due);
    // What came meanwhile comes along.
    backlog.news(id(1), bounds(0, 1_001), start + seconds(159));
    let due = Some((Cause::Age, Scope::AllBut(BTreeSet::new())));
    assert_eq!(backlog.due(start + seconds(160)), due);
    backlog.settle(id(0), &settled(bounds(0, 1_002)), start + seconds(161));
    backlog.settle(id(1), &settled(bounds(0, 1_001)), start + seconds(161));
    assert_eq!(backlog.due(start + seconds(300)), None);
}

#[test]
fn enough_for_a_segment_does_not_wait_and_takes_nobody_along() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    backlog.news(id(1), bounds(0, 1_001), start);
    backlog.news(id(0), bounds(0, 1_900), start);
    assert_eq!(backlog.due(start), None, "900 records of 1 KiB");
    backlog.news(id(0), bounds(0, 2_000), start);
    let quiet = BTreeSet::from([id(1)]);
    assert_eq!(backlog.due(start), Some((Cause::Size, Scope::AllBut(quiet))));
    // Learnt: records are small here.
    let small = Settled {
        offsets: 1_000,
        bytes: 10_000,
        ..settled(bounds(0, 2_000))
    };
    for _ in 0..9 {
        backlog.settle(id(0), &small, start);
    }
    backlog.news(id(0), bounds(0, 12_000), start);
    assert_eq!(backlog.due(start), None);
}

#[test]
fn what_retention_comes_near_to_does_not_wait() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    backlog.news(id(0), bounds(0, 1_500), start);
    assert_eq!(backlog.due(start), None);
    backlog.news(id(0), bounds(400, 1_500), start);
    assert_eq!(backlog.due(start), None, "600 archived offsets lie before it");
    backlog.news(id(0), bounds(500, 1_500), start);
    let due = backlog.due(start).map(|(cause, _)| cause);
    assert_eq!(due, Some(Cause::Retention));
    // Retention alone takes nothing that is not archived.
    let mut idle = self::backlog(start);
    idle.news(id(0), bounds(1_000, 1_000), start);
    assert_eq!(idle.due(start), None);
}

#[test]
fn a_log_that_was_cut_back_or_has_another_leader_is_looked_at() {
    let start = Instant::now();
    let other_leader = Bounds {
        leader_epoch: 4,
        ..bounds(0, 1_000)
    };
    for news in [bounds(0, 900), other_leader] {
        let mut backlog = backlog(start);
        backlog.news(id(0), news, start);
        let due = backlog.due(start + RULES.interval).map(|(cause, _)| cause);
        assert_eq!(due, Some(Cause::Age), "{news:?}");
    }
    let mut backlog = backlog(start);
    backlog.lost(id(1), start);
    assert!(backlog.due(start + RULES.interval).is_some());
}

#[test]
fn what_failed_and_what_is_unclear_is_tried_again_after_the_interval_and_not_at_once() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    let failed = Settled {
        is_done: false,
        ..settled(bounds(0, 2_000_000))
    };
    backlog.settle(id(0), &failed, start);
    assert_eq!(backlog.due(start + seconds(59)), None);
    assert!(backlog.due(start + seconds(60)).is_some());
    backlog.settle(id(0), &settled(bounds(0, 2_000_000)), start);
    backlog.unclear(start);
    backlog.unclear(start + seconds(30));
    assert_eq!(backlog.due(start + seconds(59)), None);
    assert_eq!(
        backlog.due(start + seconds(60)),
        Some((Cause::Unclear, Scope::All))
    );
    backlog.surveyed(start + seconds(60));
    assert_eq!(backlog.due(start + seconds(61)), None);
}

/// A round of everything but partition 1 that did not come to partition 0.
fn without_answer(backlog: &mut Backlog, is_whole: bool, now: Instant) -> bool {
    let scope = Scope::AllBut(BTreeSet::from([id(1)]));
    let some_gone = backlog.round_over(&scope, |_| false, is_whole, now);
    backlog.heard();
    some_gone
}

#[test]
fn what_a_round_did_not_come_to_is_not_due_again_at_once() {
    let start = Instant::now();
    let late = start + RULES.interval;
    let waiting = [
        (Cause::Age, bounds(0, 1_001)),
        (Cause::Size, bounds(0, 2_000)),
        (Cause::Retention, bounds(500, 1_500)),
    ];
    for (cause, news) in waiting {
        let mut backlog = backlog(start);
        backlog.news(id(0), news, start);
        let now = if cause == Cause::Age { late } else { start };
        assert_eq!(backlog.due(now).map(|(cause, _)| cause), Some(cause));
        let mut gone = self::backlog(start);
        gone.news(id(0), news, start);
        // Not everything was found: it may be there.
        assert!(!without_answer(&mut backlog, false, now));
        assert_eq!(backlog.due(now + seconds(59)), None, "{cause:?}");
        let due = Some((Cause::Unclear, Scope::All));
        assert_eq!(backlog.due(now + seconds(60)), due, "{cause:?}");
        // Everything else was found: it is gone.
        assert!(without_answer(&mut gone, true, now));
        assert_eq!(gone.ids(), BTreeSet::from([id(1)]));
        assert_eq!(gone.due(now + seconds(300)), None, "{cause:?}");
    }
}

#[test]
fn a_round_of_everything_with_something_unclear_forgets_nothing_and_comes_back_to_it() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    backlog.lost(id(0), start);
    let now = start + RULES.interval;
    backlog.surveyed(now);
    assert!(!backlog.round_over(&Scope::All, |of| *of == id(1), false, now));
    backlog.heard();
    assert_eq!(backlog.ids().len(), 2);
    assert_eq!(backlog.due(now + seconds(59)), None);
    assert!(backlog.due(now + seconds(60)).is_some());
    assert!(backlog.round_over(&Scope::All, |of| *of == id(1), true, now));
    assert!(!backlog.knows(&id(0)) && backlog.knows(&id(1)));
}

#[test]
fn between_two_rounds_the_logs_are_heard() {
    let start = Instant::now();
    let mut backlog = backlog(start);
    backlog.round_over(&Scope::All, |_| true, true, start);
    backlog.news(id(0), bounds(0, 2_000_000), start);
    assert_eq!(backlog.due(start), None);
    assert_eq!(backlog.due_at(start), start + HEAR);
    assert!(backlog.due(start + HEAR).is_some(), "no broker has said anything");
    backlog.heard();
    assert!(backlog.due(start).is_some());
}
