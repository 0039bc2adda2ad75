//! Logs: text or JSON lines on standard error. Standard output belongs to data.

use std::io::IsTerminal;
use std::sync::OnceLock;

use teeline_config::{Log, LogFormat};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// The environment variable whose directives win over the configuration: `TEELINE_LOG=debug`,
/// `TEELINE_LOG=info,teeline_wire=trace`.
pub const FILTER_VARIABLE: &str = "TEELINE_LOG";

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The directives cannot be read; the origin is the variable or the configuration key.
    #[error(
        "{origin} = {directives:?} is not a list of log directives; write a level or target=level, separated by commas"
    )]
    Directives {
        /// Which setting it is.
        origin: &'static str,
        /// What stands there.
        directives: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else installed a logger before. A bug in the program.
    #[error("a logger is installed already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// What is logged, so that it can be changed.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log. Once per process, before anything is announced.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let (filter, handle) = Layer::new(filter(log, std::env::var(FILTER_VARIABLE).ok())?);
    let registry = tracing_subscriber::registry().with(filter);
    let result = match log.format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    result.map_err(LoggingError::Twice)?;
    // Only the first one gets here.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Whether [`change`] would take it.
pub fn check(log: &Log) -> Result<(), LoggingError> {
    filter(log, std::env::var(FILTER_VARIABLE).ok()).map(drop)
}

/// Changes what is logged from here on; the form of the lines stays. The variable wins over the configuration as ever.
pub fn change(log: &Log) -> Result<(), LoggingError> {
    let filter = filter(log, std::env::var(FILTER_VARIABLE).ok())?;
    if let Some(handle) = FILTER.get() {
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = handle.reload(filter);
    }
    Ok(())
}

fn filter(log: &Log, variable: Option<String>) -> Result<EnvFilter, LoggingError> {
    let (origin, directives) = match (variable.filter(|text| !text.trim().is_empty()), &log.filter) {
        (Some(text), _) => (FILTER_VARIABLE, text),
        (None, Some(text)) => ("log.filter", text.clone()),
        (None, None) => ("log.level", default_directives(log)),
    };
    EnvFilter::try_new(&directives).map_err(|source| LoggingError::Directives {
        origin,
        directives,
        source,
    })
}

/// The level concerns our own crates; libraries only speak when something is wrong, unless asked.
fn default_directives(log: &Log) -> String {
    let level = log.level.as_str();
    let own = [
        "archive",
        "config",
        "wire",
        "runtime",
        "proxy",
        "segmenter",
        "restorer",
    ];
    // What was asked for by name is written at any level.
    let mut directives = String::from("warn,teeline_proxy::access=info,teeline_proxy::trace=info");
    for name in own {
        directives.push_str(&format!(",teeline_{name}={level}"));
    }
    directives
}

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_config::LogLevel;

    #[test]
    fn the_variable_wins_over_the_filter_and_the_filter_over_the_level() {
        let log = Log {
            level: LogLevel::Error,
            format: LogFormat::Text,
            filter: Some("trace".to_owned()),
            ..Log::default()
        };
        let shown = |variable: Option<&str>, log: &Log| {
            filter(log, variable.map(str::to_owned)).map(|f| f.to_string())
        };
        assert!(shown(Some("debug"), &log).is_ok_and(|text| text == "debug"));
        assert!(shown(Some(" "), &log).is_ok_and(|text| text == "trace"));
        let log = Log { filter: None, ..log };
        assert!(
            shown(None, &log).is_ok_and(|text| text.contains("teeline_wire=error") && text.contains("warn"))
        );
    }

    #[test]
    fn wrong_directives_name_the_setting() {
        let message = match filter(&Log::default(), Some("teeline_wire=loud".to_owned())) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(
            message.starts_with("TEELINE_LOG = \"teeline_wire=loud\""),
            "{message}"
        );
    }
}
