//! Delivery against a broker that fails at every point where brokers fail.

use std::future::ready;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use proptest::prelude::*;
use teeline_wire::batch::BatchHeader;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use super::*;

const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(60),
    bytes_under_way_max: 1 << 20,
};

/// A broker's log of one partition, with its memory of the producer.
#[derive(Debug, Default)]
struct Log {
    /// Base sequence and count of every batch taken.
    taken: Vec<(i32, u32)>,
    records: i64,
    /// What goes wrong with the next batches.
    faults: Vec<Trouble>,
    sent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Refused, nothing written.
    NotLeader,
    /// Written, the answer lost.
    AnswerLost,
    /// Refused for good.
    Refused,
}

#[derive(Clone, Default)]
struct FakeRoute(Arc<Mutex<Log>>);

impl Log {
    fn append(&mut self, header: &BatchHeader) -> Result<Acknowledgement, Fault> {
        let trouble = self.faults.get(self.sent).copied().unwrap_or(Trouble::None);
        self.sent += 1;
        let fault = |kind, reason: &str| {
            Err(Fault {
                kind,
                reason: reason.to_owned(),
            })
        };
        match trouble {
            Trouble::NotLeader => return fault(FaultKind::Retriable, "not leader"),
            Trouble::Refused => return fault(FaultKind::Fatal, "refused"),
            Trouble::None | Trouble::AnswerLost => {}
        }
        let recent = self
            .taken
            .iter()
            .rev()
            .take(5)
            .position(|taken| *taken == (header.base_sequence, header.records()));
        let answer = if let Some(back) = recent {
            let behind: i64 = self
                .taken
                .iter()
                .rev()
                .take(back + 1)
                .map(|(_, count)| i64::from(*count))
                .sum();
            Acknowledgement {
                base_offset: self.records - behind,
                log_append_time_ms: 5,
            }
        } else {
            // As a broker does: without any state of the producer, whatever comes first is taken.
            let first = header.base_sequence;
            let expected = self
                .taken
                .last()
                .map_or(first, |(sequence, count)| sequence_after(*sequence, *count));
            if header.base_sequence != expected {
                return fault(FaultKind::Retriable, "out of order sequence");
            }
            self.taken.push((header.base_sequence, header.records()));
            let base_offset = self.records;
            self.records += i64::from(header.records());
            Acknowledgement {
                base_offset,
                log_append_time_ms: -1,
            }
        };
        if trouble == Trouble::AnswerLost {
            fault(FaultKind::Retriable, "connection lost")
        } else {
            Ok(answer)
        }
    }
}

impl Route for FakeRoute {
    fn send(&mut self, batch: ReplayBatch) -> BoxFuture<'_, Answer> {
        let header = BatchHeader::parse(&batch.to_bytes()).unwrap();
        let answer = self.0.lock().unwrap().append(&header);
        ready(ready(answer).boxed()).boxed()
    }

    fn recover(&mut self, _fault: &Fault, _attempt: u32) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

fn batch(records: u32) -> BatchView {
    let mut builder = BatchBuilder::new(Compression::None);
    for at in 0..records {
        builder.push(i64::from(at), None, Some(b"v"), &[]).unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn deliver(counts: &[u32], faults: Vec<Trouble>) -> (Result<Delivered, DeliveryError>, Vec<(i32, u32)>) {
    let route = FakeRoute::default();
    route.0.lock().unwrap().faults = faults;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        let mut delivery = Delivery::new(route.clone(), 9, 0, LIMITS);
        for count in counts {
            delivery.push(&batch(*count)).await?;
        }
        delivery.flush().await
    });
    let taken = route.0.lock().unwrap().taken.clone();
    (result, taken)
}

#[test]
fn sequences_go_up_by_records_and_wrap() {
    assert_eq!(sequence_after(0, 3), 3);
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
}

#[test]
fn a_refusal_for_good_ends_the_delivery() {
    let (result, taken) = deliver(&[1, 2, 3], vec![Trouble::None, Trouble::Refused]);
    assert!(matches!(result, Err(DeliveryError::Refused { records: 2, .. })));
    // The third was sent under the assumption that the second would be taken, and refused for its sequence.
    assert_eq!(taken, [(0, 1)]);
}

#[test]
fn a_target_that_stamps_its_own_time_is_noticed() {
    struct Stamping;
    impl Route for Stamping {
        fn send(&mut self, _batch: ReplayBatch) -> BoxFuture<'_, Answer> {
            ready(
                ready(Ok(Acknowledgement {
                    base_offset: 0,
                    log_append_time_ms: 1,
                }))
                .boxed(),
            )
            .boxed()
        }
        fn recover(&mut self, _fault: &Fault, _attempt: u32) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut delivery = Delivery::new(Stamping, 9, 0, LIMITS);
        delivery.push(&batch(1)).await.unwrap();
        assert!(matches!(delivery.flush().await, Err(DeliveryError::Restamped)));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_fails_every_batch_is_there_once_and_in_order(
        counts in proptest::collection::vec(1u32..5, 1..30),
        faults in proptest::collection::vec(
            prop_oneof![3 => Just(Trouble::None), 1 => Just(Trouble::NotLeader), 1 => Just(Trouble::AnswerLost)],
            0..40,
        ),
    ) {
        let (result, taken) = deliver(&counts, faults);
        let delivered = result.unwrap();
        prop_assert_eq!(delivered.records, counts.iter().map(|count| u64::from(*count)).sum::<u64>());
        prop_assert_eq!(delivered.batches, counts.len() as u64);
        prop_assert!(!delivered.interleaved);
        prop_assert_eq!(taken.iter().map(|(_, count)| *count).collect::<Vec<_>>(), counts);
    }
}
