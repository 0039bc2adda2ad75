//! Kafka's own performance producer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use teeline_tests::components::KAFKA_VERSION;
use teeline_tests::kafka::Kafka;

use crate::timed::{self, Timed};

/// What one run of the producer measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Megabytes (10^6) of records per second.
    pub mb_per_second: f64,
    /// Median latency from send to acknowledgement, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// 99.9th percentile of it.
    pub p999_ms: f64,
}

/// Bytes of one record's value.
pub const RECORD_BYTES: u64 = 1024;
/// Different records in the payload file.
const PAYLOADS: u64 = 16_384;

/// Writes the file that the producer draws its records from: JSON events of 1 KiB each, the same in every run.
pub fn write_payloads(directory: &Path) -> PathBuf {
    let path = directory.join("payloads.json");
    let lines: Vec<String> = (0..PAYLOADS).map(event).collect();
    fs::write(&path, lines.join("\n")).expect("write the payload file");
    path
}

/// One record: the JSON of an order, different for every `n` up to the number of payloads.
pub fn event(n: u64) -> String {
    // Numbers that look drawn at random and are the same every time (a 64-bit mixing function).
    let mixed = |salt: u64| {
        let mut x = (n * 64 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 29;
        x.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (x >> 32)
    };
    let mut line = format!(
        "{{\"order_id\":\"{:016x}\",\"customer\":{},\"status\":\"{}\",\"amount_cents\":{},\"created_at\":{},\"items\":[",
        mixed(1),
        mixed(2) % 100_000,
        ["created", "paid", "shipped", "returned"][(mixed(3) % 4) as usize],
        mixed(4) % 500_000,
        1_700_000_000_000 + n * 37,
    );
    let mut item = 0;
    while line.len() + 64 < RECORD_BYTES as usize {
        let (sku, quantity) = (mixed(10 + item) % 9_999_999, mixed(40 + item) % 9 + 1);
        line.push_str(&format!("{{\"sku\":\"{sku:07}\",\"quantity\":{quantity}}},"));
        item += 1;
    }
    line.push_str("{}],\"note\":\"");
    let rest = (RECORD_BYTES as usize).saturating_sub(line.len() + 2);
    line.push_str(&"-".repeat(rest));
    line.push_str("\"}");
    line
}

/// A run of the producer with acks=all, 5 ms linger and 64 KiB batches.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// Which version of the producer, as Maven has it.
    pub version: &'a str,
    /// Where it bootstraps.
    pub bootstrap: &'a str,
    /// Where it sends to.
    pub topic: &'a str,
    /// What [`write_payloads`] wrote.
    pub payloads: &'a Path,
    /// Records of 1 KiB.
    pub records: u64,
    /// How many of them, from the first on, count for nothing that the producer says of rate and latency: the first seconds of
    /// a JVM. Versions before 4.2 count all.
    pub warm_up_records: u64,
    /// `None` is as fast as it goes.
    pub records_per_second: Option<u64>,
    /// A codec, or `none`.
    pub codec: &'a str,
}

impl Load<'_> {
    /// Runs it.
    ///
    /// # Panics
    /// When the producer fails.
    pub fn run(&self) -> Measured {
        let output = self.command().output().expect("run the performance producer");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "the performance producer failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        measured(&text)
    }

    fn command(&self) -> Command {
        let rate = self
            .records_per_second
            .map_or("-1".to_owned(), |rate| rate.to_string());
        let mut command = Kafka::tool_command_of(self.version, "org.apache.kafka.tools.ProducerPerformance");
        command
            .args(["--topic", self.topic])
            .args(["--num-records", &self.records.to_string()])
            .arg("--payload-file")
            .arg(self.payloads)
            .args(["--throughput", &rate]);
        if self.warm_up_records > 0 && self.version == KAFKA_VERSION {
            command.args(["--warmup-records", &self.warm_up_records.to_string()]);
        }
        command
            .arg("--producer-props")
            .arg(format!("bootstrap.servers={}", self.bootstrap))
            .arg(format!("compression.type={}", self.codec))
            .args(["acks=all", "linger.ms=5", "batch.size=65536"]);
        command
    }
}

/// A load at full speed with a codec, and what the producer itself used; what it says goes through `directory`.
pub fn run_timed(
    bootstrap: &str,
    topic: &str,
    payloads: &Path,
    records: u64,
    codec: &str,
    directory: &Path,
) -> (Timed, Measured) {
    let load = Load {
        version: KAFKA_VERSION,
        bootstrap,
        topic,
        payloads,
        records,
        warm_up_records: 0,
        records_per_second: None,
        codec,
    };
    let timed = timed::run(load.command(), directory);
    let measured = measured(&timed.stdout);
    (timed, measured)
}

/// The last summary; with a warm-up it is that of what came after it.
fn measured(text: &str) -> Measured {
    let last = text
        .lines()
        .rfind(|line| line.contains("99.9th"))
        .unwrap_or_else(|| {
            panic!("the performance producer printed no summary: {text}");
        });
    read_summary(last)
        .unwrap_or_else(|| panic!("the performance producer's summary is not understood: {last}"))
}

/// `N records sent, R records/sec (M MB/sec), A ms avg latency, X ms max latency, P ms 50th, …`
fn read_summary(line: &str) -> Option<Measured> {
    let before = |mark: &str| {
        let head = line.split(mark).next().filter(|head| head.len() < line.len())?;
        head.rsplit([' ', '('])
            .find(|word| !word.is_empty())?
            .parse::<f64>()
            .ok()
    };
    Some(Measured {
        // The tool's MB are 2^20 bytes.
        mb_per_second: before(" MB/sec")? * 1.048_576,
        p50_ms: before(" ms 50th")?,
        p99_ms: before(" ms 99th")?,
        p999_ms: before(" ms 99.9th")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_understood() {
        let line = "400000 records sent, 160513.6 records/sec (156.75 MB/sec), 12.34 ms avg latency, 320.00 ms max \
                    latency, 8 ms 50th, 30 ms 95th, 45 ms 99th, 60 ms 99.9th.";
        let measured = read_summary(line).expect("a summary");
        assert!((measured.mb_per_second - 164.36).abs() < 0.01, "{measured:?}");
        assert_eq!(
            (measured.p50_ms, measured.p99_ms, measured.p999_ms),
            (8.0, 45.0, 60.0)
        );
        assert!(read_summary("nothing of the kind").is_none());
    }

    #[test]
    fn every_payload_is_one_line_of_json_of_the_stated_size() {
        for n in 0..PAYLOADS {
            let event = event(n);
            assert_eq!(event.len() as u64, RECORD_BYTES);
            serde_json::from_str::<serde_json::Value>(&event).expect("JSON");
        }
    }
}
