//! Looks after the files of certificates and keys: what is renewed is used without a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use teeline_runtime::exit::error_chain;

use crate::cluster::{Cluster, Live};
use crate::metrics::{Reload, Side};

/// Reads the files again and again, for as long as the cluster is served. A reload may bring the first ones.
pub(crate) async fn watch(cluster: Arc<Cluster>) {
    let mut told = HashMap::new();
    loop {
        let live = cluster.live.load_full();
        if live.door.tls.is_some() || live.upstream.tls.is_some() {
            let looked = tokio::task::spawn_blocking(move || look(&live)).await;
            for (side, outcome) in looked.unwrap_or_default() {
                tell(&cluster, side, outcome, &mut told);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn look(live: &Live) -> Vec<(Side, Result<bool, String>)> {
    let mut outcomes = Vec::new();
    if let Some(tls) = &live.door.tls {
        outcomes.push((Side::Client, tls.reload().map_err(|error| error.to_string())));
    }
    if let Some(tls) = &live.upstream.tls {
        outcomes.push((Side::Broker, tls.reload().map_err(|error| error_chain(&error))));
    }
    outcomes
}

fn tell(
    cluster: &Cluster,
    side: Side,
    outcome: Result<bool, String>,
    told: &mut HashMap<Side, Option<String>>,
) {
    let toward = side.as_str();
    match outcome {
        Ok(changed) => {
            let recovered = told.insert(side, None).flatten().is_some();
            if changed || recovered {
                cluster.metrics.reloaded(side, Reload::Done);
                tracing::info!(cluster = cluster.name, toward, "certificates read");
            }
        }
        Err(error) => {
            cluster.metrics.reloaded(side, Reload::Failed);
            // Once for each state of the files.
            let same = told.insert(side, Some(error.clone())).flatten().as_ref() == Some(&error);
            if !same {
                tracing::warn!(
                    cluster = cluster.name,
                    toward,
                    "certificates stay as they were, the files cannot be used: {error}"
                );
            }
        }
    }
}

/// Short beside the time for which an old certificate and a new one are both good.
const INTERVAL: Duration = Duration::from_secs(5);
