//! The client matrix and the public suite, as `cargo xtask matrix` starts them.

use std::{env, fs};

use serde_json::json;
use teeline_tests::matrix::client::{self, CLIENTS, Client};
use teeline_tests::matrix::feature::{self, FEATURES, Feature};
use teeline_tests::matrix::round::{self, Column, Plan, Verdict};
use teeline_tests::matrix::{KAFKA_VERSIONS, page, suite};

const SUITE_RECORDS: u64 = 20_000;

/// What the command line asks for.
#[derive(Default)]
struct Asked {
    kafka: Vec<String>,
    clients: Vec<Client>,
    features: Vec<Feature>,
    suite: Option<String>,
    /// Tests of the suite, and how often: not the whole suite once.
    tests: Option<String>,
    times: u32,
    secured: bool,
    json: bool,
    page: bool,
}

/// Fetches what the sample among the tests needs.
pub(crate) fn fetch_sample() {
    let (clients, _) = client::sample();
    for client in clients {
        // Made only for what it fetches.
        let _ = client.command(&env::temp_dir(), KAFKA_VERSIONS[0]);
    }
}

/// Runs what `arguments` ask for. Whether everything is the same through the proxy.
pub(crate) fn run(arguments: &[&str]) -> Result<bool, String> {
    let asked = parse(arguments)?;
    if asked.page {
        write_page();
        return Ok(true);
    }
    let whole = asked.clients.is_empty() && asked.features.is_empty();
    if let Some(name) = &asked.suite {
        if name != "kgo" {
            return Err(format!("no suite {name}: there is kgo"));
        }
        return Ok(run_suite(&asked));
    }
    let mut same = true;
    let mut results = Vec::new();
    for (kafka, secured) in rounds(&asked) {
        let plan = Plan {
            kafka: kafka.clone(),
            clients: or_all(&asked.clients, &CLIENTS),
            features: or_all(&asked.features, &FEATURES),
            nodes: if secured { 1 } else { 3 },
            secured,
        };
        let suffix = if secured { "-secured" } else { "" };
        eprintln!("\nApache Kafka {kafka}{suffix}");
        let round = round::run(&plan, show);
        for wrong in round.wrong() {
            eprintln!("  WRONG  {wrong}");
        }
        match &round.captured {
            Ok(batches) => eprintln!("  {batches} batches captured, all the same"),
            Err(_) => same = false,
        }
        same &= round.wrong().is_empty();
        let result = round.json();
        // A part of the matrix must not take the place of the whole.
        if whole {
            page::keep(&format!("kafka-{kafka}{suffix}"), result.clone());
        }
        results.push(result);
    }
    finish(&asked, whole, &json!(results));
    Ok(same)
}

/// Every version that was chosen, or all, in plaintext and with TLS and SASL; with `--secured` only these.
fn rounds(asked: &Asked) -> Vec<(String, bool)> {
    let versions = or_all(&asked.kafka, &KAFKA_VERSIONS.map(str::to_owned));
    let doors: &[bool] = if asked.secured { &[true] } else { &[false, true] };
    versions
        .into_iter()
        .flat_map(|kafka| doors.iter().map(move |secured| (kafka.clone(), *secured)))
        .collect()
}

fn run_suite(asked: &Asked) -> bool {
    if let Some(tests) = &asked.tests {
        let kafka = asked.kafka.first().map_or(KAFKA_VERSIONS[0], String::as_str);
        let said = |line: &str| eprintln!("  {line}");
        let [direct, proxied] = suite::repeat(kafka, SUITE_RECORDS, tests, asked.times.max(1), said);
        // Tests that fail directly, too, say nothing about the proxy.
        return proxied.failed == 0 || direct.failed > 0;
    }
    let mut same = true;
    let mut results = Vec::new();
    for kafka in or_all(&asked.kafka, &[KAFKA_VERSIONS[0].to_owned()]) {
        eprintln!("\nfranz-go's own tests on Apache Kafka {kafka}");
        let suite = suite::run(&kafka, SUITE_RECORDS, |way| eprintln!("  {way} ..."));
        for difference in suite.differences() {
            eprintln!("  WRONG  {difference}");
        }
        same &= suite.differences().is_empty();
        let result = suite.json(&kafka);
        eprintln!(
            "  directly {}, through the proxy {}",
            result["direct"], result["proxied"]
        );
        page::keep(&format!("kgo-{kafka}"), result.clone());
        results.push(result);
    }
    finish(asked, true, &json!(results));
    same
}

fn finish(asked: &Asked, keep: bool, results: &serde_json::Value) {
    if keep {
        write_page();
    }
    if asked.json {
        println!("{results:#}");
    }
}

/// From what is kept, this run's results and earlier ones.
fn write_page() {
    fs::write(page::page_path(), page::render(&page::kept())).expect("write the page");
    eprintln!("\ndocs/COMPATIBILITY.md written");
}

fn show(column: &Column) {
    let count = |wanted: fn(&Verdict) -> bool| column.cells.iter().filter(|(_, cell)| wanted(cell)).count();
    eprintln!(
        "  {:<14} {:>2} the same, {} different, {} not the client's, {} not the broker's  ({:.0} s)",
        column.client.id,
        count(|cell| *cell == Verdict::Same),
        count(|cell| matches!(cell, Verdict::Different(..))),
        count(|cell| matches!(cell, Verdict::NotTheClient(_))),
        count(|cell| matches!(cell, Verdict::NotTheBroker(_))),
        column.took.as_secs_f64()
    );
    for (feature, verdict) in &column.once {
        eprintln!("      {} tried twice, at first: {verdict:?}", feature.id);
    }
}

fn parse(arguments: &[&str]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match *flag {
            "--json" => asked.json = true,
            "--secured" => asked.secured = true,
            "--page" => asked.page = true,
            _ => {}
        }
        if matches!(*flag, "--json" | "--secured" | "--page") {
            continue;
        }
        let value = *rest.next().ok_or_else(|| format!("{flag} takes a value"))?;
        match *flag {
            "--kafka" => add_once(&mut asked.kafka, value.to_owned()),
            "--client" => {
                let known = CLIENTS.map(|client| client.id).join(", ");
                let found = client::by_id(value);
                let found = found.ok_or_else(|| format!("no client {value}: there are {known}"))?;
                add_once(&mut asked.clients, found);
            }
            "--feature" => {
                let known = FEATURES.map(|feature| feature.id).join(", ");
                let found = feature::by_id(value);
                let found = found.ok_or_else(|| format!("no feature {value}: there are {known}"))?;
                add_once(&mut asked.features, found);
            }
            "--suite" => asked.suite = Some(value.to_owned()),
            "--test" => asked.tests = Some(value.to_owned()),
            "--times" => asked.times = value.parse().map_err(|_| "--times takes a number")?,
            _ => {
                return Err(format!(
                    "matrix knows --kafka VERSION, --client NAME, --feature NAME, --secured, --suite kgo (with --test NAME and --times N), --json and --page, not {flag}"
                ));
            }
        }
    }
    Ok(asked)
}

/// Two columns of one client would make the same topics.
fn add_once<T: PartialEq>(chosen: &mut Vec<T>, found: T) {
    if !chosen.contains(&found) {
        chosen.push(found);
    }
}

fn or_all<T: Clone>(chosen: &[T], all: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        all.to_vec()
    } else {
        chosen.to_vec()
    }
}
