//! The words that labels are made of. They are ours: nothing that a peer sent ever becomes one.

/// Why a connection was turned away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `listen.max_connections` are open.
    Limit,
    /// No broker could be connected to.
    Upstream,
    /// The TLS greeting led to nothing.
    Tls,
    /// The header of the PROXY protocol is missing, or cannot be read.
    ProxyProtocol,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Refusal::Limit => "limit",
            Refusal::Upstream => "upstream",
            Refusal::Tls => "tls",
            Refusal::ProxyProtocol => "proxy_protocol",
        }
    }
}

/// To whom a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// A client.
    Client,
    /// A broker.
    Broker,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Broker => "broker",
        }
    }
}

/// What came of reading certificates again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// New ones are used.
    Done,
    /// The files cannot be used; the former ones are.
    Failed,
}

impl Reload {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reload::Done => "done",
            Reload::Failed => "failed",
        }
    }
}

/// Why a batch that should have been captured was not. Each leaves a hole that the log has to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The buffer's disk budget is used up.
    Full,
    /// The buffer cannot be written.
    Broken,
    /// The disk was too slow for `hold_max_ms`.
    Slow,
    /// The request came before authentication had succeeded.
    Unauthenticated,
    /// The buffer lost what it had taken, in a disk failure.
    Lost,
    /// The batch exceeds what the buffer's format can hold.
    TooLarge,
}

impl Missed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Missed::Full => "buffer_full",
            Missed::Broken => "buffer_broken",
            Missed::Slow => "buffer_slow",
            Missed::Unauthenticated => "unauthenticated",
            Missed::Lost => "buffer_lost",
            Missed::TooLarge => "too_large",
        }
    }
}

/// Why a batch is rightly not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// The topic is excluded by configuration.
    Excluded,
    /// Message format 0 or 1; brokers refuse or convert it.
    OldFormat,
    /// No batch that a broker would accept.
    Malformed,
    /// A later entry of the same request names the same partition.
    Superseded,
}

impl Skipped {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Skipped::Excluded => "excluded",
            Skipped::OldFormat => "old_format",
            Skipped::Malformed => "malformed",
            Skipped::Superseded => "superseded",
        }
    }
}

/// Why a connection was closed by the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The client sent what is no Kafka request.
    ClientMalformed,
    /// A frame was larger than allowed.
    TooLarge,
    /// A version of an API that must be understood and is not.
    NotUnderstood,
    /// The broker sent what cannot be passed on.
    UpstreamMalformed,
    /// A response names a broker that the proxy cannot present.
    Unmappable,
    /// Nothing moved for `listen.idle_timeout`.
    Idle,
    /// A frame did not become complete in time.
    Stuck,
    /// The broker's connection ended.
    UpstreamLost,
    /// A request without acknowledgement could not be captured, and `on_failure` is `closed`.
    NotCaptured,
}

impl Closed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Closed::ClientMalformed => "client_malformed",
            Closed::TooLarge => "too_large",
            Closed::NotUnderstood => "not_understood",
            Closed::UpstreamMalformed => "upstream_malformed",
            Closed::Unmappable => "unmappable_broker",
            Closed::Idle => "idle",
            Closed::Stuck => "stuck",
            Closed::UpstreamLost => "upstream_lost",
            Closed::NotCaptured => "not_captured",
        }
    }
}
