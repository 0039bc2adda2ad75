//! A program's admin port: health and metrics, over the plainest HTTP.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::wait::seconds;

/// A status and a body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// GET of a path.
pub fn get(address: &str, path: &str) -> io::Result<Answer> {
    ask("GET", address, path)
}

/// POST to a path, of nothing.
pub fn post(address: &str, path: &str) -> io::Result<Answer> {
    ask("POST", address, path)
}

/// Any method.
pub fn ask(method: &str, address: &str, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(seconds(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| invalid(&text))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(head))?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

/// The sum of a metric over all its labels; zero when it was never touched.
pub fn metric(address: &str, name: &str) -> io::Result<f64> {
    metric_with(address, name, "")
}

/// The same over those labels only that contain a text, as `reason="timeout"`.
pub fn metric_with(address: &str, name: &str, label: &str) -> io::Result<f64> {
    let answer = get(address, "/metrics")?;
    let samples = answer.body.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '))?
    });
    Ok(samples
        .filter(|(labels, _)| labels.contains(label))
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an HTTP answer: {text:?}"),
    )
}
