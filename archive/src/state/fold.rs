//! From objects to the state at a moment.

use crate::ledger::{LedgerState, StateKind, StateObject};
use crate::state::item::Items;
use crate::state::line::What;
use crate::state::{StateError, StateReader};

/// The objects that tell the state of `kind` at `at_ms`, in the order in which a [`StateFold`] takes them: the latest
/// full one that begins by then, and what follows it up to then. Empty if nothing was recorded by then.
pub fn objects_at(ledger: &LedgerState, kind: StateKind, at_ms: i64) -> Vec<&StateObject> {
    let by_then = |object: &&StateObject| object.kind == kind && object.first_at_ms <= at_ms;
    let mut objects: Vec<&StateObject> = ledger.state_objects().iter().filter(by_then).collect();
    let base = objects.iter().rposition(|object| object.full);
    // Changes of objects that have the base's time but come before it in the order of keys may belong to it.
    let first = base
        .and_then(|base| objects.get(base))
        .map(|base| base.first_at_ms);
    let Some((base, first)) = base.zip(first) else {
        return Vec::new();
    };
    objects.swap(0, base);
    let mut index = 0;
    objects.retain(|object| {
        index += 1;
        index == 1 || (!object.full && object.first_at_ms >= first)
    });
    if let Some(rest) = objects.get_mut(1..) {
        rest.sort_by_key(|object| (object.first_at_ms, object.last_at_ms));
    }
    objects
}

/// Why an object does not fit behind those before it.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It cannot be read.
    #[error("the object cannot be read")]
    Object(#[from] StateError),
    /// Objects of the run are missing between the last one and this.
    #[error("object {expected} of the run is missing, object {found} follows: changes between them are lost")]
    Missing {
        /// Which was expected.
        expected: u64,
        /// Which was found.
        found: u64,
    },
    /// The first object does not say the whole state.
    #[error("nothing says what the whole state was before")]
    NoBase,
}

/// The state at a moment, under construction.
#[derive(Debug, Clone)]
pub struct StateFold {
    at_ms: i64,
    items: Items,
    run: Option<(String, u64)>,
    seen_ms: Option<i64>,
    unknown_lines: u64,
}

impl StateFold {
    /// Nothing yet; `at_ms` is the moment, in epoch milliseconds.
    pub fn until(at_ms: i64) -> StateFold {
        StateFold {
            at_ms,
            items: Items::new(),
            run: None,
            seen_ms: None,
            unknown_lines: 0,
        }
    }

    /// Takes the next object. One that the state does not rest on is passed over, and `false` is the answer: it is of
    /// another run, or comes before the object that the state began with.
    pub fn add(&mut self, object: &StateObject, bytes: &[u8]) -> Result<bool, FoldError> {
        let reader = StateReader::open(object, bytes)?;
        let header = reader.header();
        let next = (header.run.clone(), header.seq);
        match &self.run {
            None if !header.full => return Err(FoldError::NoBase),
            None => {}
            Some((run, last)) if *run != header.run || header.seq <= *last => return Ok(false),
            Some((_, last)) if last + 1 != header.seq => {
                return Err(FoldError::Missing {
                    expected: last + 1,
                    found: header.seq,
                });
            }
            Some(_) => {}
        }
        self.run = Some(next);
        for line in reader {
            let line = line?;
            if line.at_ms > self.at_ms {
                break;
            }
            self.seen_ms = self.seen_ms.max(Some(line.at_ms));
            match line.what {
                What::Set(key, value) => {
                    self.items.insert(key, value);
                }
                What::Gone(key) => {
                    self.items.remove(&key);
                }
                What::Seen => {}
                What::Unknown => self.unknown_lines += 1,
            }
        }
        Ok(true)
    }

    /// The state.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The state, taken out.
    pub fn into_items(self) -> Items {
        self.items
    }

    /// When the state was last seen to be so, at or before the moment asked for; epoch milliseconds.
    pub fn seen_ms(&self) -> Option<i64> {
        self.seen_ms
    }

    /// Lines that a newer version wrote and this one does not know.
    pub fn unknown_lines(&self) -> u64 {
        self.unknown_lines
    }
}
