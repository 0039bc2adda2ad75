//! The captured frames of `wire/testdata/frames`: what real clients and brokers sent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

/// A frame without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From a client; otherwise from the broker.
    pub is_request: bool,
    /// The API; a response has that of its request.
    pub api_key: i16,
    /// Its version.
    pub api_version: i16,
    /// Header and body.
    pub content: Vec<u8>,
}

/// Every frame below a directory, in the same order everywhere.
pub fn read(directory: &Path) -> Vec<Frame> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut frames = Vec::new();
    for path in paths {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
        let (api_key, _) = name.split_once('-').unwrap();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            frames.push(parse(api_key.parse().unwrap(), line).unwrap_or_else(|| panic!("{name}: {line}")));
        }
    }
    frames
}

/// `request 9 java-4 0000…`
fn parse(api_key: i16, line: &str) -> Option<Frame> {
    let mut words = line.split(' ');
    let is_request = words.next()? == "request";
    let api_version = words.next()?.parse().ok()?;
    let hex = words.nth(1)?.as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let bytes = hex
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8));
    Some(Frame {
        is_request,
        api_key,
        api_version,
        content: bytes.collect::<Option<_>>()?,
    })
}
