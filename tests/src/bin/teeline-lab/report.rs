//! The closing table, and what to do with what is left.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use teeline_tests::programs::{Archive, ProxySettings};

use crate::demo::{Lab, RECORDS, Restored};
use crate::display::{directory_bytes, grouped, megabytes};
use crate::load::Produced;

impl Lab {
    pub(crate) fn report(&self, produced: &Produced, restored: &Restored, unconfirmed: u64) -> bool {
        let stored = directory_bytes(&self.directory.join("archive"));
        let saved = 100.0 * (1.0 - stored as f64 / produced.bytes as f64);
        let (whole, window) = (&restored.whole, &restored.window);
        let identical = whole.is_identical() && window.is_identical() && whole.acknowledged >= RECORDS;
        let none_or = |count: u64| {
            if count == 0 {
                "none".to_owned()
            } else {
                grouped(count)
            }
        };
        let yes_no = |yes: bool| if yes { "yes" } else { "NO" }.to_owned();
        let rate = produced.acknowledged as f64 / produced.seconds;
        self.display.table(&[
            (
                "records acknowledged",
                format!(
                    "{}  ({} per second)",
                    grouped(whole.acknowledged),
                    grouped(rate as u64)
                ),
            ),
            ("bytes in (keys and values)", megabytes(produced.bytes)),
            ("bytes stored", megabytes(stored)),
            ("space saved", format!("{saved:.0} %")),
            (
                "capture lag",
                format!(
                    "0 records: on disk before each ack; archived within {:.1} s",
                    produced.unarchived_seconds
                ),
            ),
            (
                "restore rate",
                format!("{} records/s", grouped(restored.records_per_second as u64)),
            ),
            ("records restored whole", grouped(whole.restored)),
            (
                "records in the window",
                format!(
                    "{} restored, {} expected",
                    grouped(window.restored),
                    grouped(window.acknowledged)
                ),
            ),
            (
                "acknowledged records missing",
                none_or(whole.missing + window.missing),
            ),
            (
                "unconfirmed ones",
                format!(
                    "{}  ({} never acknowledged, yet restored)",
                    none_or(unconfirmed),
                    grouped(whole.unacknowledged_restored)
                ),
            ),
            (
                "aborted records restored",
                none_or(whole.aborted_restored + window.aborted_restored),
            ),
            ("identical, in order", yes_no(identical)),
            ("took", format!("{:.0} s", self.display.elapsed().as_secs_f64())),
        ]);
        if !identical {
            eprintln!("whole: {whole:?}\nwindow: {window:?}");
        }
        let archive = relative(&self.directory.join("archive"));
        println!(
            "\n   The archive lies in {archive}. Segments are ordinary Kafka logs, compressed. Try next:"
        );
        println!("     target/debug/teeline-restorer describe demo --archive {archive}");
        println!(
            "     target/debug/teeline-restorer restore demo --archive {archive} --target HOST:PORT --dry-run"
        );
        println!(
            "     target/debug/teeline-proxy run --upstream HOST:PORT      (before a cluster of your own)"
        );
        println!("     cargo xtask demo --keep                                  (leaves it running)");
        identical
    }

    /// Life goes on: the target becomes a source of its own behind a proxy, until Ctrl-C.
    pub(crate) fn keep_running(mut self) {
        self.display.step("Leave it running");
        let archive = Archive::Directory(self.directory.join("archive"));
        let mut settings =
            ProxySettings::new(&self.directory.join("after"), &self.target.bootstrap(), &archive);
        settings.document["backup_id"] = json!("after-the-disaster");
        let mut proxy = settings.start();
        self.display
            .note(&format!("restored cluster  {}", self.target.bootstrap()));
        self.display.note(&format!(
            "proxy before it   {}   (captures into backup after-the-disaster)",
            settings.bootstrap()
        ));
        self.display
            .note(&format!("metrics           http://{}/metrics", settings.admin()));
        self.display
            .note("press Ctrl-C to stop everything and clean up; the archive stays");
        // Ctrl-C ends this process, and the reaper then ends everything it started.
        proxy.process.wait_exit(Duration::MAX);
    }
}

/// As a person in the repository would type it.
pub(crate) fn relative(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
