//! What is known of one kind of state, and what of it is still to be stored.

use std::collections::BTreeSet;

use teeline_archive::WriterId;
use teeline_archive::ledger::StateKind;
use teeline_archive::state::{
    FinishedState, Header, ItemKey, ItemValue, Items, STATE_VERSION, StateError, StateWriter, What,
};

use super::Settings;

/// What was seen of one kind, looking at all of it once.
#[derive(Debug, Default)]
pub(super) struct Observation {
    /// What is there.
    pub(super) items: Items,
    /// What could not be seen.
    pub(super) unseen: Unseen,
}

/// What could not be seen: nothing says that it is gone.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// Everything.
    pub(super) all: bool,
    /// Groups, with their offsets.
    pub(super) groups: BTreeSet<String>,
    /// Single items.
    pub(super) items: BTreeSet<ItemKey>,
    /// Parts that are likely to be seen again soon, by their names in [`ItemKey::NotAuditable`].
    pub(super) for_now: BTreeSet<String>,
}

impl Unseen {
    fn covers(&self, key: &ItemKey) -> bool {
        match key {
            // Said anew with each look, so it is gone when it is not said.
            ItemKey::NotAuditable(_) => false,
            _ if self.all || self.items.contains(key) => true,
            ItemKey::Group(group) => self.groups.contains(&group.group),
            ItemKey::Offset(offset) => self.groups.contains(&offset.group),
            _ => false,
        }
    }
}

/// Of whom the objects speak.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) backup_id: String,
    pub(super) cluster_id: String,
    pub(super) run: String,
}

/// What an observation changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// How many items.
    pub(super) items: u64,
    /// Parts that cannot be read, and why, that could be read before.
    pub(super) denied: Vec<(String, String)>,
}

/// One kind of state.
#[derive(Debug)]
pub(super) struct Book {
    kind: StateKind,
    items: Items,
    /// When all of it was last looked at.
    seen_ms: Option<i64>,
    /// The time of the last line: later ones never go back behind it.
    said_ms: i64,
    /// Changes that are not in an object yet, compressed already.
    pending: Option<StateWriter>,
    /// An object whose upload did not succeed so far.
    ready: Option<FinishedState>,
    /// The next object of the run.
    seq: u64,
    /// When the last object was finished, by the caller's clock.
    flushed_ms: Option<i64>,
    /// Up to when objects tell.
    told_ms: Option<i64>,
    /// When the last full object was begun.
    full_ms: Option<i64>,
    /// Bytes of changes since then.
    delta_bytes: u64,
    /// Objects since then.
    delta_objects: u64,
    /// Whether the next object has to say everything.
    needs_full: bool,
}

impl Book {
    pub(super) fn new(kind: StateKind) -> Self {
        Self {
            kind,
            items: Items::new(),
            seen_ms: None,
            said_ms: i64::MIN,
            pending: None,
            ready: None,
            seq: 0,
            flushed_ms: None,
            told_ms: None,
            full_ms: None,
            delta_bytes: 0,
            delta_objects: 0,
            needs_full: true,
        }
    }

    pub(super) fn kind(&self) -> StateKind {
        self.kind
    }

    pub(super) fn items(&self) -> &Items {
        &self.items
    }

    /// How many parts cannot be read.
    pub(super) fn not_auditable(&self) -> usize {
        // They come first in the order of keys.
        let is_part = |key: &&ItemKey| matches!(key, ItemKey::NotAuditable(_));
        self.items.keys().take_while(is_part).count()
    }

    /// Takes what was seen at `at_ms`, and notes what is different from before.
    pub(super) fn observe(
        &mut self,
        at_ms: i64,
        seen: Observation,
        identity: &Identity,
        settings: &Settings,
    ) -> Result<Changed, StateError> {
        let Observation { mut items, unseen } = seen;
        let old = std::mem::take(&mut self.items);
        let mut gone = Vec::new();
        let mut set: Vec<&ItemKey> = Vec::new();
        let mut kept = Vec::new();
        for (key, value) in old.iter() {
            if !items.contains_key(key) {
                match unseen.covers(key) {
                    true => kept.push((key.clone(), value.clone())),
                    false => gone.push(key.clone()),
                }
            }
        }
        items.extend(kept);
        for (key, value) in &items {
            if old.get(key) != Some(value) {
                set.push(key);
            }
        }
        let changed = Changed {
            items: (set.len() + gone.len()) as u64,
            denied: set
                .iter()
                .filter_map(|key| denial(key, &items))
                .filter(|(part, _)| !unseen.for_now.contains(part))
                .collect(),
        };
        let written = self.write(at_ms, &items, &set, gone, identity);
        self.items = items;
        self.seen_at(at_ms);
        written.inspect_err(|_| self.give_up_pending())?;
        self.bound(settings);
        Ok(changed)
    }

    /// The moment up to which all of it is known.
    pub(super) fn seen_ms(&self) -> Option<i64> {
        self.seen_ms
    }

    /// Everything was looked at, and is as the items say.
    pub(super) fn seen_at(&mut self, at_ms: i64) {
        self.seen_ms = Some(at_ms);
        self.said_ms = self.said_ms.max(at_ms);
    }

    /// Takes changes with times of their own, in the order of time. A time before what was said already, or after
    /// `at_ms`, which is now, is brought between the two: clocks differ. The answer is how many items are different.
    pub(super) fn apply(
        &mut self,
        at_ms: i64,
        changes: Vec<(i64, What)>,
        identity: &Identity,
        settings: &Settings,
    ) -> Result<u64, StateError> {
        let mut changed = 0;
        let mut outcome = Ok(());
        for (time_ms, what) in changes {
            if !self.is_news(&what) {
                continue;
            }
            changed += 1;
            match &what {
                What::Set(key, value) => {
                    self.items.insert(key.clone(), value.clone());
                }
                What::Gone(key) => {
                    self.items.remove(key);
                }
                What::Seen | What::Unknown => continue,
            }
            let time_ms = time_ms.min(at_ms).max(self.said_ms);
            // Before the first look, and after changes were given up, the next object says everything anyway.
            if self.needs_full {
                self.said_ms = time_ms;
            } else if let Err(error) = self.say(time_ms, what, identity) {
                self.give_up_pending();
                outcome = Err(error);
            }
        }
        self.bound(settings);
        outcome.map(|()| changed)
    }

    /// The same offset, said again without telling of which topic it is, is no news.
    fn is_news(&self, what: &What) -> bool {
        match what {
            What::Set(key, ItemValue::Offset(value)) => match self.items.get(key) {
                Some(ItemValue::Offset(known)) if value.topic_id.is_none() => {
                    let mut known = known.clone();
                    known.topic_id = None;
                    known != *value
                }
                known => known.is_none_or(|known| *known != ItemValue::Offset(value.clone())),
            },
            What::Set(key, value) => self.items.get(key) != Some(value),
            What::Gone(key) => self.items.contains_key(key),
            What::Seen | What::Unknown => false,
        }
    }

    fn say(&mut self, at_ms: i64, what: What, identity: &Identity) -> Result<(), StateError> {
        let mut pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.begin(identity, false)?,
        };
        let before = pending.content_bytes();
        pending.push(at_ms, what)?;
        self.delta_bytes += pending.content_bytes() - before;
        self.pending = Some(pending);
        self.said_ms = self.said_ms.max(at_ms);
        Ok(())
    }

    /// Nothing grows without a limit while the store is away.
    fn bound(&mut self, settings: &Settings) {
        let waiting = self.pending.as_ref().map_or(0, StateWriter::content_bytes);
        if waiting > settings.pending_bytes_max {
            tracing::warn!(kind = %self.kind, bytes = waiting, "too many changes of the cluster's state wait for the store; they are given up, and the next object says the whole state again");
            self.give_up_pending();
        }
    }

    fn write(
        &mut self,
        at_ms: i64,
        items: &Items,
        set: &[&ItemKey],
        gone: Vec<ItemKey>,
        identity: &Identity,
    ) -> Result<(), StateError> {
        if self.needs_full {
            let pending = self.begin(identity, true)?;
            self.pending = Some(all_of(pending, at_ms, items)?);
            self.said_everything(at_ms);
            return Ok(());
        }
        if set.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut pending = match self.pending.take() {
            Some(pending) => pending,
            None => self.begin(identity, false)?,
        };
        let before = pending.content_bytes();
        for key in set {
            if let Some(value) = items.get(key) {
                pending.push(at_ms, What::Set((*key).clone(), value.clone()))?;
            }
        }
        for key in gone {
            pending.push(at_ms, What::Gone(key))?;
        }
        self.delta_bytes += pending.content_bytes() - before;
        self.pending = Some(pending);
        Ok(())
    }

    fn begin(&self, identity: &Identity, full: bool) -> Result<StateWriter, StateError> {
        let header = Header {
            version: STATE_VERSION,
            backup_id: identity.backup_id.clone(),
            cluster_id: identity.cluster_id.clone(),
            kind: String::new(),
            run: identity.run.clone(),
            seq: self.seq,
            full,
            program: format!("teeline {}", env!("CARGO_PKG_VERSION")),
        };
        StateWriter::new(self.kind, header)
    }

    /// Gives up what was not stored yet: the next object says everything again.
    pub(super) fn give_up_pending(&mut self) {
        self.pending = None;
        self.needs_full = true;
    }

    /// Begins another run: the next object says everything again.
    pub(super) fn start_over(&mut self) {
        (self.ready, self.flushed_ms, self.told_ms) = (None, None, None);
        self.seq = 0;
        self.give_up_pending();
    }

    /// The object to be stored now, if there is one. It is given again until [`Book::stored`] is called.
    pub(super) fn due(
        &mut self,
        now_ms: i64,
        force: bool,
        identity: &Identity,
        settings: &Settings,
        nonce: u64,
    ) -> Result<Option<&FinishedState>, StateError> {
        if self.ready.is_some() {
            return Ok(self.ready.as_ref());
        }
        let Some(seen_ms) = self.seen_ms else {
            return Ok(None);
        };
        let rested = self
            .flushed_ms
            .is_none_or(|at| now_ms.saturating_sub(at) >= ms(settings.flush_interval));
        let waiting = self.pending.as_ref().map_or(0, StateWriter::content_bytes);
        let is_time = force || rested || waiting >= settings.flush_bytes;
        let silent_ms = seen_ms.saturating_sub(self.told_ms.unwrap_or(seen_ms));
        let patience = match force {
            true => settings.flush_interval,
            false => settings.alive_interval,
        };
        let mut pending = match self.pending.take() {
            Some(pending) if is_time => pending,
            Some(pending) => {
                self.pending = Some(pending);
                return Ok(None);
            }
            // Right behind the changes that made it heavy, or after those that were given up.
            None if self.is_heavy(seen_ms, settings) || (is_time && self.needs_full) => {
                let full = self.begin(identity, true)?;
                let at_ms = seen_ms.max(self.said_ms);
                self.said_everything(at_ms);
                all_of(full, at_ms, &self.items)?
            }
            None if is_time && silent_ms > 0 && silent_ms >= ms(patience) => self.begin(identity, false)?,
            None => return Ok(None),
        };
        // Changes may be known before all of it was looked at again.
        if self.said_ms <= seen_ms || pending.is_empty() {
            pending.push(seen_ms, What::Seen)?;
        }
        self.delta_objects += u64::from(!pending.is_full());
        let finished = pending.finish(WriterId::AUDITOR, nonce)?;
        self.seq += 1;
        self.told_ms = Some(seen_ms);
        self.flushed_ms = Some(now_ms);
        Ok(Some(self.ready.insert(finished)))
    }

    /// Whether reading the state takes so many changes that it should be said anew.
    fn is_heavy(&self, seen_ms: i64, settings: &Settings) -> bool {
        let age_ms = seen_ms.saturating_sub(self.full_ms.unwrap_or(seen_ms));
        let is_old = age_ms >= ms(settings.full_interval);
        self.delta_objects > 0 && (is_old || self.delta_bytes >= settings.full_bytes)
    }

    fn said_everything(&mut self, at_ms: i64) {
        self.needs_full = false;
        self.full_ms = Some(at_ms);
        (self.delta_bytes, self.delta_objects) = (0, 0);
    }

    /// The object that [`Book::due`] gave is stored.
    pub(super) fn stored(&mut self) -> Option<FinishedState> {
        self.ready.take()
    }
}

/// All of a state as lines of one moment; what is empty is said by being seen.
fn all_of(mut writer: StateWriter, at_ms: i64, items: &Items) -> Result<StateWriter, StateError> {
    for (key, value) in items {
        writer.push(at_ms, What::Set(key.clone(), value.clone()))?;
    }
    if writer.is_empty() {
        writer.push(at_ms, What::Seen)?;
    }
    Ok(writer)
}

fn denial(key: &ItemKey, items: &Items) -> Option<(String, String)> {
    match (key, items.get(key)) {
        (ItemKey::NotAuditable(part), Some(ItemValue::NotAuditable(why))) => {
            Some((part.part.clone(), why.reason.clone()))
        }
        _ => None,
    }
}

fn ms(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
