//! Who is ready, and why not. Cheap to clone and to report to; the admin port reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of every component of the process.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<String, State>>>,
}

/// The state of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can do its work.
    Ready,
    /// It cannot at present; the reason is for people.
    NotReady(String),
    /// It never will again in this process: a restart is needed.
    Failed(String),
}

/// The handle with which a component reports. It counts as not ready ("starting") until it says otherwise,
/// and keeps its last state when the handle is dropped: a task that died silently does not become healthy.
#[derive(Debug, Clone)]
pub struct ComponentHealth {
    name: String,
    health: Health,
}

impl Health {
    /// Without components the process is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, or joins the one of that name.
    pub fn component(&self, name: impl Into<String>) -> ComponentHealth {
        let name = name.into();
        self.lock()
            .entry(name.clone())
            .or_insert_with(|| State::NotReady("starting".to_owned()));
        ComponentHealth {
            name,
            health: self.clone(),
        }
    }

    /// Whether every component is ready.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|state| *state == State::Ready)
    }

    /// Whether no component has failed for good.
    pub fn is_alive(&self) -> bool {
        !self
            .lock()
            .values()
            .any(|state| matches!(state, State::Failed(_)))
    }

    /// Every component with its state, by name.
    pub fn states(&self) -> Vec<(String, State)> {
        self.lock()
            .iter()
            .map(|(name, state)| (name.clone(), state.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // The map is whole between any two statements that touch it, so a panic elsewhere does not spoil it.
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ComponentHealth {
    /// It can do its work.
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    /// It cannot at present.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(State::NotReady(reason.into()));
    }

    /// It never will again in this process.
    pub fn failed(&self, reason: impl Into<String>) {
        self.set(State::Failed(reason.into()));
    }

    /// Takes it out of the registry: it is no longer part of the process.
    pub fn remove(self) {
        self.health.lock().remove(&self.name);
    }

    fn set(&self, state: State) {
        let previous = self.health.lock().insert(self.name.clone(), state.clone());
        if previous.as_ref() == Some(&state) {
            return;
        }
        match state {
            State::Ready => tracing::info!(component = self.name, "ready"),
            State::NotReady(reason) => tracing::info!(component = self.name, reason, "not ready"),
            State::Failed(reason) => tracing::error!(component = self.name, reason, "failed for good"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_that_has_not_reported_yet_is_not_ready() {
        let health = Health::new();
        assert!(health.is_ready());
        let upstream = health.component("upstream/main");
        assert!(!health.is_ready() && health.is_alive());
        upstream.ready();
        assert!(health.is_ready());
    }

    #[test]
    fn one_component_out_of_two_is_enough_to_be_not_ready_and_it_says_why() {
        let health = Health::new();
        health.component("a").ready();
        health.component("b").not_ready("no broker answers");
        assert!(!health.is_ready());
        let expected = ("b".to_owned(), State::NotReady("no broker answers".to_owned()));
        assert_eq!(health.states().last(), Some(&expected));
        health.component("b").remove();
        assert!(health.is_ready());
    }

    #[test]
    fn a_failed_component_means_not_alive() {
        let health = Health::new();
        health.component("buffer").failed("disk gone");
        assert!(!health.is_alive() && !health.is_ready());
    }
}
