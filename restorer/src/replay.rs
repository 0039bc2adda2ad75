//! What of a stored batch is produced again.
//!
//! The fast path hands the batch on without looking at its records. Records are decoded only at the window's edges,
//! where compaction took some out (brokers refuse batches that are not dense), where a batch begins inside what is
//! restored already, and in `LogAppendTime` batches, whose append times exist only in the header and would be lost.

use teeline_wire::batch::{BatchError, BatchView};
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, rebuild_within, timestamp_range};

use crate::window::{Position, Window};

/// What is wanted of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The time window.
    pub window: Window,
    /// How the block that holds the batch lies to the window.
    pub position: Position,
    /// Records below this offset are restored already.
    pub from_offset: i64,
    /// The largest batch that the target takes; a rebuilt one may have to be split.
    pub batch_bytes_max: usize,
}

/// What is produced for one stored batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Dense data batches, in order.
    pub batches: Vec<BatchView>,
    /// Whether they are not the stored bytes.
    pub rebuilt: bool,
    /// Records of the batch that the window leaves out.
    pub outside_window: u64,
}

impl Replay {
    /// Records to be produced.
    pub fn records(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| u64::from(batch.header().records()))
            .sum()
    }
}

/// Decides on one data batch. Control batches and batches emptied by compaction give nothing.
pub fn replay(batch: &BatchView, wanted: Wanted) -> Result<Replay, BatchError> {
    let header = batch.header();
    if header.is_control() || header.record_count == 0 {
        return Ok(Replay::default());
    }
    let position = position_of(batch, wanted)?;
    let records = u64::from(header.records());
    if position == Position::Outside {
        return Ok(Replay {
            outside_window: records,
            ..Replay::default()
        });
    }
    let begun = header.base_offset < wanted.from_offset;
    if position == Position::Inside && header.is_dense() && !header.is_log_append_time() && !begun {
        return Ok(Replay {
            batches: vec![batch.clone()],
            ..Replay::default()
        });
    }
    let mut outside_window = 0;
    let batches = rebuild_within(batch, DECOMPRESSED_BYTES_MAX, wanted.batch_bytes_max, |record| {
        let inside = wanted.window.contains(record.timestamp);
        outside_window += u64::from(!inside);
        inside && record.offset >= wanted.from_offset
    })?;
    Ok(Replay {
        batches,
        rebuilt: true,
        outside_window,
    })
}

/// How the batch lies to the window; from its records only if the block's bounds leave it open.
fn position_of(batch: &BatchView, wanted: Wanted) -> Result<Position, BatchError> {
    if wanted.position != Position::Edge || wanted.window.is_all() {
        return Ok(if wanted.window.is_all() {
            Position::Inside
        } else {
            wanted.position
        });
    }
    let range = timestamp_range(batch, DECOMPRESSED_BYTES_MAX)?;
    Ok(wanted.window.position(range.min, range.max))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use teeline_wire::batch::{as_log_append_time, set_base_offset_and_epoch};
    use teeline_wire::codec::Compression;
    use teeline_wire::records::{BatchBuilder, Records};

    use super::*;

    const ALL: Wanted = Wanted {
        window: Window::ALL,
        position: Position::Inside,
        from_offset: 0,
        batch_bytes_max: 1 << 20,
    };

    fn stored(base_offset: i64, timestamps: &[i64], append_time: Option<i64>) -> BatchView {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for (at, timestamp) in timestamps.iter().enumerate() {
            builder
                .push(
                    *timestamp,
                    Some(format!("k{at}").as_bytes()),
                    None,
                    &[(b"h", None), (b"h", Some(b""))],
                )
                .unwrap();
        }
        let mut bytes = builder.build().unwrap().unwrap().into_bytes().to_vec();
        if let Some(at) = append_time {
            as_log_append_time(&mut bytes, at).unwrap();
        }
        set_base_offset_and_epoch(&mut bytes, base_offset, 3).unwrap();
        BatchView::parse(&bytes.into()).unwrap()
    }

    fn timestamps(replay: &Replay) -> Vec<i64> {
        replay
            .batches
            .iter()
            .flat_map(|batch| {
                let records = Records::decode(batch, DECOMPRESSED_BYTES_MAX).unwrap();
                records
                    .iter()
                    .map(|record| record.unwrap().timestamp)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn a_batch_wholly_inside_goes_as_it_is() {
        let batch = stored(100, &[5, 3, 9], None);
        let replay = replay(&batch, ALL).unwrap();
        assert_eq!(
            replay,
            Replay {
                batches: vec![batch],
                ..Replay::default()
            }
        );
    }

    #[test]
    fn at_the_edge_late_records_are_found_wherever_they_lie() {
        let batch = stored(0, &[50, 10, 60, 19, 20], None);
        let window = Window {
            from_ms: Some(10),
            to_ms: Some(20),
        };
        let replay = replay(
            &batch,
            Wanted {
                window,
                position: Position::Edge,
                ..ALL
            },
        )
        .unwrap();
        assert_eq!(timestamps(&replay), [10, 19]);
        assert_eq!((replay.rebuilt, replay.outside_window), (true, 3));
    }

    #[test]
    fn append_times_become_the_records_own_timestamps() {
        let batch = stored(0, &[1, 2, 3], Some(77));
        let replay_all = replay(&batch, ALL).unwrap();
        assert_eq!(timestamps(&replay_all), [77, 77, 77]);
        let window = Window {
            from_ms: Some(78),
            to_ms: None,
        };
        let none = replay(
            &batch,
            Wanted {
                window,
                position: Position::Edge,
                ..ALL
            },
        )
        .unwrap();
        assert_eq!((none.records(), none.outside_window), (0, 3));
    }

    #[test]
    fn a_batch_that_begins_inside_what_is_there_gives_only_the_rest() {
        let batch = stored(10, &[1, 2, 3, 4], None);
        let replay = replay(
            &batch,
            Wanted {
                from_offset: 12,
                ..ALL
            },
        )
        .unwrap();
        assert_eq!(timestamps(&replay), [3, 4]);
    }
}
