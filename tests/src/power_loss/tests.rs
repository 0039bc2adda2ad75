//! What the disk of the model may hold.

use std::collections::BTreeSet;

use super::*;

fn image(ops: &[Op], fate: Fate) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Disk::replay(ops)
        .write_image(Path::new("/r"), dir.path(), fate)
        .expect("write the image");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir.path()).expect("list the image") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        files.insert(name, fs::read(entry.path()).unwrap_or_default());
    }
    files
}

fn create(path: &str) -> Op {
    Op::Create {
        inode: 1,
        path: path.into(),
    }
}

fn write(offset: u64, data: &[u8]) -> Op {
    Op::Write {
        inode: 1,
        offset,
        data: data.to_vec(),
    }
}

fn sync_root() -> Op {
    Op::SyncDir { path: "/r".into() }
}

#[test]
fn unsynced_bytes_and_unsynced_names_are_lost() {
    let synced_file = [create("/r/a"), write(0, b"x"), Op::Sync { inode: 1 }];
    assert!(
        image(&synced_file, Fate::Lost).is_empty(),
        "the name was not synced"
    );
    let mut both = synced_file.to_vec();
    both.push(sync_root());
    both.push(write(1, b"y"));
    assert_eq!(image(&both, Fate::Lost)["a"], b"x");
}

#[test]
fn a_rename_before_its_directory_sync_leaves_the_old_name() {
    let rename = Op::Rename {
        from: "/r/a".into(),
        to: "/r/b".into(),
    };
    let ops = [
        create("/r/a"),
        write(0, b"x"),
        Op::Sync { inode: 1 },
        sync_root(),
        rename,
    ];
    assert_eq!(image(&ops, Fate::Lost).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn some_fates_keep_and_some_lose_what_is_pending() {
    let ops = [create("/r/a"), sync_root(), write(0, &[7; 3 * PAGE_BYTES])];
    let lengths: BTreeSet<usize> = (0..64)
        .map(|seed| image(&ops, Fate::Some(seed))["a"].len())
        .collect();
    assert!(
        lengths.contains(&0) && lengths.contains(&(3 * PAGE_BYTES)),
        "{lengths:?}"
    );
}

#[test]
fn inode_numbers_that_are_used_again_are_other_files() {
    let ops = [
        create("/r/a"),
        write(0, b"old"),
        Op::Sync { inode: 1 },
        Op::Unlink { path: "/r/a".into() },
        create("/r/b"),
        sync_root(),
    ];
    assert_eq!(image(&ops, Fate::Lost)["b"], b"");
}

#[test]
fn what_a_failed_sync_left_behind_is_not_made_durable_by_the_next_one() {
    let ops = [
        create("/r/a"),
        sync_root(),
        write(0, b"lost"),
        Op::SyncFailed { inode: 1 },
        write(4, b"kept"),
        Op::Sync { inode: 1 },
    ];
    assert_eq!(image(&ops, Fate::Lost)["a"], b"\0\0\0\0kept");
    assert_eq!(image(&ops, Fate::Kept)["a"], b"lostkept");
}

#[test]
fn a_write_may_be_torn_at_any_sector() {
    let ops = [create("/r/a"), sync_root(), write(100, &[7; 2 * PAGE_BYTES])];
    let tears: BTreeSet<usize> = (0..64)
        .flat_map(|seed| {
            let bytes = image(&ops, Fate::Some(seed)).remove("a").expect("the file");
            (1..bytes.len())
                .filter(move |at| bytes[at - 1] != bytes[*at])
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        tears.contains(&SECTOR_BYTES) && tears.contains(&PAGE_BYTES),
        "{tears:?}"
    );
}

#[test]
fn a_disk_begins_with_what_a_directory_holds() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("b")).expect("a directory");
    fs::write(dir.path().join("b/a"), b"old").expect("a file");
    let inode = fs::metadata(dir.path().join("b/a")).expect("a file").ino();
    let mut disk = Disk::of(dir.path()).expect("read the directory");
    disk.apply(&Op::Write {
        inode,
        offset: 3,
        data: b"new".to_vec(),
    });
    let image = tempfile::tempdir().expect("a temporary directory");
    for (fate, expected) in [(Fate::Lost, &b"old"[..]), (Fate::Kept, b"oldnew")] {
        disk.write_image(dir.path(), image.path(), fate)
            .expect("write the image");
        assert_eq!(fs::read(image.path().join("b/a")).expect("a file"), expected);
    }
}
