//! What a broker remembers of a client's requests (KIP-227). Pure.
//!
//! A session is a list of partitions with positions that the broker keeps. Later requests name what has changed, later
//! responses what is new. Each request is the next step, or it is refused; whenever it is not certain that the broker has
//! taken the last one, a new session begins with the whole list, and takes the place of the old one. A broker keeps a
//! limited number of sessions: it may refuse one, whereupon every request has the whole list, and it may forget one.

use std::collections::{BTreeMap, HashMap};

use super::message::{NEWEST_BY_NAME, SessionStep, WireKey};
use crate::client::ErrorCode;

/// One session with one broker.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0 for none.
    id: i32,
    /// The next step; 0 begins.
    epoch: i32,
    version: i16,
    /// What the broker has, if it has taken the last request.
    sent: HashMap<WireKey, Place>,
    /// Turns the list of a whole request, so that no partition always comes last.
    turn: usize,
}

/// Where a partition is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) leader_epoch: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: i32,
}

/// The next request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) session: SessionStep,
    /// What is to be named.
    pub(super) asked: Vec<WireKey>,
    /// What the broker is to forget.
    pub(super) forgotten: Vec<WireKey>,
}

impl Step {
    /// Whether the whole list is in it.
    pub(super) fn is_whole(&self) -> bool {
        self.session.epoch == 0
    }
}

/// What an answer says about the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It goes on.
    Kept,
    /// The broker keeps none for us.
    Refused,
    /// It is over; the next request begins another.
    Over,
}

impl Session {
    /// The next request, for what is wanted now.
    pub(super) fn next(&mut self, version: i16, wanted: &BTreeMap<WireKey, Place>) -> Step {
        if version != self.version {
            // Topics go by names or by ids throughout a session.
            self.doubt();
            self.version = version;
        }
        let session = SessionStep {
            id: self.id,
            epoch: self.epoch,
        };
        if self.epoch == 0 {
            self.sent = wanted.iter().map(|(key, place)| (key.clone(), *place)).collect();
            let mut asked: Vec<WireKey> = wanted.keys().cloned().collect();
            asked.rotate_left(self.turn % wanted.len().max(1));
            self.turn = self.turn.wrapping_add(1);
            return Step {
                session,
                asked,
                forgotten: Vec::new(),
            };
        }
        let is_gone = |key: &&WireKey| !wanted.contains_key(*key);
        let forgotten: Vec<WireKey> = self.sent.keys().filter(is_gone).cloned().collect();
        for key in &forgotten {
            self.sent.remove(key);
        }
        let mut asked = Vec::new();
        for (key, place) in wanted {
            if self.sent.get(key) != Some(place) {
                self.sent.insert(key.clone(), *place);
                asked.push(key.clone());
            }
        }
        Step {
            session,
            asked,
            forgotten,
        }
    }

    /// Whether topics went by their ids in the last request.
    pub(super) fn is_by_id(&self) -> bool {
        self.version > NEWEST_BY_NAME
    }

    /// From where the last request wanted a partition.
    pub(super) fn offset_of(&self, key: &WireKey) -> Option<i64> {
        self.sent.get(key).map(|place| place.offset)
    }

    /// Takes the answer to the last request in.
    pub(super) fn answered(&mut self, error: ErrorCode, session_id: i32) -> Standing {
        if !error.is_ok() {
            if error == ErrorCode::FETCH_SESSION_ID_NOT_FOUND {
                self.id = 0;
            }
            self.epoch = 0;
            return Standing::Over;
        }
        if session_id == 0 {
            (self.id, self.epoch) = (0, 0);
            return Standing::Refused;
        }
        if self.epoch != 0 && session_id != self.id {
            self.epoch = 0;
            return Standing::Over;
        }
        self.id = session_id;
        self.epoch = match self.epoch {
            i32::MAX => 1,
            epoch => epoch.saturating_add(1),
        };
        Standing::Kept
    }

    /// Nobody knows whether the last request was taken. True when there was a session to be lost.
    pub(super) fn doubt(&mut self) -> bool {
        let had_one = self.epoch != 0;
        self.epoch = 0;
        had_one
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::message::WireTopic;
    use super::*;

    fn key(name: &str) -> WireKey {
        (WireTopic::Name(name.into()), 0)
    }

    fn wanted(places: &[(&str, i64)]) -> BTreeMap<WireKey, Place> {
        let place = |offset| Place {
            leader_epoch: 1,
            offset,
            max_bytes: 10,
        };
        places
            .iter()
            .map(|(name, offset)| (key(name), place(*offset)))
            .collect()
    }

    fn step(session: &mut Session, places: &[(&str, i64)]) -> (i32, i32, Vec<WireKey>, Vec<WireKey>) {
        let mut step = session.next(13, &wanted(places));
        step.asked.sort();
        (step.session.id, step.session.epoch, step.asked, step.forgotten)
    }

    #[test]
    fn what_has_changed_is_asked_for_and_nothing_else() {
        let mut session = Session::default();
        let none = Vec::new();
        assert_eq!(
            step(&mut session, &[("a", 1), ("b", 2)]),
            (0, 0, vec![key("a"), key("b")], none.clone())
        );
        assert_eq!(session.answered(ErrorCode::NONE, 7), Standing::Kept);
        assert_eq!(
            step(&mut session, &[("a", 1), ("b", 2)]),
            (7, 1, none.clone(), none.clone())
        );
        assert_eq!(session.answered(ErrorCode::NONE, 7), Standing::Kept);
        let moved = step(&mut session, &[("a", 5), ("c", 0)]);
        assert_eq!(moved, (7, 2, vec![key("a"), key("c")], vec![key("b")]));
        assert_eq!(session.offset_of(&key("a")), Some(5));
        assert_eq!(session.offset_of(&key("b")), None);
    }

    #[test]
    fn whatever_is_in_doubt_begins_anew_with_the_whole_list() {
        let begun = || {
            let mut session = Session::default();
            session.next(13, &wanted(&[("a", 1)]));
            session.answered(ErrorCode::NONE, 7);
            session.next(13, &wanted(&[("a", 2)]));
            session
        };
        let whole = |id| (id, 0, vec![key("a")], Vec::new());
        let after = |error, id| {
            let mut session = begun();
            let standing = session.answered(error, id);
            (standing, step(&mut session, &[("a", 2)]))
        };
        // A broker that does not know the session has nothing to be closed.
        let forgotten = after(ErrorCode::FETCH_SESSION_ID_NOT_FOUND, 0);
        assert_eq!(forgotten, (Standing::Over, whole(0)));
        for error in [
            ErrorCode::INVALID_FETCH_SESSION_EPOCH,
            ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
        ] {
            assert_eq!(after(error, 0), (Standing::Over, whole(7)));
        }
        assert_eq!(after(ErrorCode::NONE, 8), (Standing::Over, whole(7)));
        assert_eq!(after(ErrorCode::NONE, 0), (Standing::Refused, whole(0)));
        let mut lost = begun();
        assert!(lost.doubt() && !lost.doubt());
        assert_eq!(step(&mut lost, &[("a", 2)]), whole(7));
        // From names to ids, or back.
        let mut renamed = begun();
        renamed.answered(ErrorCode::NONE, 7);
        assert!(renamed.next(12, &wanted(&[("a", 2)])).is_whole());
    }

    #[test]
    fn steps_count_up_to_the_largest_number_and_on_from_one() {
        let mut session = Session {
            id: 7,
            epoch: i32::MAX,
            version: 13,
            ..Session::default()
        };
        session.answered(ErrorCode::NONE, 7);
        assert_eq!(step(&mut session, &[]), (7, 1, Vec::new(), Vec::new()));
    }

    #[test]
    fn without_a_session_no_partition_always_comes_last() {
        let mut session = Session::default();
        let mut first = || {
            let step = session.next(13, &wanted(&[("a", 0), ("b", 0)]));
            session.answered(ErrorCode::NONE, 0);
            step.asked.first().cloned().unwrap()
        };
        assert_eq!((first(), first(), first()), (key("a"), key("b"), key("a")));
    }
}
