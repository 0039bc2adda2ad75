//! Many partitions that get a record now and then do not make thousands of tiny objects a minute, however many writers
//! capture them: requests to the store are bounded by settings, and counted on both sides.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use serde_json::json;
use teeline_tests::admin_port;
use teeline_tests::economy::{Place, Scene, Settings, Spent, Traffic};
use teeline_tests::notes::note;
use teeline_tests::wait::{seconds, wait_for, wait_until};

const WRITERS: usize = 4;
const PARTITIONS: u32 = 400;
/// Small segments a second, after a minute's worth at once.
const PER_SECOND: f64 = 4.0;
const AT_ONCE: f64 = 60.0 * PER_SECOND;
/// A sixth of the age of segments.
const GUST_SECONDS: f64 = 1.0;

#[test]
fn requests_are_bounded_however_many_partitions_trickle_behind_however_many_writers() {
    let mut scene = Scene::set(Settings {
        place: Place::S3,
        writers: WRITERS,
        partitions: PARTITIONS,
        segmenter: json!({"segment_max_interval": "6s", "small_segments_per_minute": AT_ONCE as u32,
            "small_segment_max_interval": "10m", "manifest_interval": "5s"}),
        audit: json!({"interval": "500ms", "grace": "4s", "lease_ttl": "10s", "state": false}),
    });
    scene.await_auditor();
    let auditor = scene.fleet.auditors()[0];
    await_rounds_of_the_auditor(&scene, auditor, 3.0);

    let before = scene.counts();
    await_rounds_of_the_auditor(&scene, auditor, 8.0);
    let idle = scene.counts().since(&before);
    assert_idle_costs_next_to_nothing(&idle);

    let before = scene.counts();
    let rate = f64::from(PARTITIONS) / 2.0;
    scene.start_traffic(Traffic {
        rate,
        value_bytes: 100,
    });
    scene.await_rounds(9, seconds(60));
    let trickle = scene.counts().since(&before);
    assert_trickling_is_bounded(&trickle);
    assert_coverage_is_shown_for_each_partition(&scene);
    let acknowledged = scene.stop_traffic();
    note(&format!(
        "economy: {acknowledged} records in {:.0} s through {WRITERS} writers into {PARTITIONS} partitions cost {:.0} puts \
         ({:.0} segments, {:.0} of the auditor, {:.0} commits)",
        trickle.seconds,
        trickle.requests().puts,
        trickle.sum(|said| said.segments),
        trickle.sum(|said| said.audit_segments),
        trickle.sum(|said| said.commits),
    ));
    // What is open now, some segments of every partition, is no part of the question: the programs end with the scene.
}

fn await_rounds_of_the_auditor(scene: &Scene, auditor: usize, count: f64) {
    let rounds = || scene.fleet.0[auditor].metric("teeline_audit_rounds_total");
    let before = rounds();
    wait_until("the auditor to go round", seconds(60), || {
        rounds() >= before + count
    });
}

/// A lease, and looking whether others committed; and what the start has left to write for people.
fn assert_idle_costs_next_to_nothing(idle: &Spent) {
    let requests = idle.requests();
    let (leases, manifests) = (idle.seconds + 2.0, idle.sum(|said| said.manifests));
    assert!(manifests <= WRITERS as f64 + 1.0, "{idle:?}");
    assert!(requests.puts <= leases + manifests, "{idle:?}");
    assert_eq!(idle.sum(|said| said.segments + said.commits), 0.0, "{idle:?}");
    // Two rounds a second, each with one look at the ledger and the lease; and looks of the writers. Before it writes a
    // manifest, each reads what the others committed when they started.
    let looks = 4.0 * idle.seconds + 2.0 * WRITERS as f64 * (1.0 + manifests);
    assert!(requests.gets + requests.lists <= looks, "{idle:?}");
}

fn assert_trickling_is_bounded(spent: &Spent) {
    let allowed = AT_ONCE + PER_SECOND * (spent.seconds + 1.0);
    let gusts = spent.seconds / GUST_SECONDS + 5.0;
    for said in &spent.said {
        let captured = said.segments - said.audit_segments;
        // The auditor's segments count against the same allowance as those of the writer beside it.
        assert!(
            captured > 0.0 && said.segments > 50.0,
            "nothing was archived: {spent:?}"
        );
        assert!(
            captured <= allowed,
            "more small segments than are allowed: {said:?}"
        );
        // Holes of which there are more than are allowed are what writers hold back.
        assert!(
            said.audit_segments <= allowed,
            "the auditor fetches what writers hold back: {said:?}"
        );
        let audits = if said.audit_segments > 0.0 {
            spent.seconds
        } else {
            2.0
        };
        assert!(
            said.commits <= gusts + audits,
            "a commit for few segments: {said:?}"
        );
        // The auditor beside the writer keeps its own time.
        assert!(said.manifests <= 2.0 * spent.seconds / 5.0 + 3.0, "{said:?}");
        // Each commit of the others is read once, by the writer and by the auditor beside it.
        let commits = spent.sum(|said| said.commits);
        let looks = 4.0 * spent.seconds + 10.0;
        assert!(
            said.requests.gets + said.requests.lists <= 2.0 * commits + looks,
            "{spent:?}"
        );
    }
    let (own, served) = (spent.requests().puts, spent.served.as_ref().unwrap());
    assert!(
        (own - served.requests.puts).abs() <= 20.0 + own / 50.0,
        "the server counts otherwise: {own} puts, {served:?}"
    );
    let named: f64 = ["segments", "commits", "manifest", "lease"]
        .iter()
        .map(|what| served.puts.get(what).unwrap_or(&0.0))
        .sum();
    assert_eq!(named, served.requests.puts, "puts of another kind: {served:?}");
}

/// Whoever audits shows it, and nobody else does.
fn assert_coverage_is_shown_for_each_partition(scene: &Scene) {
    for name in [
        "held_to_offset",
        "high_watermark_offset",
        "lag_offsets",
        "percent",
    ] {
        let name = format!("teeline_coverage_{name}{{cluster=\"main\",topic=\"events\",partition=");
        wait_for("coverage of every partition", seconds(30), || {
            let count: usize = scene
                .fleet
                .0
                .iter()
                .map(|member| lines_of(&member.settings.admin(), &name))
                .sum();
            if count == PARTITIONS as usize {
                Ok(())
            } else {
                Err(format!("{count} lines of {name}"))
            }
        });
    }
}

fn lines_of(admin: &str, name: &str) -> usize {
    let text = admin_port::get(admin, "/metrics").unwrap().body;
    text.lines().filter(|line| line.starts_with(name)).count()
}
