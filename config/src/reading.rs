//! From sections of the file to the types, with the rules that each section must obey by itself.

mod addressing;
mod audit;
mod cluster;
mod endpoint;
mod jobs;
mod listen;
mod process;
mod security;
mod storage;

use crate::document::{Config, Mode};
use crate::problem::Problem;
use crate::section::Section;

pub(crate) use endpoint::bootstrap_servers;
pub(crate) use storage::{check_endpoint, clean_prefix, url_in_path};

/// Longest backup id; with the rest of a key it must fit what stores allow (1024 bytes).
const BACKUP_ID_MAX: usize = 128;

/// Reads the whole file.
pub(crate) fn config(mut top: Section<'_>) -> Config {
    let mode = top.choice(
        "mode",
        &[("backup", Mode::Backup), ("restore", Mode::Restore)],
        &[],
    );
    let backup_id = backup_id(&mut top);
    let clusters = cluster::clusters(&mut top, backup_id.as_deref());
    let storage = top.section("storage").and_then(storage::storage);
    let (source, source_topics) = endpoint::with_topics(top.section("source"));
    let (target, target_topics) = endpoint::with_topics(top.section("target"));
    let (mut backup, backup_segmenter) = jobs::backup(top.section("backup"));
    let segmenter = jobs::segmenter(&mut top, backup_segmenter);
    let audit = audit::audit(top.section("audit"));
    let mut restore = jobs::restore(top.section("restore"));
    let admin = process::admin(top.section("admin"));
    let log = process::log(top.section("log"));
    let process = process::process(top.section("process"));
    for (topics, section, settled) in [
        (source_topics, "backup", &mut backup.topics),
        (target_topics, "restore", &mut restore.topics),
    ] {
        let Some(topics) = topics else { continue };
        if settled.include.is_empty() && settled.exclude.is_empty() {
            *settled = topics;
        } else {
            let message = format!("topics are chosen twice, also in {section}.topics");
            top.problem(
                if section == "backup" { "source" } else { "target" },
                message,
                "keep one of the two",
            );
        }
    }
    top.finish();
    Config {
        mode,
        backup_id,
        clusters,
        storage,
        segmenter,
        audit,
        admin,
        log,
        source,
        target,
        backup,
        restore,
        process,
    }
}

fn backup_id(section: &mut Section<'_>) -> Option<String> {
    let id = section.text("backup_id")?;
    match check_backup_id(&id) {
        Ok(()) => Some(id),
        Err((message, hint)) => {
            section.problem("backup_id", message, hint);
            None
        }
    }
}

/// A backup id is part of every key of the archive.
pub(crate) fn check_backup_id(id: &str) -> Result<(), (String, String)> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !id.is_empty() && id.len() <= BACKUP_ID_MAX && id != "." && id != ".." && id.bytes().all(plain) {
        return Ok(());
    }
    let hint = format!("use 1 to {BACKUP_ID_MAX} letters, digits, '.', '_' and '-'");
    Err(("cannot be part of an object's key".to_owned(), hint))
}

/// A problem about the file as a whole.
pub(crate) fn whole_file(message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem {
        key: String::new(),
        value: None,
        message: message.into(),
        hint: hint.into(),
    }
}
