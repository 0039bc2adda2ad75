//! The documents keep up with the code.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where metrics are declared, one place per program.
const DECLARED_IN: [&str; 5] = [
    "../proxy/src/metrics.rs",
    "../proxy/src/metrics/table.rs",
    "../segmenter/src/metrics.rs",
    "../segmenter/src/audit/coverage.rs",
    "../runtime/src/store/mod.rs",
];

#[test]
fn every_metric_stands_in_the_operations_table_and_every_one_there_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let declared: BTreeSet<String> = DECLARED_IN
        .iter()
        .flat_map(|path| metric_names(&fs::read_to_string(root.join(path)).unwrap(), '"'))
        .collect();
    assert!(
        declared.len() > 40,
        "the declarations are not where they were: {declared:?}"
    );
    let page = fs::read_to_string(root.join("../docs/OPERATIONS.md")).unwrap();
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|rest| rest.split('`').next())
        .filter(|name| name.starts_with("teeline_") && !name.starts_with("teeline_process_"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = declared.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&declared).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not documented: {missing:?}; documented and gone: {stale:?}"
    );
}

fn metric_names(text: &str, quote: char) -> Vec<String> {
    text.split(quote)
        .filter(|part| part.starts_with("teeline_"))
        .map(str::to_owned)
        .collect()
}
