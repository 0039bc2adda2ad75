//! The dependency arrows between the crates, as DESIGN and the style rules fix them.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Who may use whom. Whoever adds an arrow adds a record to docs/adr.
const ARROWS: [(&str, &[&str]); 7] = [
    ("teeline-archive", &[]),
    ("teeline-config", &[]),
    ("teeline-wire", &["teeline-config"]),
    ("teeline-runtime", &["teeline-config"]),
    (
        "teeline-segmenter",
        &[
            "teeline-archive",
            "teeline-config",
            "teeline-wire",
            "teeline-runtime",
        ],
    ),
    (
        "teeline-restorer",
        &[
            "teeline-archive",
            "teeline-config",
            "teeline-wire",
            "teeline-runtime",
        ],
    ),
    (
        "teeline-proxy",
        &[
            "teeline-archive",
            "teeline-config",
            "teeline-wire",
            "teeline-runtime",
            "teeline-segmenter",
        ],
    ),
];
/// May use everything; nobody uses them.
const OUTSIDE: [&str; 3] = ["teeline-tests", "teeline-benches", "xtask"];

#[test]
fn dependencies_point_only_where_the_design_lets_them() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let packages = metadata["packages"].as_array().unwrap();
    let members: Vec<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if OUTSIDE.contains(&name) {
            continue;
        }
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is new: give it its arrows here and in docs/adr"));
        let used = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|each| each["name"].as_str().unwrap());
        for used in used.filter(|used| members.contains(used)) {
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

/// What `cargo tree` prints of packages and their features.
fn features(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command
        .args(["tree", "--prefix", "none", "--format", "{p} {f}"])
        .args(arguments);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

#[test]
fn demo_programs_and_tests_share_one_build_of_everything_beneath() {
    let with_tests = features(&["--workspace"]);
    let demo = [
        "-p",
        "teeline-proxy",
        "-p",
        "teeline-segmenter",
        "-p",
        "teeline-restorer",
        "-p",
        "teeline-tests",
    ];
    for (what, build) in [
        ("programs", features(&["--workspace", "-e", "no-dev"])),
        ("demo", features(&[&demo[..], &["-e", "no-dev"]].concat())),
    ] {
        let twice: Vec<&String> = build.difference(&with_tests).collect();
        assert!(
            twice.is_empty(),
            "{what}: built with other features than for the tests, so twice: {twice:?}; see tests/Cargo.toml"
        );
    }
}
