//! Reads what concerns the process as a whole.

use crate::process::{AccessLog, Admin, Log, LogFormat, LogLevel, Process};
use crate::section::Section;

use super::endpoint::{HOUR_MS, listen_address};

pub(super) fn admin(section: Option<Section<'_>>) -> Admin {
    let default = Admin::default();
    let Some(mut section) = section else {
        return default;
    };
    let enabled = section.boolean("enabled").unwrap_or(default.enabled);
    let listen = listen_address(&mut section, "listen").unwrap_or(default.listen);
    section.not_yet(&["tls", "username", "password", "password_file"]);
    section.finish();
    Admin { enabled, listen }
}

pub(super) fn log(section: Option<Section<'_>>) -> Log {
    let Some(mut section) = section else {
        return Log::default();
    };
    let level = section.choice(
        "level",
        &[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ],
        &[],
    );
    let format = section.choice(
        "format",
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        &[],
    );
    let filter = section.text("filter");
    let access = section.choice(
        "access",
        &[
            ("off", AccessLog::Off),
            ("connections", AccessLog::Connections),
            ("requests", AccessLog::Requests),
        ],
        &[],
    );
    section.finish();
    Log {
        level: level.unwrap_or_default(),
        format: format.unwrap_or_default(),
        filter,
        access: access.unwrap_or_default(),
    }
}

pub(super) fn process(section: Option<Section<'_>>) -> Process {
    let default = Process::default();
    let Some(mut section) = section else {
        return default;
    };
    let in_flight = section.size("in_flight", "in_flight_bytes", 1 << 20, 1 << 40);
    let drain_timeout = section.duration("drain_timeout", "drain_timeout_ms", 0, HOUR_MS);
    let drain_timeout = drain_timeout.unwrap_or(default.drain_timeout);
    let drain_delay = section.duration("drain_delay", "drain_delay_ms", 0, HOUR_MS);
    let drain_delay = drain_delay.unwrap_or(default.drain_delay);
    if !drain_delay.is_zero() && drain_delay >= drain_timeout {
        let hint = "it is part of process.drain_timeout, and what is in flight needs the rest";
        section.problem("drain_delay", "is not shorter than drain_timeout", hint);
    }
    let worker_threads = section.number("worker_threads", 1, 1024);
    section.finish();
    Process {
        in_flight_bytes: in_flight.unwrap_or(default.in_flight_bytes),
        drain_timeout,
        drain_delay,
        worker_threads,
    }
}
