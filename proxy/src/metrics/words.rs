//! The words that labels are made of. They are ours: nothing that a peer sent ever becomes one.

/// Why a connection was turned away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `listen.max_connections` are open.
    Limit,
    /// `listen.max_connections_per_address` of this client are open.
    AddressLimit,
    /// As many are open in the whole process as its limit of open files allows.
    ProcessLimit,
    /// No broker could be connected to.
    Upstream,
    /// The TLS greeting led to nothing.
    Tls,
    /// The header of the PROXY protocol is missing, or cannot be read.
    ProxyProtocol,
    /// It was going to what is no broker, or was not redirected.
    Destination,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Refusal::Limit => "limit",
            Refusal::AddressLimit => "address_limit",
            Refusal::ProcessLimit => "process_limit",
            Refusal::Upstream => "upstream",
            Refusal::Tls => "tls",
            Refusal::ProxyProtocol => "proxy_protocol",
            Refusal::Destination => "destination",
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
    /// In the order of their declaration.
    pub(crate) const ALL: [Missed; 6] = [
        Missed::Full,
        Missed::Broken,
        Missed::Slow,
        Missed::Unauthenticated,
        Missed::Lost,
        Missed::TooLarge,
    ];

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
    /// In the order of their declaration.
    pub(crate) const ALL: [Skipped; 4] = [
        Skipped::Excluded,
        Skipped::OldFormat,
        Skipped::Malformed,
        Skipped::Superseded,
    ];

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
    /// The client speaks another protocol: HTTP, TLS, SSH.
    NotKafka,
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
    /// The client ended it.
    Client,
    /// The client's connection failed.
    ClientLost,
    /// No more requests were taken: the proxy stops, the listener goes, or the connection is too old.
    Drained,
    /// The same, and its time was up.
    Cut,
}

impl Closed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Closed::ClientMalformed => "client_malformed",
            Closed::NotKafka => "not_kafka",
            Closed::TooLarge => "too_large",
            Closed::NotUnderstood => "not_understood",
            Closed::UpstreamMalformed => "upstream_malformed",
            Closed::Unmappable => "unmappable_broker",
            Closed::Idle => "idle",
            Closed::Stuck => "stuck",
            Closed::UpstreamLost => "upstream_lost",
            Closed::NotCaptured => "not_captured",
            Closed::Client => "client",
            Closed::ClientLost => "client_lost",
            Closed::Drained => "drained",
            Closed::Cut => "cut",
        }
    }
}

/// Why somebody is not read from for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backpressure {
    /// There is no room in memory for what the client sends.
    Memory,
    /// The write-ahead buffer takes no more for the moment.
    Buffer,
    /// The broker has to answer some of very many requests first.
    Unanswered,
    /// The client does not take its answers as fast as they come.
    Client,
    /// The broker does not take requests as fast as they come.
    Broker,
}

impl Backpressure {
    pub(crate) const ALL: [Backpressure; 5] = [
        Backpressure::Memory,
        Backpressure::Buffer,
        Backpressure::Unanswered,
        Backpressure::Client,
        Backpressure::Broker,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Backpressure::Memory => "memory",
            Backpressure::Buffer => "buffer",
            Backpressure::Unanswered => "unanswered",
            Backpressure::Client => "client",
            Backpressure::Broker => "broker",
        }
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the broker.
    Request,
    /// From the broker to the client.
    Response,
}

impl Direction {
    pub(crate) const ALL: [Direction; 2] = [Direction::Request, Direction::Response];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Request => "request",
            Direction::Response => "response",
        }
    }
}
