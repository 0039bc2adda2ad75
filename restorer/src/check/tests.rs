//! Every damage is found before anything is produced, and told by name.

use teeline_archive::segment::{Codec, Origin, SegmentInfo};
use teeline_config::TopicFilter;

use super::*;
use crate::fixture::{BACKUP, Fixture, data};
use crate::ledger::{load, load_whole};
use crate::plan::{Request, plan};
use crate::verify::verify;

async fn archive(codec: Codec) -> (Fixture, SegmentInfo) {
    let mut fixture = Fixture::new();
    fixture.codec = codec;
    let batches: Vec<_> = (0..8).map(|batch| data(batch * 10, &[batch * 100; 10])).collect();
    let info = fixture.segment("orders", Origin::Tee, &batches).await;
    fixture.commit().await;
    (fixture, info)
}

async fn check_all(fixture: &Fixture, window: Window) -> Result<u64, RestorerError> {
    let backup = load_whole(&fixture.store, BACKUP).await?;
    let plan = plan(
        &backup.state,
        BACKUP,
        &Request {
            window,
            ..Request::default()
        },
    )?;
    check(
        &fixture.store,
        &plan,
        &Arc::new(Live::default()),
        &Shutdown::new(),
    )
    .await
}

async fn findings(fixture: &Fixture) -> usize {
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    let live = Arc::new(Live::default());
    let topics = TopicFilter::default();
    verify(&fixture.store, &backup, &topics, &live, &Shutdown::new())
        .await
        .unwrap()
        .damage
        .len()
}

#[tokio::test]
async fn whatever_byte_of_a_segment_changes_it_is_refused_by_name() {
    for codec in Codec::ALL {
        let (fixture, info) = archive(codec).await;
        check_all(&fixture, Window::ALL).await.unwrap();
        assert_eq!(findings(&fixture).await, 0);
        let length = usize::try_from(info.object_bytes).unwrap();
        for at in (0..length).step_by(7) {
            fixture.damage(&info.key, at);
            let error = check_all(&fixture, Window::ALL).await.unwrap_err();
            assert!(
                matches!(&error, RestorerError::Damaged { damage } if damage[0].key == info.key),
                "{at}: {error}"
            );
            assert!(error.to_string().contains(&info.key));
            assert_eq!(findings(&fixture).await, 1, "byte {at}");
            fixture.damage(&info.key, at);
        }
        check_all(&fixture, Window::ALL).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_or_shortened_segment_is_refused_by_name() {
    let (fixture, info) = archive(Codec::Zstd).await;
    let path = fixture.directory.path().join(&info.key);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 1, 40, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = check_all(&fixture, Window::ALL).await.unwrap_err();
        assert!(
            matches!(error, RestorerError::Damaged { .. }),
            "{length}: {error}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    let error = check_all(&fixture, Window::ALL).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    assert_eq!(findings(&fixture).await, 1);
}

#[tokio::test]
async fn blocks_outside_the_window_are_not_read() {
    let (fixture, info) = archive(Codec::Zstd).await;
    // The last block lies right in front of the footer.
    let segment = open_segment(&fixture.store, &Arc::new(info.clone()))
        .await
        .unwrap();
    let last = segment.footer.blocks.last().unwrap();
    fixture.damage(&info.key, usize::try_from(last.file_offset).unwrap() + 8);
    check_all(
        &fixture,
        Window {
            from_ms: None,
            to_ms: Some(100),
        },
    )
    .await
    .unwrap();
    assert!(
        check_all(
            &fixture,
            Window {
                from_ms: Some(700),
                to_ms: None
            }
        )
        .await
        .is_err()
    );
}

#[tokio::test]
async fn a_window_makes_the_figures_of_the_plan_exact_by_blocks() {
    let (mut fixture, _) = archive(Codec::Zstd).await;
    fixture.block_bytes = 1;
    let batches = [data(80, &[50, 5000]), data(82, &[9000, 9000])];
    fixture.segment("orders", Origin::Tee, &batches).await;
    fixture.commit().await;
    let backup = load_whole(&fixture.store, BACKUP).await.unwrap();
    let request = Request {
        window: Window {
            from_ms: Some(4000),
            to_ms: Some(6000),
        },
        ..Request::default()
    };
    let mut plan = plan(&backup.state, BACKUP, &request).unwrap();
    assert_eq!(plan.records_max(), 4);
    refine(&fixture.store, &mut plan).await.unwrap();
    assert_eq!(plan.records_max(), 2);
}

#[tokio::test]
async fn a_damaged_commit_stops_a_restore_and_not_a_listing() {
    let (mut fixture, _) = archive(Codec::Zstd).await;
    fixture.segment("orders", Origin::Tee, &[data(80, &[1])]).await;
    fixture.commit().await;
    let key = "test/ledger/0000000000000007/00000000000000000002.commit";
    fixture.damage(key, 50);
    let error = load_whole(&fixture.store, BACKUP).await.unwrap_err();
    assert!(
        matches!(&error, RestorerError::Damaged { damage } if damage[0].key == key),
        "{error}"
    );
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    assert_eq!((backup.damage.len(), backup.summary().records), (1, 80));
    fixture.damage(key, 50);
    assert!(load_whole(&fixture.store, BACKUP).await.is_ok());
    // A chain with a missing link is damaged too: what the link listed is not known.
    std::fs::remove_file(fixture.directory.path().join(key.replace("2.commit", "1.commit"))).unwrap();
    assert!(load_whole(&fixture.store, BACKUP).await.is_err());
    assert!(matches!(
        load(&fixture.store, "other").await,
        Err(RestorerError::NoBackup { .. })
    ));
}

#[tokio::test]
async fn a_commit_that_must_be_understood_and_is_not_stops_every_command() {
    let (mut fixture, _) = archive(Codec::Zstd).await;
    fixture.segment("orders", Origin::Tee, &[data(80, &[1])]).await;
    fixture.commit().await;
    let key = "test/ledger/0000000000000007/00000000000000000002.commit";
    let path = fixture.directory.path().join(key);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]).to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    std::fs::write(&path, bytes).unwrap();
    let error = load(&fixture.store, BACKUP).await.unwrap_err();
    assert!(
        matches!(&error, RestorerError::Newer { key: told, .. } if told == key),
        "{error}"
    );
}
