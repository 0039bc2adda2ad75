//! Tests of the store: a filesystem, memory, a server that misbehaves on demand, and a real S3 server if there is one.
#![allow(clippy::unwrap_used)]

mod fake_s3;
mod real_s3;

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use proptest::prelude::*;
use teeline_config::{Backend, Secret, Storage};

use super::*;
use fake_s3::{Behaviour, FakeS3};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn directory() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage {
        prefix: "some/prefix".to_owned(),
        ..Storage::filesystem(dir.path().join("new/archive"))
    };
    let store = Store::open(&storage).unwrap();
    (dir, store)
}

fn s3(endpoint: &str, access_key: &str, secret_key: &str, bucket: &str, prefix: &str) -> Storage {
    Storage {
        bucket: Some(bucket.to_owned()),
        prefix: prefix.to_owned(),
        endpoint: Some(endpoint.to_owned()),
        access_key: Some(Secret::new(access_key)),
        secret_key: Some(Secret::new(secret_key)),
        retry: Retry {
            max_retries: 4,
            backoff_initial: Duration::from_millis(1),
            backoff_max: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
        },
        ..Storage::new(Backend::Ceph)
    }
}

async fn fake(behaviour: Behaviour) -> (FakeS3, Store) {
    let server = FakeS3::start(behaviour).await;
    let store = Store::open(&s3(
        &server.endpoint(),
        "key-id-hidden",
        "secret-hidden",
        "bucket",
        "p",
    ))
    .unwrap();
    (server, store)
}

/// What every store must do, whatever it is.
async fn behaves(store: &Store) {
    assert_eq!(
        store.put_if_absent("a/commit", bytes("mine")).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(
        store.put_if_absent("a/commit", bytes("theirs")).await.unwrap(),
        PutOutcome::Exists
    );
    assert_eq!(
        store.put_if_absent("a/commit", bytes("them")).await.unwrap(),
        PutOutcome::Exists
    );
    // As after a lost answer: what is there are our own bytes.
    assert_eq!(
        store.put_if_absent("a/commit", bytes("mine")).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(store.get("a/commit").await.unwrap(), "mine");
    store.put("a/view", bytes("one")).await.unwrap();
    store.put("a/view", bytes("0123456789")).await.unwrap();
    assert_eq!(store.get_range("a/view", 2..5).await.unwrap(), "234");
    assert_eq!(store.get_range("a/view", 3..3).await.unwrap(), "");
    for beyond in [5..11, 20..22] {
        let error = store.get_range("a/view", beyond).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("shorter than it should be"), "{error}");
    }
    assert_eq!(store.get_tail("a/view", 4).await.unwrap(), (bytes("6789"), 10));
    assert_eq!(
        store.get_tail("a/view", 400).await.unwrap(),
        (bytes("0123456789"), 10)
    );
    assert_eq!(store.get_tail("a/view", 0).await.unwrap(), (Bytes::new(), 10));
    store.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get_tail("a/empty", 4).await.unwrap(), (Bytes::new(), 0));
    store.put("b/c/view", bytes("x")).await.unwrap();
    let list = |prefix: &str| {
        let listing = store.list(prefix);
        async move {
            let mut found: Vec<ObjectInfo> = listing.try_collect().await.unwrap();
            found.sort_by(|a, b| a.key.cmp(&b.key));
            found
                .into_iter()
                .map(|info| (info.key, info.size))
                .collect::<Vec<_>>()
        }
    };
    let in_a = [("a/commit", 4), ("a/empty", 0), ("a/view", 10)].map(|(key, size)| (key.to_owned(), size));
    assert_eq!(list("a").await, in_a);
    assert_eq!(list("").await.len(), 4);
    assert_eq!(list("nothing/here").await, Vec::new());
    assert_eq!(store.children("").await.unwrap(), ["a", "b"]);
    assert_eq!(store.children("b").await.unwrap(), ["c"]);
    assert!(store.head("a/view").await.unwrap().last_modified_ms > 1_600_000_000_000);
    store.delete("a/view").await.unwrap();
    store.delete("a/view").await.unwrap();
    for error in [
        store.get("a/view").await.unwrap_err(),
        store.head("a/view").await.unwrap_err(),
        store.get_range("a/view", 0..1).await.unwrap_err(),
        store.get_tail("a/view", 1).await.unwrap_err(),
    ] {
        assert!(
            error.is_not_found() && error.location() == format!("{}/a/view", store.address()),
            "{error}"
        );
    }
    let key = format!("probe-{}", uuid::Uuid::new_v4());
    assert_eq!(store.probe_conditional_put(&key).await.unwrap(), Probe::Honoured);
    assert!(store.head(&key).await.unwrap_err().is_not_found());
    uploads(store).await;
}

async fn uploads(store: &Store) {
    let piece: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes().iter().fold(0, |a, b| a ^ b))
        .collect();
    let piece = Bytes::from(piece);
    for pieces in [0_usize, 1, 7] {
        let mut upload = store.upload("up/object");
        for _ in 0..pieces {
            upload.write(piece.clone()).await.unwrap();
        }
        assert_eq!(upload.len(), 3_000_000 * u64::try_from(pieces).unwrap());
        let size = upload.finish().await.unwrap();
        let stored = store.get("up/object").await.unwrap();
        assert_eq!(u64::try_from(stored.len()).unwrap(), size);
        assert!(
            stored.chunks(piece.len()).all(|chunk| chunk == piece) && stored.len() == pieces * piece.len()
        );
    }
    let mut upload = store.upload("up/abandoned");
    for _ in 0..7 {
        upload.write(piece.clone()).await.unwrap();
    }
    assert!(store.head("up/abandoned").await.unwrap_err().is_not_found());
    upload.abort().await;
    assert!(store.head("up/abandoned").await.unwrap_err().is_not_found());
    store.delete("up/object").await.unwrap();
}

#[tokio::test]
async fn a_filesystem_is_a_store() {
    let (dir, store) = directory();
    behaves(&store).await;
    let staged = walk(dir.path())
        .into_iter()
        .filter(|path| path.contains('#'))
        .collect::<Vec<_>>();
    assert_eq!(staged, Vec::<String>::new());
    assert!(dir.path().join("new/archive/some/prefix/a/commit").is_file());
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn memory_is_a_store() {
    behaves(&Store::in_memory()).await;
}

#[tokio::test]
async fn a_missing_directory_is_no_empty_archive_to_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::filesystem(dir.path().join("typo"));
    let error = Store::open_existing(&storage).unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("typo: there is no such directory"),
        "{error}"
    );
    assert!(!dir.path().join("typo").exists());
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let error = Store::open(&Storage::filesystem(dir.path().join("file"))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
}

#[tokio::test]
async fn keys_that_would_have_to_be_escaped_are_refused() {
    let store = Store::in_memory();
    for key in ["a//b", "../a", "a/./b"] {
        let error = store.put(key, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{key}");
    }
}

#[tokio::test]
async fn a_fake_server_that_behaves_is_a_store_for_conditional_puts() {
    let (_server, store) = fake(Behaviour::Right).await;
    assert_eq!(
        store.probe_conditional_put("probe").await.unwrap(),
        Probe::Honoured
    );
}

#[tokio::test]
async fn a_store_that_ignores_the_condition_is_refused_with_a_way_out() {
    let (_server, store) = fake(Behaviour::IgnoresConditions).await;
    let error = store.probe_conditional_put("probe").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported);
    let message = error.to_string();
    assert!(
        message.starts_with("probe conditional put of s3://bucket/p/probe: the store overwrote"),
        "{message}"
    );
    assert!(message.contains("storage.single_writer: true"), "{message}");
}

#[tokio::test]
async fn a_store_that_checks_first_and_writes_later_is_refused() {
    let (_server, store) = fake(Behaviour::NotAtomic).await;
    let message = store
        .probe_conditional_put("probe")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("of 8 racing writers were told that they created one object"),
        "{message}"
    );
}

#[tokio::test]
async fn a_store_that_knows_no_conditions_is_refused_or_used_without_them_when_declared() {
    let (server, store) = fake(Behaviour::RefusesConditions).await;
    let error = store.probe_conditional_put("probe").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("storage.single_writer: true"),
        "{error}"
    );
    let declared = Storage {
        single_writer: true,
        ..s3(&server.endpoint(), "k", "s", "bucket", "p")
    };
    let store = Store::open(&declared).unwrap();
    assert_eq!(
        store.probe_conditional_put("probe").await.unwrap(),
        Probe::SingleWriterDeclared
    );
    assert_eq!(
        store.put_if_absent("commit", bytes("one")).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(
        store.put_if_absent("commit", bytes("two")).await.unwrap(),
        PutOutcome::Exists
    );
    assert_eq!(
        store.put_if_absent("commit", bytes("one")).await.unwrap(),
        PutOutcome::Created
    );
}

#[tokio::test]
async fn an_object_created_by_an_attempt_whose_answer_was_lost_is_ours() {
    for behaviour in [Behaviour::WritesThenFails, Behaviour::WritesThenHangsUp] {
        let (server, store) = fake(behaviour).await;
        assert_eq!(
            store.put_if_absent("commit", bytes("mine")).await.unwrap(),
            PutOutcome::Created
        );
        assert!(server.puts() >= 2, "{behaviour:?}: it was not tried again");
        assert_eq!(
            store.put_if_absent("commit", bytes("other")).await.unwrap(),
            PutOutcome::Exists
        );
    }
}

#[tokio::test]
async fn a_conflict_that_nobody_won_is_tried_again() {
    let (server, store) = fake(Behaviour::ConflictOnce).await;
    assert_eq!(
        store.put_if_absent("commit", bytes("mine")).await.unwrap(),
        PutOutcome::Created
    );
    assert_eq!(server.puts(), 2);
}

#[tokio::test]
async fn kinds_of_errors_say_what_the_caller_should_do() {
    for (status, kind) in [
        (400, StoreErrorKind::Invalid),
        (401, StoreErrorKind::Refused),
        (403, StoreErrorKind::Refused),
        (404, StoreErrorKind::NotFound),
        (501, StoreErrorKind::Unsupported),
        (503, StoreErrorKind::Unavailable),
        (429, StoreErrorKind::Unavailable),
    ] {
        let (_server, store) = fake(Behaviour::Answers(status)).await;
        for error in [
            store.get("k").await.unwrap_err(),
            store.put("k", bytes("x")).await.unwrap_err(),
            store.put_if_absent("k", bytes("x")).await.unwrap_err(),
            store.children("").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), kind, "{status}: {error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_the_message_says_what_was_tried() {
    let (server, store) = fake(Behaviour::Right).await;
    drop(server);
    let error = store
        .put_if_absent("ledger/commit", bytes("x"))
        .await
        .unwrap_err();
    assert!(error.is_retriable());
    assert!(
        error
            .to_string()
            .starts_with("create object s3://bucket/p/ledger/commit: "),
        "{error}"
    );
    assert!(
        error.to_string().contains("check that the store is up"),
        "{error}"
    );
}

#[tokio::test]
async fn credentials_that_a_server_sends_back_do_not_show() {
    let (_server, store) = fake(Behaviour::EchoesCredentials).await;
    let error = store.get("k").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    assert!(
        error.to_string().contains("AWSAccessKeyId>***<") && !error.to_string().contains("hidden"),
        "{error}"
    );
}

#[tokio::test]
async fn an_upload_that_fails_leaves_no_object() {
    let (server, store) = fake(Behaviour::FailsParts).await;
    let mut upload = store.upload("segment");
    let piece = Bytes::from(vec![7; PART_BYTES]);
    let mut failed = false;
    for _ in 0..3 {
        failed = failed || upload.write(piece.clone()).await.is_err();
    }
    assert!(failed || upload.finish().await.is_err());
    assert_eq!(server.objects(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn pieces_of_any_size_arrive_in_order(sizes in prop::collection::vec(0_usize..6_000_000, 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::in_memory();
            let mut upload = store.upload("object");
            let mut expected = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let piece = vec![u8::try_from(index).unwrap(); *size];
                expected.extend_from_slice(&piece);
                upload.write(Bytes::from(piece)).await.unwrap();
            }
            upload.finish().await.unwrap();
            prop_assert!(store.get("object").await.unwrap() == expected);
            Ok(())
        })?;
    }
}
