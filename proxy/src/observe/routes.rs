//! What of it the admin port shows and switches.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};
use teeline_config::AccessLog;
use teeline_runtime::admin::{Answer, Ask, Route, StatusCode};

use super::orders::{REQUESTS_MAX, SECONDS_MAX};
use super::{Filter, Observatory, Order, Visit};

/// The pages, for the admin port.
pub(crate) fn routes(observatory: &Arc<Observatory>) -> Vec<Route> {
    type Page = fn(&Observatory, &Ask) -> Result<Answer, String>;
    let page = |page: Page| {
        let observatory = Arc::clone(observatory);
        move |ask: Ask| {
            let answer = page(&observatory, &ask);
            async move { answer.unwrap_or_else(|text| Answer::refused(format!("{text}\n"))) }
        }
    };
    vec![
        Route::get(
            "/connections",
            "open connections (cluster=, peer=IP[:PORT], client_id=, connection=, limit=100)",
            page(connections),
        ),
        Route::get("/trace", "traces that go on", page(traces)),
        Route::post(
            "/trace",
            "log what becomes of requests (connection=, peer=IP[:PORT], client_id=, cluster=; requests=1000, seconds=60)",
            page(begin_trace),
        ),
        Route::delete("/trace", "end a trace (id=), or all", page(end_trace)),
        Route::get("/access-log", "what the access log tells", page(access)),
        Route::post(
            "/access-log",
            "switch it (level=off|connections|requests)",
            page(set_access),
        ),
    ]
}

fn connections(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(ask, &["cluster", "peer", "client_id", "connection", "limit"])?;
    let filter = filter(ask)?;
    let most = number(ask, "limit", CONNECTIONS_SHOWN)?.min(CONNECTIONS_SHOWN_MAX);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let wanted = |visit: &Visit| filter.concerns(visit) && filter.wants(visit.client_id());
    let (shown, count) = observatory.open(most, wanted);
    if ask.wants_json() {
        let list: Vec<Value> = shown.iter().map(|visit| object(visit)).collect();
        return Ok(Answer::json(
            StatusCode::OK,
            &json!({ "open": count, "connections": list }),
        ));
    }
    let mut text = String::new();
    for visit in &shown {
        line(&mut text, visit);
    }
    if shown.len() < count {
        let _ = writeln!(text, "{} of {count} shown; more with limit=", shown.len());
    }
    Ok(Answer::ok(text))
}

fn line(text: &mut String, visit: &Visit) {
    let visitor = &visit.visitor;
    let node = visitor.node_id.map_or("-".to_owned(), |id| id.to_string());
    let _ = write!(
        text,
        "connection={} cluster={} peer={} node={node} tls={} seconds={} requests={} request_bytes={} response_bytes={} client_id=\"{}\"",
        visit.id,
        visitor.cluster,
        visitor.peer,
        visitor.tls,
        visit.age().as_secs(),
        visit.requests(),
        visit.request_bytes(),
        visit.response_bytes(),
        visit.client_id().unwrap_or_default(),
    );
    match &visitor.subject {
        Some(subject) => {
            let _ = writeln!(text, " subject=\"{subject}\"");
        }
        None => text.push('\n'),
    }
}

fn object(visit: &Visit) -> Value {
    let visitor = &visit.visitor;
    json!({
        "connection": visit.id,
        "cluster": &*visitor.cluster,
        "peer": visitor.peer.to_string(),
        "node": visitor.node_id,
        "tls": visitor.tls,
        "subject": visitor.subject.as_deref(),
        "seconds": visit.age().as_secs(),
        "requests": visit.requests(),
        "request_bytes": visit.request_bytes(),
        "response_bytes": visit.response_bytes(),
        "client_id": visit.client_id(),
    })
}

fn traces(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(ask, &[])?;
    let orders = observatory.standing_orders();
    if ask.wants_json() {
        let list: Vec<Value> = orders
            .iter()
            .map(|order| {
                json!({
                    "id": order.id,
                    "whose": order.filter.text(),
                    "requests_left": order.left(),
                    "seconds_left": order.time_left().as_secs(),
                })
            })
            .collect();
        return Ok(Answer::json(StatusCode::OK, &json!({ "traces": list })));
    }
    let mut text = String::new();
    for order in &orders {
        text.push_str(&told(order));
    }
    if orders.is_empty() {
        text.push_str("no trace goes on\n");
    }
    Ok(Answer::ok(text))
}

fn told(order: &Order) -> String {
    format!(
        "id={} {} requests_left={} seconds_left={}\n",
        order.id,
        order.filter.text(),
        order.left(),
        order.time_left().as_secs()
    )
}

fn begin_trace(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(
        ask,
        &[
            "cluster",
            "peer",
            "client_id",
            "connection",
            "requests",
            "seconds",
        ],
    )?;
    let filter = filter(ask)?;
    if filter == Filter::default() {
        return Err("whose requests? give connection=, peer=, client_id= or cluster=".to_owned());
    }
    let requests = number(ask, "requests", TRACE_REQUESTS)?;
    let seconds = number(ask, "seconds", TRACE_SECONDS)?;
    if requests == 0 || requests > REQUESTS_MAX || seconds == 0 || seconds > SECONDS_MAX {
        return Err(format!(
            "requests is 1 to {REQUESTS_MAX}, seconds 1 to {SECONDS_MAX}"
        ));
    }
    let Some(order) = observatory.order(filter, requests, seconds) else {
        let text = "too many traces go on; end one: DELETE /trace?id=\n".to_owned();
        return Ok(Answer::text(StatusCode::CONFLICT, text));
    };
    tracing::info!(
        trace = order.id,
        whose = order.filter.text(),
        requests,
        seconds,
        "trace begins"
    );
    Ok(Answer::ok(format!(
        "{}the lines are in the log, target teeline_proxy::trace\n",
        told(&order)
    )))
}

fn end_trace(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(ask, &["id"])?;
    let id = match ask.value("id") {
        Some(_) => Some(number(ask, "id", 0)?),
        None => None,
    };
    let ended = observatory.end_orders(|order| id.is_none_or(|id| id == order.id));
    if ended == 0 && id.is_some() {
        return Ok(Answer::text(
            StatusCode::NOT_FOUND,
            "no such trace goes on\n".to_owned(),
        ));
    }
    Ok(Answer::ok(format!("{ended} ended\n")))
}

fn access(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(ask, &[])?;
    Ok(Answer::ok(format!("level={}\n", observatory.access().as_str())))
}

fn set_access(observatory: &Observatory, ask: &Ask) -> Result<Answer, String> {
    known(ask, &["level"])?;
    let level = ask.value("level").unwrap_or_default();
    let Some(level) = AccessLog::named(&level) else {
        return Err("level is off, connections or requests".to_owned());
    };
    observatory.set_access(level);
    Ok(Answer::ok(format!(
        "level={}, until a reload of the configuration or a restart says otherwise\n",
        level.as_str()
    )))
}

/// A name that is not understood would be a filter that does not filter.
fn known(ask: &Ask, names: &[&str]) -> Result<(), String> {
    match ask.pairs().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) if names.is_empty() => Err(format!("{name:?} means nothing here")),
        Some((name, _)) => Err(format!(
            "{name:?} means nothing here; there are {}",
            names.join(", ")
        )),
        None => Ok(()),
    }
}

fn filter(ask: &Ask) -> Result<Filter, String> {
    let (address, port) = match ask.value("peer") {
        Some(text) => peer(&text)?,
        None => (None, None),
    };
    let connection = match ask.value("connection") {
        Some(_) => Some(number(ask, "connection", 0)?),
        None => None,
    };
    Ok(Filter {
        cluster: ask.value("cluster"),
        connection,
        address,
        port,
        client_id: ask.value("client_id"),
    })
}

fn peer(text: &str) -> Result<(Option<IpAddr>, Option<u16>), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Some(address.ip()), Some(address.port())));
    }
    let address = text.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => Ok((Some(address), None)),
        Err(_) => Err(format!("peer={text:?} is no address; IP or IP:PORT")),
    }
}

fn number(ask: &Ask, name: &str, default: u64) -> Result<u64, String> {
    match ask.value(name) {
        Some(text) => text.parse().map_err(|_| format!("{name}={text:?} is no number")),
        None => Ok(default),
    }
}

const CONNECTIONS_SHOWN: u64 = 100;
/// An answer of a few megabytes at most.
const CONNECTIONS_SHOWN_MAX: u64 = 10_000;
const TRACE_REQUESTS: u64 = 1000;
const TRACE_SECONDS: u64 = 60;
