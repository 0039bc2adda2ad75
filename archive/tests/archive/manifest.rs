use crate::samples::{CLUSTER, EPOCH_MS, sample_commit};
use teeline_archive::ledger::LedgerState;
use teeline_archive::manifest::Manifest;

fn state() -> LedgerState {
    let mut state = LedgerState::new();
    state.apply(&sample_commit()).unwrap();
    state
}

#[test]
fn the_manifest_has_the_promised_fields() {
    let manifest = Manifest::from_ledger(&state(), EPOCH_MS + 90_000);
    let json: serde_json::Value = serde_json::from_str(&manifest.to_json().unwrap()).unwrap();
    assert_eq!(json["backup_id"], "daily");
    assert_eq!(json["created_at"], EPOCH_MS + 60_000);
    assert_eq!(json["source_cluster_id"], CLUSTER);
    assert_eq!(json["source_brokers"][1], "broker-2:9092");
    assert!(json.as_object().unwrap().contains_key("retention_policy"));
    let topic = &json["topics"][0];
    assert_eq!(topic["name"], "orders");
    let partition = &topic["partitions"][0];
    assert_eq!(partition["partition_id"], 2);
    let segment = &partition["segments"][0];
    for field in ["key", "codec", "footer_crc32c"] {
        assert!(segment[field].is_string(), "{field}");
    }
    for field in [
        "start_offset",
        "end_offset",
        "start_timestamp",
        "end_timestamp",
        "record_count",
        "object_bytes",
    ] {
        assert!(segment[field].is_i64(), "{field}");
    }
    assert_eq!(partition["holes"][0]["start_offset"], 108);
}

#[test]
fn the_manifest_is_read_back_and_unknown_fields_are_ignored() {
    let manifest = Manifest::from_ledger(&state(), EPOCH_MS);
    let text = manifest.to_json().unwrap();
    assert_eq!(Manifest::from_json(&text).unwrap(), manifest);
    let newer = text.replacen('{', "{\"added_later\": [1],", 1);
    assert_eq!(Manifest::from_json(&newer).unwrap(), manifest);
}

#[test]
fn an_empty_ledger_has_a_manifest_too() {
    let manifest = Manifest::from_ledger(&LedgerState::new(), 5);
    assert_eq!((manifest.created_at, manifest.topics.len()), (5, 0));
    assert!(Manifest::from_json(&manifest.to_json().unwrap()).is_ok());
}
