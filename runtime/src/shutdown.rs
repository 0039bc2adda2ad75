//! Stopping: a token that can be handed down, and waits that end with it.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Says whether to stop. Clones are the same token; a child stops with its parent, not the other way round.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that stops with this one, and can be stopped alone.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
        }
    }

    /// Stop now. Once is enough; more often does no harm.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether it is time.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is time.
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    /// Runs a future, or gives it up when it is time: `None`. Only for futures that may be dropped anywhere.
    pub async fn run_until<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => None,
            output = future => Some(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.trigger();
        assert!(one.is_triggered() && !two.is_triggered() && !parent.is_triggered());
        parent.trigger();
        two.triggered().await;
        assert_eq!(two.run_until(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn what_ends_before_the_stop_gives_its_output() {
        assert_eq!(Shutdown::new().run_until(async { 7 }).await, Some(7));
    }
}
