//! A new configuration in the place of the one in force, without a restart.
//!
//! The file is read and checked as at a start. Then every key that differs is looked at ([`teeline_config::reload`]); if one
//! of them needs a restart, nothing changes. Then everything that may fail is made ready: certificates are read, listeners
//! bound, the buffers of new clusters opened; if one of these fails, what was made ready is dropped and nothing changes.
//! Only then the new configuration is put in force, in steps that cannot fail. So the proxy always runs by one file as a
//! whole: the last one that it took.
//!
//! One task does all this ([`crate::process`]), so reloads are done one after the other, and none while the proxy stops.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;
use teeline_config::reload::{Change, Effect, changes};
use teeline_config::{Config, ConfigErrors, Problem};
use teeline_runtime::admin::{Answer, Route, StatusCode};
use teeline_runtime::exit::error_chain;
use teeline_runtime::logging;
use teeline_runtime::store::Store;
use tokio::sync::{mpsc, oneshot};

use crate::cluster::to_usize;
use crate::metrics;
use crate::process::{Environment, ProxyError, places_most};
use crate::running::{OpenCluster, Prepared, RunningCluster, open_upstream};

/// Reads the configuration file again, as the command line says.
pub(crate) type Source = Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// Somebody asks for a reload.
pub(crate) struct Request {
    cause: &'static str,
    answer: Option<oneshot::Sender<Report>>,
}

impl Request {
    /// By signal: the log is the answer.
    pub(crate) fn by_signal() -> Request {
        Request {
            cause: "SIGHUP",
            answer: None,
        }
    }

    /// Says how it went: in the log, in the metrics, and to whoever asked.
    pub(crate) fn answer(self, report: Report) {
        let cause = self.cause;
        match &report.outcome {
            Outcome::Done(changes) => {
                for change in changes {
                    tracing::info!(
                        cause,
                        key = change.key,
                        effect = change.effect.as_str(),
                        "changed: {change}"
                    );
                }
                tracing::info!(cause, changes = changes.len(), "configuration reloaded");
            }
            Outcome::Refused(reasons) => {
                for reason in reasons {
                    tracing::warn!(cause, "not reloaded: {reason}");
                }
                tracing::warn!(
                    cause,
                    reasons = reasons.len(),
                    "the configuration stays as it was; nothing was changed"
                );
            }
        }
        metrics::config_reloaded(report.result(), SystemTime::now());
        if let Some(answer) = self.answer {
            // Whoever hung up reads the log.
            let _ = answer.send(report);
        }
    }
}

/// How a reload went.
#[derive(Debug)]
pub(crate) struct Report {
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// These keys changed; perhaps none.
    Done(Vec<Change>),
    /// For these reasons nothing did.
    Refused(Vec<String>),
}

impl Report {
    pub(crate) fn refused(reason: impl Into<String>) -> Report {
        Report {
            outcome: Outcome::Refused(vec![reason.into()]),
        }
    }

    fn result(&self) -> &'static str {
        match &self.outcome {
            Outcome::Done(changes) if changes.is_empty() => "unchanged",
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
        }
    }

    fn lines(&self) -> Vec<String> {
        match &self.outcome {
            Outcome::Done(changes) => changes.iter().map(ToString::to_string).collect(),
            Outcome::Refused(reasons) => reasons.clone(),
        }
    }

    fn into_answer(self, as_json: bool) -> Answer {
        let status = match &self.outcome {
            Outcome::Done(_) => StatusCode::OK,
            Outcome::Refused(_) => StatusCode::CONFLICT,
        };
        if as_json {
            return Answer::json(status, &json!({ "result": self.result(), "lines": self.lines() }));
        }
        let first = match self.result() {
            "refused" => "refused; nothing was changed",
            "unchanged" => "the file says what is in force already",
            _ => "reloaded",
        };
        let mut text = format!("{first}\n");
        for line in self.lines() {
            text.push_str(&format!("  {line}\n"));
        }
        Answer::text(status, text)
    }
}

/// The page of the admin port.
pub(crate) fn route(requests: mpsc::Sender<Request>) -> Route {
    Route::post("/reload", "read the configuration file again", move |ask| {
        let requests = requests.clone();
        async move {
            let (sender, receiver) = oneshot::channel();
            let request = Request {
                cause: "POST /reload",
                answer: Some(sender),
            };
            let report = match requests.send(request).await {
                Ok(()) => receiver.await.ok(),
                Err(_) => None,
            };
            let report = report.unwrap_or_else(|| Report::refused(STOPPING));
            report.into_answer(ask.wants_json())
        }
    })
}

/// A new configuration with everything that it needs. Dropping it changes nothing.
pub(crate) struct Ready {
    config: Config,
    changes: Vec<Change>,
    stay: Vec<(usize, Prepared)>,
    come: Vec<OpenCluster>,
    store: Option<Store>,
}

/// Reads, compares, and makes ready whatever may fail.
pub(crate) async fn prepare(
    source: Option<&Source>,
    clusters: &[RunningCluster],
    environment: &Environment,
) -> Result<Ready, Report> {
    let Some(source) = source else {
        let text = "the proxy was started with flags, so there is no file to read again (hint: --config)";
        return Err(Report::refused(text));
    };
    let source = Arc::clone(source);
    let read = tokio::task::spawn_blocking(move || source()).await;
    let read = read.map_err(|error| Report::refused(error_chain(&error)))?;
    let config = read.map_err(unusable)?;
    let changes = changes(&environment.config, &config);
    let restarts: Vec<String> = changes
        .iter()
        .filter(|change| matches!(change.effect, Effect::Restart(_)))
        .map(ToString::to_string)
        .collect();
    if !restarts.is_empty() {
        return Err(Report {
            outcome: Outcome::Refused(restarts),
        });
    }
    logging::check(&config.log).map_err(|error| Report::refused(error_chain(&error)))?;
    let refused = |error: ProxyError| Report::refused(error_chain(&error));
    let mut environment = environment.with(config);
    environment.open_store().map_err(refused)?;
    let mut come = Vec::new();
    match all_ready(clusters, &environment, &mut come).await {
        Ok(stay) => Ok(Ready {
            changes,
            stay,
            come,
            store: environment.store,
            config: environment.config,
        }),
        Err(error) => {
            // Before anybody is told: the corrected file may follow at once, and find the buffer free.
            for cluster in come {
                cluster.abandon().await;
            }
            Err(refused(error))
        }
    }
}

/// Those that stay, made ready; what is opened for those that come is put where it can be closed again.
async fn all_ready(
    clusters: &[RunningCluster],
    environment: &Environment,
    come: &mut Vec<OpenCluster>,
) -> Result<Vec<(usize, Prepared)>, ProxyError> {
    let mut stay = Vec::new();
    let process = &environment.config.process;
    for settings in &environment.config.clusters {
        let mut there = clusters.iter().enumerate();
        match there.find(|(_, cluster)| cluster.name() == settings.name) {
            Some((index, cluster)) => stay.push((index, cluster.prepare(settings, process).await?)),
            None => {
                let upstream = open_upstream(settings, None).await?;
                come.push(OpenCluster::open(settings, environment, upstream).await?);
            }
        }
    }
    Ok(stay)
}

/// Each problem of the file is a reason of its own.
fn unusable(errors: ConfigErrors) -> Report {
    let tell = |problem: &Problem| format!("{}: {problem}", errors.origin);
    Report {
        outcome: Outcome::Refused(errors.problems.iter().map(tell).collect()),
    }
}

impl Ready {
    /// Puts it in force. Returns the clusters that go, whose connections were told to end.
    pub(crate) fn apply(
        self,
        clusters: &mut Vec<RunningCluster>,
        environment: &mut Environment,
    ) -> (Report, Vec<RunningCluster>) {
        environment.config = self.config;
        environment.store = self.store;
        let process = &environment.config.process;
        environment
            .process
            .budget
            .resize(to_usize(process.in_flight_bytes));
        environment
            .process
            .places
            .set_most(places_most(&environment.config));
        let access = environment.config.log.access;
        environment.process.observatory.set_access(access);
        if let Err(error) = logging::change(&environment.config.log) {
            tracing::warn!("the log stays as it was: {}", error_chain(&error));
        }
        let stays = |name: &str| {
            environment
                .config
                .clusters
                .iter()
                .any(|cluster| cluster.name == name)
        };
        for (index, prepared) in self.stay {
            if let Some(cluster) = clusters.get_mut(index) {
                cluster.apply(prepared);
            }
        }
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(clusters)
            .into_iter()
            .partition(|cluster| stays(cluster.name()));
        *clusters = stay;
        for cluster in &go {
            cluster.begin_stop(process.drain_timeout / 2);
        }
        // What can never work of a cluster that came later must not end those that work.
        clusters.extend(
            self.come
                .into_iter()
                .map(|cluster| cluster.start(environment, None)),
        );
        let report = Report {
            outcome: Outcome::Done(self.changes),
        };
        (report, go)
    }
}

/// What whoever asks is told when the file, a name or a cluster takes too long.
pub(crate) const TOO_SLOW: &str =
    "it took more than a minute to read the file and to make ready what it needs";
/// What whoever asks in that moment is told.
pub(crate) const STOPPING: &str = "the proxy is stopping";
