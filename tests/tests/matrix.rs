//! A sample of the client matrix: one feature or more of clients that are quickly fetched, directly and through the
//! proxy. All of it is `cargo xtask matrix`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use teeline_tests::matrix::client;
use teeline_tests::matrix::feature::by_id;
use teeline_tests::matrix::page;
use teeline_tests::matrix::round::{self, Plan, Verdict};
use teeline_tests::notes::note;

const SAMPLE: [&str; 6] = [
    "acks-0",
    "zstd",
    "transactions",
    "consume",
    "group-next-gen",
    "topics",
];

#[test]
fn clients_of_four_families_see_the_same_through_the_proxy() {
    let (clients, lacking) = client::sample();
    for client in lacking {
        note(&format!(
            "{} was not tried: this machine lacks its language",
            client.title
        ));
    }
    let plan = Plan {
        kafka: "4.3.1".to_owned(),
        clients,
        features: SAMPLE.map(|id| by_id(id).unwrap()).to_vec(),
        nodes: 1,
        secured: false,
    };
    let round = round::run(&plan, |_| ());
    assert!(round.wrong().is_empty(), "{}", round.wrong().join("\n"));
    assert!(*round.captured.as_ref().unwrap() > 0, "nothing was captured");
    for column in &round.columns {
        // What a client cannot do directly proves nothing.
        for (feature, verdict) in &column.cells {
            let known_lack = column.client.id == "kafkajs" && feature.id == "group-next-gen";
            assert!(
                *verdict == Verdict::Same || known_lack,
                "{}, {}: {verdict:?}",
                column.client.id,
                feature.id
            );
        }
    }
}

#[test]
fn the_page_of_compatibility_is_what_the_results_say() {
    let page = std::fs::read_to_string(page::page_path()).unwrap();
    assert!(
        page == page::render(&page::kept()),
        "docs/COMPATIBILITY.md is not made from the results: run `cargo xtask matrix`"
    );
}
