//! A ledger of a million segments, from the bytes of its commits to the state they fold into.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput};
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_archive::segment::{Codec, LsnRange, Origin, SegmentIdentity, SegmentInfo};
use teeline_archive::{Lsn, SessionId, WriterId};
use uuid::Uuid;

const COMMITS: u64 = 5_000;
const SEGMENTS_PER_COMMIT: u64 = 200;
const PARTITIONS: u64 = 1_000;
const RECORDS: i64 = 10_000;

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger load, 1,000,000 segments");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    // Made only if one of the two is wanted: it takes longer than everything else here.
    let made = std::cell::OnceCell::new();
    let commits = || -> &Vec<Bytes> { made.get_or_init(commits) };
    group.throughput(Throughput::Elements(COMMITS * SEGMENTS_PER_COMMIT));
    group.bench_function("decode and fold", |bencher| {
        let commits = commits();
        bencher.iter_with_large_drop(|| {
            let mut state = LedgerState::new();
            for commit in commits {
                state.apply(&Commit::decode(black_box(commit)).unwrap()).unwrap();
            }
            state
        });
    });
    group.bench_function("limit: memcpy and checksum", |bencher| {
        let commits = commits();
        bencher.iter(|| {
            let copied = commits
                .iter()
                .map(|commit| Bytes::copy_from_slice(black_box(commit)));
            copied
                .map(|commit| u64::from(crc32c::crc32c(&commit)))
                .sum::<u64>()
        });
    });
    group.finish();
}

fn commits() -> Vec<Bytes> {
    (1..=COMMITS).map(|seq| commit(seq).encode().unwrap()).collect()
}

fn commit(seq: u64) -> Commit {
    let first = (seq - 1) * SEGMENTS_PER_COMMIT;
    Commit {
        backup_id: "bench".to_owned(),
        cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        writer: WriterId(7),
        seq,
        nonce: u128::from(seq) + 1,
        created_at_ms: 1_700_000_000_000 + seq as i64,
        program: "bench".to_owned(),
        entries: (first..first + SEGMENTS_PER_COMMIT)
            .map(|number| Entry::Segment(segment(number)))
            .collect(),
    }
}

fn segment(number: u64) -> SegmentInfo {
    let (partition, turn) = (number % PARTITIONS, (number / PARTITIONS) as i64);
    let identity = SegmentIdentity {
        backup_id: "bench".to_owned(),
        cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        topic: format!("orders-{}", partition / 100),
        incarnation: Uuid::from_u128(u128::from(partition / 100) + 1),
        partition: (partition % 100) as i32,
        writer: WriterId(7),
        session: SessionId(1),
        counter: number as u32,
        origin: Origin::Tee,
        created_at_ms: 1_700_000_000_000,
    };
    let start_offset = turn * RECORDS;
    let first = Lsn(number * 300 + 1);
    SegmentInfo {
        key: identity.key(start_offset, Codec::Zstd).unwrap(),
        identity,
        codec: Codec::Zstd,
        start_offset,
        end_offset: start_offset + RECORDS - 1,
        gaps: Vec::new(),
        timestamp_min: 1_700_000_000_000 + turn * 60_000,
        timestamp_max: 1_700_000_059_999 + turn * 60_000,
        record_count: RECORDS as u64,
        batch_count: 160,
        control_count: 0,
        transactional_count: 0,
        undecided_first_offset: -1,
        undecided: Vec::new(),
        object_bytes: 2_000_000,
        uncompressed_bytes: 10_500_000,
        footer_crc32c: number as u32,
        leader_epoch_first: 3,
        leader_epoch_last: 3,
        lsn_range: Some(LsnRange {
            session: SessionId(1),
            first,
            last: Lsn(first.0 + 300),
        }),
        quarantined: false,
    }
}
