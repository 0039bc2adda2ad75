//! The Prometheus registry, and what the process itself uses.

use metrics_exporter_prometheus::PrometheusHandle;

/// Renders what was measured.
#[derive(Debug, Clone)]
pub struct MetricsHandle {
    handle: PrometheusHandle,
}

/// Why metrics could not begin.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The registry refused its settings. A bug.
    #[error("build the metrics registry")]
    Build(#[source] metrics_exporter_prometheus::BuildError),
    /// Somebody else installed a recorder before. A bug in the program.
    #[error("another metrics recorder is installed already")]
    Foreign,
}

/// Installs the registry of this process; when it is there already, returns the same.
pub fn install() -> Result<MetricsHandle, MetricsError> {
    Err(MetricsError::Foreign)
}

impl MetricsHandle {
    /// Everything in Prometheus' text format, with fresh figures of the process.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}
