//! Samples and generators shared by the tests.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use teeline_archive::buffer::{
    Catalog, CatalogTopic, ConnectionLost, EndTxn, Frame, Intent, LeaderTerm, LeaderTerms, Outcome,
    TermsTopic, TopicConfig, TopicRef, encode_frame,
};
use teeline_archive::ledger::{
    Absence, AbsenceEvidence, AbsenceReason, Commit, Entry, EpochEnd, PartitionAudit, Removed, Replaced,
    StateKind, StateObject, Superseded, TopicSnapshot, TxnEvidence,
};
use teeline_archive::names::state_key;
use teeline_archive::segment::{
    BatchKind, BatchMeta, Codec, LsnRange, Marker, Origin, Producer, SegmentBuilder, SegmentIdentity,
    SegmentInfo, SegmentNotes, UndecidedTransaction,
};
use teeline_archive::{Lsn, OffsetRange, SessionId, WriterId};
use uuid::Uuid;

pub(crate) const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
pub(crate) const WRITER: WriterId = WriterId(0x00c0_ffee_0000_0001);
pub(crate) const SESSION: SessionId = SessionId(3);
pub(crate) const EPOCH_MS: i64 = 1_767_225_600_000;

/// A record batch of version 2 with a right header and checksum; the records are opaque to this crate.
pub(crate) fn batch(base_offset: i64, records: u32, content: &[u8]) -> Vec<u8> {
    let mut checked = BytesMut::new();
    checked.put_i16(0);
    checked.put_i32(records as i32 - 1);
    checked.put_i64(EPOCH_MS + base_offset);
    checked.put_i64(EPOCH_MS + base_offset + i64::from(records) - 1);
    checked.put_i64(-1);
    checked.put_i16(-1);
    checked.put_i32(-1);
    checked.put_i32(records as i32);
    checked.put_slice(content);
    let mut out = BytesMut::new();
    out.put_i64(base_offset);
    out.put_i32(checked.len() as i32 + 9);
    out.put_i32(5);
    out.put_u8(2);
    out.put_u32(crc32c::crc32c(&checked));
    out.put_slice(&checked);
    out.to_vec()
}

pub(crate) fn meta(base_offset: i64, records: u32) -> BatchMeta {
    BatchMeta {
        base_offset,
        last_offset: base_offset + i64::from(records) - 1,
        record_count: records,
        timestamp_min: EPOCH_MS + base_offset,
        timestamp_max: EPOCH_MS + base_offset + i64::from(records) - 1,
        leader_epoch: 5,
        producer: None,
        kind: BatchKind::Data,
    }
}

pub(crate) fn identity(origin: Origin) -> SegmentIdentity {
    SegmentIdentity {
        backup_id: "daily".into(),
        cluster_id: CLUSTER.into(),
        topic: "orders".into(),
        incarnation: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        partition: 2,
        writer: WRITER,
        session: SESSION,
        counter: 7,
        origin,
        created_at_ms: EPOCH_MS,
    }
}

pub(crate) fn notes() -> SegmentNotes {
    SegmentNotes {
        undecided_first_offset: 110,
        undecided: vec![UndecidedTransaction {
            producer_id: 4001,
            producer_epoch: 2,
            first_offset: 110,
            last_offset: 112,
        }],
        lsn_range: Some(LsnRange {
            session: SESSION,
            first: Lsn(10),
            last: Lsn(99),
        }),
        quarantined: false,
        gaps: Vec::new(),
    }
}

/// A small segment with everything in it: data, a transaction, a marker, a gap, two epochs, several blocks.
pub(crate) fn sample_segment(codec: Codec) -> (Bytes, Option<Bytes>, SegmentInfo, Vec<u8>) {
    let mut builder = SegmentBuilder::new(identity(Origin::Tee), codec, 3, 300).unwrap();
    builder.set_notes(notes());
    let producer = Some(Producer {
        id: 4000,
        epoch: 1,
        base_sequence: 0,
    });
    let plan = [
        (100, 3, BatchKind::Data, 5),
        (103, 2, BatchKind::TransactionalData, 5),
        (105, 1, BatchKind::Control(Marker { commit: true }), 6),
        (110, 3, BatchKind::TransactionalData, 6),
        (113, 1, BatchKind::Data, 6),
    ];
    let mut log = Vec::new();
    let mut object = BytesMut::new();
    for (base, records, kind, epoch) in plan {
        let content = format!("record of offset {base}; ").repeat(4);
        let bytes = batch(base, records, content.as_bytes());
        log.extend_from_slice(&bytes);
        let transactional = kind != BatchKind::Data;
        let producer = producer.filter(|_| transactional);
        builder
            .push(
                &bytes,
                BatchMeta {
                    kind,
                    producer,
                    leader_epoch: epoch,
                    ..meta(base, records)
                },
            )
            .unwrap();
        object.put_slice(&builder.drain_output());
    }
    let finished = builder.finish().unwrap();
    object.put_slice(&finished.tail);
    (object.freeze(), finished.sidecar, finished.info, log)
}

/// One frame of each kind, in the order in which a small session might write them.
pub(crate) fn sample_frames() -> Vec<Frame> {
    let id = identity(Origin::Tee).incarnation;
    vec![
        Frame::Catalog(Catalog {
            requested_after: Lsn(0),
            at_ms: EPOCH_MS,
            cluster_id: CLUSTER.into(),
            topics: vec![
                CatalogTopic {
                    name: "orders".into(),
                    id,
                    error_code: 0,
                    partitions: vec![(0, 5), (1, -1)],
                    replication_factor: 3,
                },
                CatalogTopic {
                    name: "gone".into(),
                    id: Uuid::nil(),
                    error_code: 3,
                    partitions: vec![],
                    replication_factor: 0,
                },
            ],
        }),
        Frame::TopicConfig(TopicConfig {
            name: "orders".into(),
            id,
            at_ms: EPOCH_MS,
            configs: vec![
                ("cleanup.policy".into(), Some("delete".into())),
                ("retention.ms".into(), None),
            ],
        }),
        Frame::Intent(Intent {
            connection_id: 17,
            acks: -1,
            sent_at_ms: EPOCH_MS + 1,
            topic: TopicRef::by_name("orders"),
            partition: 2,
            transactional_id: Some("tx-1".into()),
            records: Bytes::from(batch(0, 3, b"three records")),
        }),
        Frame::Outcome(Outcome {
            intent: Lsn(3),
            received_at_ms: EPOCH_MS + 4,
            error_code: 0,
            base_offset: 100,
            log_append_time_ms: -1,
            log_start_offset: 0,
            leader_epoch: -1,
        }),
        Frame::EndTxn(EndTxn {
            transactional_id: "tx-1".into(),
            producer_id: 4000,
            producer_epoch: 1,
            committed: true,
            at_ms: EPOCH_MS + 5,
        }),
        Frame::Intent(Intent {
            connection_id: 18,
            acks: 0,
            sent_at_ms: EPOCH_MS + 6,
            topic: TopicRef {
                name: Some("orders".into()),
                id: Some(id),
            },
            partition: 0,
            transactional_id: None,
            records: Bytes::new(),
        }),
        Frame::ConnectionLost(ConnectionLost {
            connection_id: 18,
            at_ms: EPOCH_MS + 7,
        }),
        Frame::Unknown {
            kind: 900,
            payload: Bytes::from_static(b"from the future"),
        },
        Frame::LeaderTerms(LeaderTerms {
            requested_after: Lsn(8),
            at_ms: EPOCH_MS + 7,
            cluster_id: CLUSTER.into(),
            topics: vec![TermsTopic {
                name: "orders".into(),
                id,
                terms: vec![
                    LeaderTerm {
                        partition: 0,
                        leader_epoch: 5,
                        start_offset: 90,
                    },
                    LeaderTerm {
                        partition: 1,
                        leader_epoch: 6,
                        start_offset: -1,
                    },
                ],
            }],
        }),
        Frame::SessionClosed { at_ms: EPOCH_MS + 8 },
    ]
}

/// Frames behind each other, from the given LSN on.
pub(crate) fn encode_frames(frames: &[Frame], session: SessionId, first: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    let mut lsn = first;
    for frame in frames {
        encode_frame(frame, session, lsn, &mut out).unwrap();
        lsn = lsn.next();
    }
    out.freeze()
}

pub(crate) fn sample_commit() -> Commit {
    let (_, _, segment, _) = sample_segment(Codec::Zstd);
    let SegmentIdentity { incarnation, .. } = identity(Origin::Tee);
    // A golden commit must not depend on the compression library's version.
    let segment = SegmentInfo {
        object_bytes: 1234,
        footer_crc32c: 0xfeed_beef,
        ..segment
    };
    Commit {
        backup_id: "daily".into(),
        cluster_id: CLUSTER.into(),
        writer: WRITER,
        seq: 1,
        nonce: 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00,
        created_at_ms: EPOCH_MS + 60_000,
        program: "teeline-segmenter 0.1.0".into(),
        entries: vec![
            Entry::SourceBrokers(vec!["broker-1:9092".into(), "broker-2:9092".into()]),
            Entry::Topic(TopicSnapshot {
                name: "orders".into(),
                incarnation,
                at_ms: EPOCH_MS,
                partition_count: 4,
                replication_factor: 3,
                configs: vec![
                    ("cleanup.policy".into(), Some("delete".into())),
                    ("x".into(), None),
                ],
            }),
            Entry::Segment(segment),
            Entry::TxnEvidence(TxnEvidence {
                producer_id: 4001,
                producer_epoch: 2,
                topic: "orders".into(),
                incarnation,
                partition: 2,
                first_offset: 110,
                last_offset: 112,
                commit: true,
                at_ms: EPOCH_MS + 50,
            }),
            Entry::Absent(Absence {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                first_offset: 106,
                last_offset: 107,
                reason: AbsenceReason::Compacted,
                at_ms: EPOCH_MS + 51,
                evidence: AbsenceEvidence::NONE,
            }),
            Entry::SourceLost { at_ms: EPOCH_MS + 52 },
            Entry::Unknown {
                kind: 901,
                payload: Bytes::from_static(b"from the future"),
            },
        ],
    }
}

pub(crate) fn absence_evidence() -> AbsenceEvidence {
    AbsenceEvidence {
        log_start_offset: 108,
        leader_epoch: 6,
        cleanup_policy: "delete".into(),
    }
}

/// What an auditor commits: an explained hole, a superseded range, a partition seen whole, a state object, joined segments.
pub(crate) fn sample_audit_commit() -> Commit {
    let SegmentIdentity { incarnation, .. } = identity(Origin::Tee);
    let superseded = sample_commit().entries.iter().find_map(|entry| match entry {
        Entry::Segment(info) => Some(info.key.clone()),
        _ => None,
    });
    let superseded = superseded.unwrap();
    let key = state_key("daily", StateKind::Groups, EPOCH_MS, WriterId::AUDITOR, 0xfeed).unwrap();
    Commit {
        writer: WriterId::AUDITOR,
        nonce: 0x99,
        created_at_ms: EPOCH_MS + 61_000,
        entries: vec![
            Entry::Absent(Absence {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                first_offset: 0,
                last_offset: 99,
                reason: AbsenceReason::Deleted,
                at_ms: EPOCH_MS + 60_900,
                evidence: absence_evidence(),
            }),
            Entry::Superseded(Superseded {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                segment: superseded.clone(),
                first_offset: 110,
                last_offset: 113,
                leader_epoch: 5,
                end_offset: 110,
                at_ms: EPOCH_MS + 60_950,
                same: false,
            }),
            Entry::Audit(PartitionAudit {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                at_ms: EPOCH_MS + 60_950,
                start_offset: 0,
                log_start_offset: 108,
                high_watermark: 120,
                leader_epoch: 6,
                epochs: vec![EpochEnd {
                    leader_epoch: 5,
                    end_offset: 110,
                    known_epoch: 4,
                }],
            }),
            Entry::State(StateObject {
                kind: StateKind::Groups,
                key,
                first_at_ms: EPOCH_MS,
                last_at_ms: EPOCH_MS + 59_000,
                full: true,
                bytes: 321,
                crc32c: 0x1234_5678,
            }),
            // What takes their place is not listed: nothing is replaced.
            Entry::Replaced(Replaced {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                by: listed(WriterId::AUDITOR, 1, 100, 113, Origin::Fetch).key,
                keys: vec![superseded.clone()],
                at_ms: EPOCH_MS + 60_960,
            }),
            Entry::Removed(Removed {
                topic: "orders".into(),
                incarnation,
                partition: 2,
                keys: vec![superseded],
                at_ms: EPOCH_MS + 60_970,
            }),
        ],
        ..sample_commit()
    }
}

/// A segment as the ledger lists it, without bytes behind it.
pub(crate) fn listed(writer: WriterId, counter: u32, first: i64, last: i64, origin: Origin) -> SegmentInfo {
    let (_, _, info, _) = sample_segment(Codec::None);
    let identity = SegmentIdentity {
        writer,
        counter,
        ..identity(origin)
    };
    SegmentInfo {
        key: identity.key(first, Codec::Zstd).unwrap(),
        identity,
        codec: Codec::Zstd,
        start_offset: first,
        end_offset: last,
        gaps: Vec::new(),
        record_count: (last - first + 1) as u64,
        ..info
    }
}

fn text(max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..max).prop_map(|chars| chars.into_iter().collect())
}

fn configs() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    prop::collection::vec((text(10), prop::option::of(text(20))), 0..4)
}

fn topic_ref() -> impl Strategy<Value = TopicRef> {
    let id = any::<u128>().prop_map(Uuid::from_u128);
    (prop::option::of(text(20)), prop::option::of(id))
        .prop_map(|(name, id)| TopicRef { name, id })
        .prop_filter("name or id", |topic| topic.name.is_some() || topic.id.is_some())
}

/// Any frame.
pub(crate) fn frames() -> impl Strategy<Value = Frame> {
    let records = prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let intent = (
        any::<(u64, i16, i64, i32)>(),
        topic_ref(),
        prop::option::of(text(12)),
        records,
    )
        .prop_map(
            |((connection_id, acks, sent_at_ms, partition), topic, transactional_id, records)| {
                Frame::Intent(Intent {
                    connection_id,
                    acks,
                    sent_at_ms,
                    topic,
                    partition,
                    transactional_id,
                    records,
                })
            },
        );
    let outcome = any::<(u64, i64, i16, i64, i64, i64, i32)>().prop_map(|fields| {
        let (
            intent,
            received_at_ms,
            error_code,
            base_offset,
            log_append_time_ms,
            log_start_offset,
            leader_epoch,
        ) = fields;
        Frame::Outcome(Outcome {
            intent: Lsn(intent),
            received_at_ms,
            error_code,
            base_offset,
            log_append_time_ms,
            log_start_offset,
            leader_epoch,
        })
    });
    let lost = any::<(u64, i64)>()
        .prop_map(|(connection_id, at_ms)| Frame::ConnectionLost(ConnectionLost { connection_id, at_ms }));
    let end = (text(12), any::<(i64, i16, bool, i64)>()).prop_map(
        |(transactional_id, (producer_id, producer_epoch, committed, at_ms))| {
            Frame::EndTxn(EndTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                committed,
                at_ms,
            })
        },
    );
    let topic = (
        text(12),
        any::<(u128, i16, i16)>(),
        prop::collection::vec(any::<(i32, i32)>(), 0..4),
    )
        .prop_map(
            |(name, (id, error_code, replication_factor), partitions)| CatalogTopic {
                name,
                id: Uuid::from_u128(id),
                error_code,
                partitions,
                replication_factor,
            },
        );
    let catalog = (any::<(u64, i64)>(), text(12), prop::collection::vec(topic, 0..4)).prop_map(
        |((after, at_ms), cluster_id, topics)| {
            Frame::Catalog(Catalog {
                requested_after: Lsn(after),
                at_ms,
                cluster_id,
                topics,
            })
        },
    );
    let term = any::<(i32, i32, i64)>().prop_map(|(partition, leader_epoch, start_offset)| LeaderTerm {
        partition,
        leader_epoch,
        start_offset,
    });
    let led = (text(12), any::<u128>(), prop::collection::vec(term, 0..4)).prop_map(|(name, id, terms)| {
        TermsTopic {
            name,
            id: Uuid::from_u128(id),
            terms,
        }
    });
    let terms = (any::<(u64, i64)>(), text(12), prop::collection::vec(led, 0..4)).prop_map(
        |((after, at_ms), cluster_id, topics)| {
            Frame::LeaderTerms(LeaderTerms {
                requested_after: Lsn(after),
                at_ms,
                cluster_id,
                topics,
            })
        },
    );
    let config = (text(12), any::<(u128, i64)>(), configs()).prop_map(|(name, (id, at_ms), configs)| {
        Frame::TopicConfig(TopicConfig {
            name,
            id: Uuid::from_u128(id),
            at_ms,
            configs,
        })
    });
    let closed = any::<i64>().prop_map(|at_ms| Frame::SessionClosed { at_ms });
    let unknown =
        (100u16.., prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, payload)| Frame::Unknown {
            kind,
            payload: payload.into(),
        });
    prop_oneof![4 => intent, 4 => outcome, 1 => lost, 1 => end, 1 => catalog, 1 => config, 1 => terms, 1 => closed, 1 => unknown]
}

fn segment_infos() -> impl Strategy<Value = SegmentInfo> {
    let numbers = any::<(u64, u64, u32, i32, bool)>();
    let offsets = (0..1_000_000i64, 20..1000i64, any::<bool>());
    let origin = prop::sample::select(vec![Origin::Tee, Origin::Fetch, Origin::Unconfirmed]);
    (
        numbers,
        offsets,
        origin,
        prop::sample::select(Codec::ALL.to_vec()),
        text(10),
    )
        .prop_map(
            |((writer, session, counter, epoch, quarantined), (first, span, gap), origin, codec, key)| {
                let info = listed(WriterId(writer), counter, first, first + span, origin);
                let gaps = if gap {
                    vec![OffsetRange {
                        first: first + 3,
                        last: first + 9,
                    }]
                } else {
                    vec![]
                };
                let lsn_range = gap.then_some(LsnRange {
                    session: SessionId(session),
                    first: Lsn(1),
                    last: Lsn(2),
                });
                let undecided = if gap { notes().undecided } else { vec![] };
                SegmentInfo {
                    key,
                    codec,
                    gaps,
                    lsn_range,
                    undecided,
                    quarantined,
                    leader_epoch_first: epoch,
                    record_count: writer,
                    ..info
                }
            },
        )
}

fn entries() -> impl Strategy<Value = Entry> {
    let topic = (text(10), any::<(u128, i64, i32, i16)>(), configs()).prop_map(
        |(name, (incarnation, at_ms, partition_count, replication_factor), configs)| {
            let incarnation = Uuid::from_u128(incarnation);
            Entry::Topic(TopicSnapshot {
                name,
                incarnation,
                at_ms,
                partition_count,
                replication_factor,
                configs,
            })
        },
    );
    let evidence = (
        text(10),
        any::<(i64, i16, u128, i32, bool, i64)>(),
        any::<(u32, u32)>(),
    )
        .prop_map(
            |(topic, (producer_id, producer_epoch, incarnation, partition, commit, at_ms), (first, more))| {
                let incarnation = Uuid::from_u128(incarnation);
                let (first_offset, last_offset) = (first.into(), i64::from(first) + i64::from(more));
                Entry::TxnEvidence(TxnEvidence {
                    producer_id,
                    producer_epoch,
                    topic,
                    incarnation,
                    partition,
                    first_offset,
                    last_offset,
                    commit,
                    at_ms,
                })
            },
        );
    let reason = prop::sample::select(vec![
        AbsenceReason::Compacted,
        AbsenceReason::Deleted,
        AbsenceReason::SourceLost,
        AbsenceReason::Truncated,
        AbsenceReason::NotAuditable,
        AbsenceReason::NotWanted,
        AbsenceReason::Unknown(77),
    ]);
    let absent = (text(10), any::<(u128, i32, u32, u32, i64)>(), reason).prop_map(
        |(topic, (incarnation, partition, first, more, at_ms), reason)| {
            let (first_offset, last_offset) = (first.into(), i64::from(first) + i64::from(more));
            let incarnation = Uuid::from_u128(incarnation);
            Entry::Absent(Absence {
                topic,
                incarnation,
                partition,
                first_offset,
                last_offset,
                reason,
                at_ms,
                evidence: if at_ms % 2 == 0 {
                    AbsenceEvidence::NONE
                } else {
                    absence_evidence()
                },
            })
        },
    );
    let superseded = (
        text(10),
        text(20),
        any::<(u128, i32, u32, u32, i32, i64, i64, bool)>(),
    )
        .prop_map(
            |(
                topic,
                segment,
                (incarnation, partition, first, more, leader_epoch, end_offset, at_ms, same),
            )| {
                Entry::Superseded(Superseded {
                    topic,
                    incarnation: Uuid::from_u128(incarnation),
                    partition,
                    segment,
                    first_offset: first.into(),
                    last_offset: i64::from(first) + i64::from(more),
                    leader_epoch,
                    end_offset,
                    at_ms,
                    same,
                })
            },
        );
    let audit =
        (
            text(10),
            any::<(u128, i32, i64, i64, i64, i64, i32)>(),
            prop::collection::vec(any::<(i32, i64, i32)>(), 0..4),
        )
            .prop_map(|(topic, numbers, epochs)| {
                let (
                    incarnation,
                    partition,
                    at_ms,
                    start_offset,
                    log_start_offset,
                    high_watermark,
                    leader_epoch,
                ) = numbers;
                let epochs = epochs
                    .into_iter()
                    .map(|(leader_epoch, end_offset, known_epoch)| EpochEnd {
                        leader_epoch,
                        end_offset,
                        known_epoch,
                    });
                Entry::Audit(PartitionAudit {
                    topic,
                    incarnation: Uuid::from_u128(incarnation),
                    partition,
                    at_ms,
                    start_offset,
                    log_start_offset,
                    high_watermark,
                    leader_epoch,
                    epochs: epochs.collect(),
                })
            });
    let state = (text(20), any::<(u8, i64, i64, bool, u64, u32)>()).prop_map(
        |(key, (kind, first_at_ms, last_at_ms, full, bytes, crc32c))| {
            Entry::State(StateObject {
                kind: StateKind::from_code(kind),
                key,
                first_at_ms,
                last_at_ms,
                full,
                bytes,
                crc32c,
            })
        },
    );
    let keys = || prop::collection::vec(text(10), 0..4);
    let place = || (text(10), any::<u128>(), any::<i32>(), any::<i64>());
    let replaced =
        (place(), text(10), keys()).prop_map(|((topic, incarnation, partition, at_ms), by, keys)| {
            Entry::Replaced(Replaced {
                topic,
                incarnation: Uuid::from_u128(incarnation),
                partition,
                by,
                keys,
                at_ms,
            })
        });
    let removed = (place(), keys()).prop_map(|((topic, incarnation, partition, at_ms), keys)| {
        Entry::Removed(Removed {
            topic,
            incarnation: Uuid::from_u128(incarnation),
            partition,
            keys,
            at_ms,
        })
    });
    let brokers = prop::collection::vec(text(10), 0..4).prop_map(Entry::SourceBrokers);
    let lost = any::<i64>().prop_map(|at_ms| Entry::SourceLost { at_ms });
    let unknown =
        (100u16.., prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, payload)| Entry::Unknown {
            kind,
            payload: payload.into(),
        });
    prop_oneof![
        segment_infos().prop_map(Entry::Segment),
        topic,
        evidence,
        absent,
        superseded,
        audit,
        state,
        replaced,
        removed,
        brokers,
        lost,
        unknown
    ]
}

/// Any commit.
pub(crate) fn commits() -> impl Strategy<Value = Commit> {
    let numbers = (any::<u64>(), 1u64.., any::<u128>(), any::<i64>());
    (
        text(10),
        text(10),
        text(10),
        numbers,
        prop::collection::vec(entries(), 0..6),
    )
        .prop_map(
            |(backup_id, cluster_id, program, (writer, seq, nonce, created_at_ms), entries)| Commit {
                backup_id,
                cluster_id,
                writer: WriterId(writer),
                seq,
                nonce,
                created_at_ms,
                program,
                entries,
            },
        )
}
