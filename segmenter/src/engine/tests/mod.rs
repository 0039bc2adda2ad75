#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod absent;
mod epochs;
mod holes;
mod left_out;
mod unnamed;

use super::*;
use crate::append_time::StoredForm;
use crate::settlement::Answer;
use crate::source::SurveyReport;
use crate::testing::{CLUSTER, batch_with, labelled_batch, location};
use bytes::Bytes;
use teeline_archive::buffer::{Catalog, CatalogTopic, ConnectionLost, EndTxn, Intent, Outcome, TopicRef};
use teeline_archive::ids::Lsn;
use teeline_archive::ledger::Entry;
use teeline_config::TopicPattern;

const TOPIC: Uuid = Uuid::from_u128(7);

struct Feed {
    engine: Engine,
    session: SessionId,
    next: u64,
    now_ms: i64,
    /// What outcomes say of the leader that answers.
    leader_epoch: i32,
}

impl Feed {
    fn new(has_source: bool) -> Self {
        let close = CloseLimits {
            bytes_max: 1 << 20,
            age_max_ms: 60_000,
            small_bytes: 1 << 20,
            positions_max: 8,
            memory_bytes_max: 1 << 20,
        };
        let settings = EngineSettings {
            backup_id: "backup".to_owned(),
            writer: WriterId(1),
            close,
            patience: PatienceLimits {
                small_bytes: 0,
                per_minute: 0,
                age_max_ms: 0,
                waiting_bytes_max: 0,
                gust_ms: 0,
            },
            hole_grace_ms: 30_000,
            topics: TopicFilter::new(Vec::new(), vec![TopicPattern::parse("hidden*").unwrap()]),
            has_source,
            has_auditor: true,
        };
        let mut engine = Engine::new(settings, &LedgerState::new(), None);
        engine.on_session_start(SessionId(1), 0);
        Feed {
            engine,
            session: SessionId(1),
            next: 1,
            now_ms: 0,
            leader_epoch: -1,
        }
    }

    fn frame(&mut self, frame: Frame) -> BufferPosition {
        let position = BufferPosition {
            session: self.session,
            lsn: Lsn(self.next),
        };
        self.next += 1;
        self.engine
            .on_frame(position, location(position), frame, self.now_ms)
            .unwrap();
        position
    }

    /// Asks what a survey is for and has each partition answered so; how many there were.
    fn survey(&mut self, now_ms: i64, answer: &Answer) -> usize {
        let questions = self.engine.take_survey(now_ms).unwrap();
        let asked = questions.partitions.len();
        let answers = questions.partitions.into_iter();
        let report = SurveyReport {
            answers: answers.map(|question| (question, answer.clone())).collect(),
            ..SurveyReport::default()
        };
        self.engine.on_survey(now_ms, Ok(report), now_ms);
        asked
    }

    fn catalog(&mut self, id: Uuid) -> BufferPosition {
        self.catalog_frame(Lsn(self.next - 1), id, -1)
    }

    fn catalog_frame(&mut self, requested_after: Lsn, id: Uuid, epoch: i32) -> BufferPosition {
        let topic = CatalogTopic {
            name: "orders".to_owned(),
            id,
            error_code: 0,
            partitions: vec![(0, epoch)],
            replication_factor: 1,
        };
        self.frame(Frame::Catalog(Catalog {
            requested_after,
            at_ms: 0,
            cluster_id: CLUSTER.to_owned(),
            topics: vec![topic],
        }))
    }

    fn intent(&mut self, topic: TopicRef, records: Bytes) -> BufferPosition {
        self.frame(Frame::Intent(Intent {
            connection_id: 1,
            acks: -1,
            sent_at_ms: self.now_ms,
            topic,
            partition: 0,
            transactional_id: None,
            records,
        }))
    }

    fn outcome(
        &mut self,
        intent: BufferPosition,
        base_offset: i64,
        log_append_time_ms: i64,
    ) -> BufferPosition {
        self.frame(Frame::Outcome(Outcome {
            intent: intent.lsn,
            received_at_ms: self.now_ms,
            error_code: 0,
            base_offset,
            log_append_time_ms,
            log_start_offset: 0,
            leader_epoch: self.leader_epoch,
        }))
    }

    fn written(&mut self, topic: TopicRef, base_offset: i64) -> BufferPosition {
        let records = Bytes::from(labelled_batch(0, 5, &format!("at {base_offset}")));
        let intent = self.intent(topic, records);
        self.outcome(intent, base_offset, -1);
        intent
    }

    fn uploads(&mut self) -> Vec<SegmentPlan> {
        self.engine.poll(self.now_ms);
        std::iter::from_fn(|| self.engine.take_upload()).collect()
    }
}

fn by_id() -> TopicRef {
    TopicRef::by_id(TOPIC)
}

fn by_name() -> TopicRef {
    TopicRef::by_name("orders")
}

#[test]
fn a_batch_by_name_waits_for_the_catalog_and_one_by_id_does_not() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    feed.written(by_name(), 0);
    assert_eq!(feed.engine.unattributed.len(), 1);
    feed.written(by_id(), 5);
    assert_eq!(feed.engine.unattributed.len(), 1);
    feed.catalog(TOPIC);
    assert!(feed.engine.unattributed.is_empty());
    assert_eq!(feed.engine.gauges(0).open_segments, 1);
}

#[test]
fn a_topic_created_again_gets_an_incarnation_of_its_own() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    feed.written(by_name(), 0);
    feed.catalog(TOPIC);
    feed.catalog(Uuid::from_u128(8));
    feed.written(by_name(), 0);
    feed.catalog(Uuid::from_u128(8));
    let incarnations: Vec<Uuid> = feed.engine.partitions.keys().map(|id| id.incarnation).collect();
    assert_eq!(incarnations, [TOPIC, Uuid::from_u128(8)]);
    assert!(
        feed.engine
            .partitions
            .values()
            .all(|partition| partition.open().batches == 1)
    );
}

#[test]
fn the_archived_position_moves_only_with_the_commit() {
    let mut feed = Feed::new(false);
    feed.catalog(TOPIC);
    let intent = feed.written(by_id(), 0);
    let read = feed.engine.last_read().unwrap();
    let before = BufferPosition {
        lsn: Lsn(intent.lsn.0 - 1),
        ..intent
    };
    assert_eq!(feed.engine.archived(), Some(before));
    feed.now_ms = 60_000;
    let plan = feed.uploads().pop().unwrap();
    assert_eq!(plan.batches.len(), 1);
    let stored = crate::upload::Uploaded::default();
    feed.engine.on_uploaded(plan.number, plan.id, stored, feed.now_ms);
    assert_eq!(feed.engine.archived(), Some(before), "uploaded is not committed");
    let commit = feed.engine.take_commit(feed.now_ms).unwrap();
    assert!(
        feed.engine.take_commit(feed.now_ms).is_none(),
        "one commit at a time"
    );
    assert_eq!(feed.engine.archived(), Some(before));
    feed.engine.on_committed(commit, feed.now_ms);
    assert_eq!(feed.engine.archived(), Some(read));
    assert!(feed.engine.is_idle());
}

#[test]
fn too_many_positions_close_a_segment_early_and_then_stop_the_reading() {
    let mut feed = Feed::new(false);
    feed.catalog(TOPIC);
    for n in 0..9 {
        feed.written(by_id(), n * 5);
    }
    assert!(!feed.engine.must_pause());
    let plans = feed.uploads();
    assert_eq!(plans.iter().map(|plan| plan.batches.len()).sum::<usize>(), 9);
    assert!(feed.engine.must_pause(), "what is under way is bounded too");
    for plan in plans {
        feed.engine
            .on_uploaded(plan.number, plan.id, crate::upload::Uploaded::default(), 0);
    }
    assert!(!feed.engine.must_pause());
}

#[test]
fn an_append_time_that_may_be_a_duplicate_s_is_taken_from_the_log() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    let (header, records) = batch_with(0, 5, |_| {});
    let form = crate::append_time::stored_form(&header, header.max_timestamp, None);
    assert_eq!(form, StoredForm::Ambiguous);
    let intent = feed.intent(by_id(), records);
    feed.outcome(intent, 0, header.max_timestamp);
    assert_eq!((feed.engine.unsettled(), feed.engine.remaining()), (1, 1));
    assert!(
        feed.engine.take_survey(0).is_some(),
        "it need not wait for the grace"
    );
}

#[test]
fn a_retry_that_is_confirmed_settles_the_lost_copy_whichever_comes_first() {
    for lost_first in [true, false] {
        let mut feed = Feed::new(true);
        feed.catalog(TOPIC);
        let (_, records) = batch_with(0, 5, |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (9, 0, 0);
        });
        let first = feed.intent(by_id(), records.clone());
        let lost = Frame::ConnectionLost(ConnectionLost {
            connection_id: 1,
            at_ms: 0,
        });
        if lost_first {
            feed.frame(lost.clone());
            assert_eq!(feed.engine.unsettled(), 1);
        }
        let retry = Intent {
            connection_id: 2,
            acks: -1,
            sent_at_ms: 0,
            topic: by_id(),
            partition: 0,
            transactional_id: None,
            records,
        };
        let second = feed.frame(Frame::Intent(retry));
        feed.outcome(second, 0, -1);
        if !lost_first {
            feed.frame(lost);
        }
        assert_eq!(
            (feed.engine.unsettled(), feed.engine.remaining()),
            (0, 1),
            "{first}"
        );
    }
}

#[test]
fn an_answer_to_end_txn_holds_the_buffer_until_it_is_evidence_or_not_needed() {
    let mut feed = Feed::new(false);
    feed.catalog(TOPIC);
    let (_, records) = crate::testing::transactional_batch(0, 5, 9, 0);
    let intent = feed.intent(by_id(), records);
    feed.outcome(intent, 0, -1);
    let end = EndTxn {
        transactional_id: "t".to_owned(),
        producer_id: 9,
        producer_epoch: 0,
        committed: true,
        at_ms: 0,
    };
    feed.frame(Frame::EndTxn(end.clone()));
    // Of a producer that wrote nothing here.
    feed.frame(Frame::EndTxn(EndTxn {
        producer_id: 77,
        ..end
    }));
    assert_eq!(feed.engine.remaining(), 3);
    feed.engine.poll(0);
    assert_eq!(feed.engine.remaining(), 2);
    feed.engine.drain(true, 0);
    let plan = feed.uploads().pop().unwrap();
    assert_eq!(plan.notes.undecided.len(), 1);
    feed.engine
        .on_uploaded(plan.number, plan.id, crate::upload::Uploaded::default(), 0);
    let commit = feed.engine.take_commit(0).unwrap();
    let evidence: Vec<_> = commit
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::TxnEvidence(evidence) => {
                Some((evidence.first_offset, evidence.last_offset, evidence.commit))
            }
            _ => None,
        })
        .collect();
    assert_eq!(evidence, [(0, 4, true)]);
    feed.engine.on_committed(commit, 0);
    assert_eq!(feed.engine.remaining(), 0);
    feed.engine.poll(1);
    assert!(feed.engine.take_commit(1).is_none(), "evidence is written once");
}

#[test]
fn answers_of_a_producer_that_never_rests_are_forgotten() {
    let mut feed = Feed::new(false);
    feed.catalog(TOPIC);
    let transaction = |feed: &mut Feed, number: i32| {
        let (_, records) = crate::testing::transactional_batch(0, 5, 9, number * 5);
        let intent = feed.intent(by_id(), records);
        feed.outcome(intent, i64::from(number) * 6, -1);
        feed.frame(Frame::EndTxn(EndTxn {
            transactional_id: "t".to_owned(),
            producer_id: 9,
            producer_epoch: 0,
            committed: true,
            at_ms: 0,
        }))
    };
    let endings: Vec<BufferPosition> = (0..3).map(|number| transaction(&mut feed, number)).collect();
    let id = *feed.engine.partitions.keys().next().unwrap();
    // The markers of the first two are held, the third is open.
    for offset in [5, 11] {
        let partition = feed.engine.partitions.get_mut(&id).unwrap();
        partition.transactions.on_marker(9, offset);
    }
    feed.engine.poll(0);
    let known: Vec<BufferPosition> = feed
        .engine
        .endings
        .below(None)
        .iter()
        .map(|(_, ending)| ending.position)
        .collect();
    assert_eq!(known, [endings[2]]);
    let partition = &feed.engine.partitions[&id];
    let open: Vec<_> = partition.transactions.open().collect();
    assert_eq!(
        feed.engine.endings.ending_of(open[0]).unwrap().position,
        endings[2]
    );
}

#[test]
fn one_unreadable_batch_does_not_keep_the_frames_of_the_others() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    feed.written(by_id(), 0);
    feed.written(by_id(), 5);
    feed.engine.drain(false, 0);
    let plan = feed.uploads().pop().unwrap();
    let stored = crate::upload::Uploaded {
        lost: vec![plan.batches[1].range],
        ..Default::default()
    };
    feed.engine.on_uploaded(plan.number, plan.id, stored, 0);
    while let Some(commit) = feed.engine.take_commit(0) {
        feed.engine.on_committed(commit, 0);
    }
    feed.engine.poll(0);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (1, 1));
    assert_eq!(feed.engine.missing_offsets(), 5);
    feed.engine
        .partition(plan.id, &Arc::from("orders"))
        .commit(&[plan.batches[1].range]);
    feed.engine.settle(0);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (0, 0));
}
