//! Reading one segment forward, block by block, in bounded memory.
//!
//! Only the blocks that the window wants are fetched, neighbouring ones in one request, and the next request is under
//! way while the blocks of the last one are worked on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use teeline_archive::segment::{BlockEntry, SegmentError, decode_block};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_runtime::{Store, StoreError};
use teeline_wire::batch::{BatchError, BatchView, Batches, batches};
use tokio::task::JoinHandle;

use crate::budget::{Budget, Share};
use crate::error::RestorerError;
use crate::footers::{OpenSegment, ReadError};
use crate::merge::Head;
use crate::plan::touches;
use crate::tally::Live;
use crate::window::{Position, Window};

/// A batch, with what is known about its surroundings.
#[derive(Debug, Clone)]
pub struct Found {
    /// The batch.
    pub batch: BatchView,
    /// How its block lies to the window.
    pub position: Position,
}

impl Found {
    /// What merging needs to know.
    pub fn head(&self) -> Head {
        let header = self.batch.header();
        let producer = header.has_producer().then_some((
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
        ));
        Head {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            leader_epoch: header.partition_leader_epoch,
            record_count: header.records(),
            producer,
        }
    }
}

/// What cursors share.
#[derive(Debug, Clone)]
pub struct Source {
    /// The archive.
    pub store: Store,
    /// Memory for all cursors.
    pub budget: Budget,
    /// For the progress display.
    pub live: Arc<Live>,
}

/// A place in a segment.
pub struct Cursor {
    segment: OpenSegment,
    runs: VecDeque<Run>,
    ahead: Option<Ahead>,
    blocks: VecDeque<(Wanted, Bytes)>,
    share: Option<Share>,
    decoding: Option<Decoding>,
    open_block: Option<(Batches, Position)>,
    head: Option<Found>,
}

type Wanted = (BlockEntry, Position);

/// Neighbouring blocks, fetched in one request.
#[derive(Debug)]
struct Run {
    blocks: Vec<Wanted>,
}

/// A request under way.
struct Ahead {
    run: Run,
    share: Share,
    bytes: JoinHandle<Result<Bytes, StoreError>>,
}

/// A block that is being checked and decompressed, while the one before it is worked on.
struct Decoding {
    first_offset: i64,
    compressed_len: u32,
    position: Position,
    content: JoinHandle<Result<Bytes, SegmentError>>,
}

/// Large enough to make up for the latency of a request, small enough to hold several.
const RUN_BYTES: u64 = 1024 * 1024;

impl Cursor {
    /// The start of a segment. `None` if none of its blocks is wanted.
    pub fn new(segment: OpenSegment, choice: BlockChoice<'_>) -> Option<Self> {
        let wanted = choice.wanted(&segment.footer.blocks);
        let runs = into_runs(wanted);
        if runs.is_empty() {
            return None;
        }
        Some(Self {
            segment,
            runs,
            ahead: None,
            blocks: VecDeque::new(),
            share: None,
            decoding: None,
            open_block: None,
            head: None,
        })
    }

    /// The batch at the head, once [`Cursor::load`] has found it.
    pub fn head(&self) -> Option<&Found> {
        self.head.as_ref()
    }

    /// Takes the head; the next one has to be loaded.
    pub fn take(&mut self) -> Option<Found> {
        self.head.take()
    }

    /// Key of the segment.
    pub fn key(&self) -> &str {
        &self.segment.info.key
    }

    /// No batch still to come has a lower offset; `None` at the end of the segment.
    pub fn offset_at_least(&self) -> Option<i64> {
        if let Some(found) = &self.head {
            return Some(found.batch.header().base_offset);
        }
        if self.open_block.is_some() {
            // Whatever is left of the block; its batches are read without a request anyway.
            return Some(i64::MIN);
        }
        if let Some(decoding) = &self.decoding {
            return Some(decoding.first_offset);
        }
        let in_hand = self.blocks.front().map(|((block, _), _)| block);
        let coming = self.ahead.as_ref().map(|ahead| &ahead.run).or(self.runs.front());
        let block = in_hand.or(coming.and_then(|run| run.blocks.first()).map(|(block, _)| block));
        block.map(|block| block.first_offset)
    }

    /// Whether it holds a share of the memory, for blocks at hand or on their way.
    pub fn holds_memory(&self) -> bool {
        self.share.is_some() || self.ahead.is_some()
    }

    /// Finds the batch at the head; `false` at the end of the segment. `alone`: the partition holds no other memory,
    /// so it may wait for its share.
    pub async fn load(&mut self, source: &Source, alone: bool) -> Result<bool, RestorerError> {
        while self.head.is_none() {
            if let Some((batches, position)) = &mut self.open_block {
                let position = *position;
                match batches.next() {
                    Some(batch) => {
                        let batch = batch.map_err(|error| self.broken(&error))?;
                        self.head = Some(Found { batch, position });
                    }
                    None => self.open_block = None,
                }
            } else if let Some(decoding) = self.decoding.take() {
                source.live.archive_read(u64::from(decoding.compressed_len));
                let content = self.decoded(decoding.content).await?;
                self.open_block = Some((batches(&content), decoding.position));
                self.decode_next();
            } else if !self.blocks.is_empty() {
                self.decode_next();
            } else {
                self.share = None;
                if !self.fetch(source, alone).await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Gets the next run, and asks for the one after it.
    async fn fetch(&mut self, source: &Source, alone: bool) -> Result<bool, RestorerError> {
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => {
                let Some(run) = self.runs.pop_front() else {
                    return Ok(false);
                };
                let bytes = run.memory_bytes();
                let share = if alone {
                    source.budget.wait(bytes).await
                } else {
                    source.budget.overdraw(bytes)
                };
                self.request(source, run, share)
            }
        };
        if let Some(next) = self.runs.front()
            && let Some(share) = source.budget.try_now(next.memory_bytes())
            && let Some(run) = self.runs.pop_front()
        {
            self.ahead = Some(self.request(source, run, share));
        }
        let key = self.segment.info.key.clone();
        let stored = ahead
            .bytes
            .await
            .map_err(|error| RestorerError::Task(error.to_string()))?;
        let stored = stored.map_err(|error| ReadError::from(error).into_error(&key))?;
        self.share = Some(ahead.share);
        let mut at = 0usize;
        for wanted in ahead.run.blocks {
            let end = at.saturating_add(wanted.0.compressed_len as usize);
            let piece = if end <= stored.len() {
                stored.slice(at..end)
            } else {
                Bytes::new()
            };
            self.blocks.push_back((wanted, piece));
            at = end;
        }
        Ok(true)
    }

    fn request(&self, source: &Source, run: Run, share: Share) -> Ahead {
        let (store, key, range) = (source.store.clone(), self.segment.info.key.clone(), run.range());
        Ahead {
            run,
            share,
            bytes: tokio::spawn(async move { store.get_range(&key, range).await }),
        }
    }

    /// Begins to check and decompress the next block; on a thread of its own, since that takes milliseconds.
    fn decode_next(&mut self) {
        let Some(((block, position), stored)) = self.blocks.pop_front() else {
            return;
        };
        let codec = self.segment.footer.codec;
        let (first_offset, compressed_len) = (block.first_offset, block.compressed_len);
        let content = tokio::task::spawn_blocking(move || decode_block(codec, &stored, &block));
        self.decoding = Some(Decoding {
            first_offset,
            compressed_len,
            position,
            content,
        });
    }

    async fn decoded(
        &self,
        content: JoinHandle<Result<Bytes, SegmentError>>,
    ) -> Result<Bytes, RestorerError> {
        let content = content
            .await
            .map_err(|error| RestorerError::Task(error.to_string()))?;
        content.map_err(|error| ReadError::from(error).into_error(self.key()))
    }

    fn broken(&self, error: &BatchError) -> RestorerError {
        let reason = teeline_runtime::exit::error_chain(error);
        RestorerError::DamagedSegment {
            key: self.key().to_owned(),
            reason,
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.bytes.abort();
        }
    }
}

impl Run {
    fn range(&self) -> std::ops::Range<u64> {
        match (self.blocks.first(), self.blocks.last()) {
            (Some((first, _)), Some((last, _))) => first.range().start..last.range().end,
            _ => 0..0,
        }
    }

    /// The run as stored, and two of its blocks decompressed: one worked on, one coming.
    fn memory_bytes(&self) -> u64 {
        let largest = self
            .blocks
            .iter()
            .map(|(block, _)| u64::from(block.uncompressed_len))
            .max()
            .unwrap_or(0);
        let range = self.range();
        range
            .end
            .saturating_sub(range.start)
            .saturating_add(largest.saturating_mul(2))
    }
}

/// Which blocks of a segment are read: those that may hold wanted records, and those that claim offsets which others
/// claim too. Not those that count no more.
#[derive(Debug, Clone, Copy)]
pub struct BlockChoice<'a> {
    /// The time window.
    pub window: Window,
    /// Offsets that several segments claim; none for provisional offsets, which claim nothing.
    pub contested: Option<&'a OffsetSet>,
    /// Offsets of the segment that count no more.
    pub skipped: Option<&'a OffsetSet>,
}

impl BlockChoice<'_> {
    /// The blocks, with their position to the window.
    pub fn wanted(&self, blocks: &[BlockEntry]) -> Vec<(BlockEntry, Position)> {
        let placed = blocks.iter().filter(|block| !self.skips(block));
        placed
            .map(|block| (block, self.position(block)))
            .filter(|(block, position)| *position != Position::Outside || self.is_contested(block))
            .map(|(block, position)| (block.clone(), position))
            .collect()
    }

    /// Records of the window in blocks that count no more.
    pub fn records_skipped(&self, blocks: &[BlockEntry]) -> u64 {
        let skipped = blocks
            .iter()
            .filter(|block| self.skips(block) && self.position(block) != Position::Outside);
        skipped.map(|block| u64::from(block.record_count)).sum()
    }

    fn position(&self, block: &BlockEntry) -> Position {
        self.window.position(block.timestamp_min, block.timestamp_max)
    }

    fn is_contested(&self, block: &BlockEntry) -> bool {
        let range = OffsetRange::new(block.first_offset, block.last_offset);
        self.contested
            .zip(range)
            .is_some_and(|(contested, range)| touches(contested, range))
    }

    fn skips(&self, block: &BlockEntry) -> bool {
        let range = OffsetRange::new(block.first_offset, block.last_offset);
        self.skipped
            .zip(range)
            .is_some_and(|(skipped, range)| skipped.contains_range(range))
    }
}

fn into_runs(wanted: Vec<Wanted>) -> VecDeque<Run> {
    let mut runs: VecDeque<Run> = VecDeque::new();
    for (block, position) in wanted {
        if let Some(run) = runs.back_mut() {
            let range = run.range();
            let length = range.end.saturating_sub(range.start);
            let joins = range.end == block.range().start;
            if joins && length.saturating_add(u64::from(block.compressed_len)) <= RUN_BYTES {
                run.blocks.push((block, position));
                continue;
            }
        }
        runs.push_back(Run {
            blocks: vec![(block, position)],
        });
    }
    runs
}
