//! The same against a real S3 server, when the environment names one:
//! `TEELINE_TEST_S3_ENDPOINT`, `…_ACCESS_KEY`, `…_SECRET_KEY` and `…_BUCKET` (which must exist).

use super::*;

/// `None`, and a line that says so, when there is no server.
fn real(prefix: &str) -> Option<Storage> {
    let Ok(endpoint) = std::env::var("TEELINE_TEST_S3_ENDPOINT") else {
        eprintln!("skipped: set TEELINE_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _BUCKET to run it");
        return None;
    };
    let get = |name: &str| std::env::var(format!("TEELINE_TEST_S3_{name}")).unwrap();
    let prefix = format!("{prefix}-{}", uuid::Uuid::new_v4());
    Some(s3(
        &endpoint,
        &get("ACCESS_KEY"),
        &get("SECRET_KEY"),
        &get("BUCKET"),
        &prefix,
    ))
}

#[tokio::test]
async fn a_real_s3_server_is_a_store() {
    let Some(storage) = real("behaves") else { return };
    behaves(&Store::open(&storage).unwrap()).await;
}

#[tokio::test]
async fn wrong_credentials_and_missing_buckets_are_told_apart() {
    let Some(storage) = real("wrong") else { return };
    let wrong_secret = Storage {
        secret_key: Some(Secret::new("wrong-and-hidden")),
        ..storage.clone()
    };
    let error = Store::open(&wrong_secret)
        .unwrap()
        .put("k", bytes("x"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error}");
    assert!(!error.to_string().contains("hidden"), "{error}");
    let no_bucket = Storage {
        bucket: Some("no-such-bucket".to_owned()),
        ..storage
    };
    let store = Store::open(&no_bucket).unwrap();
    let listed = store.list("").try_collect::<Vec<_>>().await.unwrap_err();
    for error in [listed, store.probe_conditional_put("probe").await.unwrap_err()] {
        assert!(error.is_not_found(), "{error}");
        assert!(
            error.to_string().contains("check bucket, prefix and backup id"),
            "{error}"
        );
    }
}
