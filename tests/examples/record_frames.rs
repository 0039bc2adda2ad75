//! Records frames of every client family of the matrix: how `wire/testdata/frames` was made.
//!
//! `cargo run -p teeline-tests --example record_frames -- DIRECTORY [CLIENT…]`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::json;
use teeline_tests::capture_frames::{Direction, Frame, Recorder};
use teeline_tests::driver::{Driver, Family};
use teeline_tests::matrix::broker::Broker;
use teeline_tests::matrix::cell::{self, Door};
use teeline_tests::matrix::client::{CLIENTS, Client};
use teeline_tests::matrix::feature::FEATURES;
use teeline_tests::matrix::produced;
use teeline_tests::workdir::WorkDir;
use teeline_wire::apis;

const KAFKA: &str = "4.3.1";
/// A listener of its own, so that the broker's talk to itself stays out.
const PROPERTIES: &str = "\
    listeners=PLAINTEXT://{address 0},CONTROLLER://{address 10},RECORDED://{address 1}\n\
    advertised.listeners=PLAINTEXT://{address 0},RECORDED://{address 5}\n\
    listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,RECORDED:PLAINTEXT\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((directory, names)) = arguments.split_first() else {
        eprintln!("usage: record_frames DIRECTORY [CLIENT…]");
        std::process::exit(2);
    };
    let wanted = |client: &Client| names.is_empty() || names.iter().any(|name| name == client.id);
    let broker = Broker::start(KAFKA, 1, PROPERTIES, &[]);
    let recorder = Recorder::start(&broker.address(5), &broker.address(1));
    let work = WorkDir::create("record-frames");
    let java = Driver::start(Family::Java);
    produced::prepare_common(&java, &broker.bootstrap());
    for client in CLIENTS.into_iter().filter(wanted) {
        let door = Door {
            bootstrap: broker.address(5),
            prefix: client.id.to_owned(),
            security: json!({}),
        };
        produced::prepare(&java, &broker.bootstrap(), &door, &FEATURES);
        recorder.next_client(client.id);
        let outcomes = cell::run(client, KAFKA, &door, &FEATURES, &work.subdirectory(client.id));
        println!(
            "{}: {} features, {} frames",
            client.id,
            outcomes.len(),
            recorder.frames().len()
        );
        // After each: whoever is impatient has what there is.
        keep(Path::new(directory), recorder.frames());
    }
}

/// A file for each API, a line for each frame.
fn keep(directory: &Path, frames: Vec<Frame>) {
    std::fs::create_dir_all(directory).unwrap();
    let mut files: BTreeMap<i16, String> = BTreeMap::new();
    for frame in frames {
        let text = files.entry(frame.api_key).or_default();
        let direction = match frame.direction {
            Direction::Request => "request",
            Direction::Response => "response",
        };
        write!(text, "{direction} {} {} ", frame.api_version, frame.client).unwrap();
        for byte in frame.content {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    for (api_key, text) in files {
        let name = format!("{api_key:02}-{}.txt", apis::name(api_key));
        std::fs::write(directory.join(name), text).unwrap();
    }
}
