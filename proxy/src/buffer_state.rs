//! The state of the write-ahead buffer, in metrics, health and log.

use std::sync::Arc;
use std::time::Duration;

use teeline_config::cluster::OnFailure;
use teeline_runtime::health::ComponentHealth;

use crate::cluster::Cluster;
use crate::metrics::Missed;

/// Shows it for as long as the cluster is served.
pub(crate) async fn watch(cluster: Arc<Cluster>, health: ComponentHealth) {
    let Some(capture) = &cluster.capture else { return };
    let mut last = None;
    let mut lost_intents = 0;
    loop {
        let state = capture.writer().state();
        cluster.metrics.buffer_used_bytes.set(state.used_bytes as f64);
        cluster
            .metrics
            .buffer_pending_bytes
            .set(state.pending_bytes as f64);
        let newly_lost = state.lost_intents.saturating_sub(lost_intents);
        if newly_lost > 0 {
            let batches = usize::try_from(newly_lost).unwrap_or(usize::MAX);
            cluster.metrics.missed(Missed::Lost, batches);
            lost_intents = state.lost_intents;
        }
        cluster.metrics.buffer_full.set(f64::from(u8::from(state.full)));
        cluster
            .metrics
            .buffer_broken
            .set(f64::from(u8::from(state.broken.is_some())));
        let (trouble, on_failure) = (state.trouble(), capture.on_failure());
        let known = last.replace((trouble.clone(), on_failure));
        if known != last {
            match (&trouble, on_failure) {
                (None, _) => health.ready(),
                // Clients are served all the same: taking the proxy out of service would be worse for them.
                (Some(_), OnFailure::Open) => health.ready(),
                (Some(trouble), OnFailure::Closed) => health.not_ready(trouble.clone()),
            }
            if let Some(trouble) = &trouble {
                tracing::warn!(
                    cluster = cluster.name,
                    ?on_failure,
                    "capture is suspended: {trouble}"
                );
            } else if known.is_some_and(|(trouble, _)| trouble.is_some()) {
                tracing::info!(cluster = cluster.name, "capture goes on");
            }
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
